"""Where the parts of Tallylog are: read from the environment, frozen."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_ACCOUNT = "default"
"""The account that a new catalog has, with its first key."""


class Places(BaseSettings):
    """The addresses every service shares; each service's settings extend it.

    data_dir        Everything kept on this disk: broker, engine, catalog, claims.
    kafka           Bootstrap servers, "host:port[,host:port]".
    clickhouse_url  HTTP interface, "http://user:password@host:port/database".
    catalog_url     SQLAlchemy URL of the catalog; empty: SQLite in `data_dir`.
    failpoints      Folder of schemas/failpoint.py; empty: there are no failpoints.
    """

    model_config = SettingsConfigDict(env_prefix="TALLYLOG_", frozen=True, extra="ignore")

    data_dir: Path = Path(".tallylog")
    kafka: str = "127.0.0.1:19092"
    clickhouse_url: str = "http://127.0.0.1:18123/tallylog"
    catalog_url: str = ""
    failpoints: str = ""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @property
    def catalog(self) -> str:
        """The catalog's SQLAlchemy URL."""
        return self.catalog_url or f"sqlite:///{self.data_dir.absolute() / 'catalog.db'}"
