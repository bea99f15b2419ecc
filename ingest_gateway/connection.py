"""The gateway's connections: those whose client is too slow are counted."""

from typing import Any

import sockets.connection
from ingest_gateway import metrics
from sockets.connection import Phase


class Connection(sockets.connection.Connection):
    """One connection of the gateway or the console."""

    def timed_out(self, phase: Phase) -> None:
        """Count what did not come in time."""
        metrics.connections_timed_out.labels(phase.value).inc()


OPTIONS: dict[str, Any] = {
    **sockets.connection.OPTIONS,
    "http": Connection,
    "timeout_keep_alive": int(Connection.limits.idle_s),
}
"""How uvicorn serves gateway and console."""
