"""Settings of the local stack: its ports, its cache and how much memory it may take."""

from pathlib import Path

from pydantic import Field

from schemas.settings import Places


class StackSettings(Places):
    """Where the local broker and engine live; both listen on 127.0.0.1 only.

    kafka_port           TALLYLOG_KAFKA_PORT: the broker's port.
    clickhouse_port      TALLYLOG_CLICKHOUSE_PORT: the engine's HTTP port.
    clickhouse_user      Name that the engine's HTTP interface asks for.
    clickhouse_password  Its password; empty: none is asked for.
    cache_dir            Downloads, shared by all data folders.
    kafka_heap_mb        Most heap the broker may use.
    clickhouse_mb        Most memory the engine may use.
    """

    kafka_port: int = Field(default=19092, ge=1, le=65535)
    clickhouse_port: int = Field(default=18123, ge=1, le=65535)
    clickhouse_user: str = "default"
    clickhouse_password: str = ""
    cache_dir: Path = Path("~/.cache/tallylog")
    kafka_heap_mb: int = Field(default=512, ge=128)
    clickhouse_mb: int = Field(default=1280, ge=256)

    @property
    def cache(self) -> Path:
        """The cache folder, absolute."""
        return self.cache_dir.expanduser().absolute()
