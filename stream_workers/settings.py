"""Settings of packer and counter, read from the environment."""

from pathlib import Path

from pydantic import Field

from schemas.settings import Places

DAY_MS = 24 * 3_600_000


class WorkerSettings(Places):
    """What both workers need beside the addresses.

    worker             Name of this process among its like; its claims live under it.
    monitor_port       Where /healthz, /readyz and /metrics answer; 0: nowhere.
    block_epoch        Layout of the block topic: a new partition count is a new epoch.
    block_partitions   Partitions when the topic is made; afterwards the topic says how many.
    horizon_days       How long an event_id is remembered, by the log's time.
    replication        Replicas of topics that are made.
    session_timeout_s  After how long without a heartbeat a worker's partitions are given away.
    insert_timeout_s   After how long without an answer an insert is in doubt: it may still land.
    """

    worker: str = "0"
    monitor_port: int = 0
    block_epoch: int = Field(default=0, ge=0, lt=1 << 16)
    block_partitions: int = Field(default=4, ge=1, le=1024)
    horizon_days: int = Field(default=35, ge=1)
    replication: int = Field(default=1, ge=1)
    session_timeout_s: float = Field(default=10.0, gt=0)
    insert_timeout_s: float = Field(default=120.0, gt=0)

    @property
    def horizon_ms(self) -> int:
        """The horizon in milliseconds."""
        return self.horizon_days * DAY_MS

    @property
    def claims(self) -> Path:
        """Where this worker keeps its claims."""
        return self.data_dir / "claims" / self.worker


class PackerSettings(WorkerSettings):
    """Settings of the packer.

    linger_ms       How long a small block may wait for company while others were just written.
    blocks_per_s    Blocks a second, over all partitions, before small ones have to wait.
    batch_bytes     What is gathered before blocks are cut at once.
    """

    linger_ms: int = Field(default=400, ge=0)
    blocks_per_s: float = Field(default=20.0, gt=0)
    batch_bytes: int = Field(default=16 << 20, gt=0)
