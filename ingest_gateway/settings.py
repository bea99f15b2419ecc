"""What can be set about the gateway, read from the environment (prefix TALLYLOG_)."""

from pydantic import Field

from schemas.limits import BODY_BYTES_MAX
from schemas.settings import Places


class Settings(Places):
    """The gateway's settings.

    gateway_ack_timeout_s        From taking a request to the broker's ack; then 503.
    gateway_bytes_max            Bodies in memory at once, until their ack; then 503. An account
                                 may hold a third of what it leaves to others.
    gateway_batch_bytes_max      Where one append is cut; a larger request goes alone.
    gateway_lanes                Appends on their way at once.
    gateway_partitions           Of the topic, when the gateway makes it.
    gateway_replication          Copies of the topic, when the gateway makes it; -1: the broker's.
    gateway_catalog_refresh_s    How often keys and names are looked up anew.
    gateway_shutdown_s           For requests under way to end when the process is told to.
    gateway_requests_per_minute  Single requests of a key that has no limit of its own; 0: any.
    gateway_bulk_requests_per_minute  Bulk requests of such a key.
    gateway_limits_url           Redis, in which all gateways count together; empty: each alone.
    """

    gateway_ack_timeout_s: float = Field(default=10.0, gt=0)
    gateway_bytes_max: int = Field(default=256 << 20, ge=4 * BODY_BYTES_MAX)
    gateway_batch_bytes_max: int = Field(default=1 << 20, ge=1)
    gateway_lanes: int = Field(default=2, ge=1)
    gateway_partitions: int = Field(default=4, ge=1)
    gateway_replication: int = Field(default=-1, ge=-1)
    gateway_catalog_refresh_s: float = Field(default=1.0, gt=0)
    gateway_shutdown_s: int = Field(default=20, ge=0)
    gateway_requests_per_minute: int = Field(default=1000, ge=0)
    gateway_bulk_requests_per_minute: int = Field(default=100, ge=0)
    gateway_limits_url: str = Field(default="", pattern="^(rediss?://.+)?$")

    def as_environment(self) -> dict[str, str]:
        """The variables from which a worker process reads the same settings."""
        return {f"TALLYLOG_{name.upper()}": str(value) for name, value in self}
