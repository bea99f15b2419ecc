"""Connections of ClickHouse's HTTP interface: an operator's INSERT or answer may take hours.

What nobody asked for, or goes on with, is closed, and there are files left for the tables.
"""

import math
from typing import Any

import sockets.connection
from schemas.errors import Answer, Rejection
from schemas.open_files import files_max
from sockets.connection import Limits


class Connection(sockets.connection.Connection):
    """One connection of a ClickHouse client."""

    limits = Limits(
        head_bytes_max=1 << 20,  # a query may stand in the address
        body_s=math.inf,
        body_silence_s=30.0,
        body_grace_s=math.inf,
        unread_s=300.0,  # a client may work on what it has read
        unsent_bytes=1 << 20,
        idle_s=30.0,
        connections_max=files_max() // 2,
    )

    def refusal(self, rejection: Rejection) -> Answer:
        """As a ClickHouse server says it: in plain text."""
        headers = {"Content-Type": "text/plain; charset=UTF-8"}
        return Answer(rejection.status, f"{rejection.message}\n".encode(), headers)


OPTIONS: dict[str, Any] = {
    **sockets.connection.OPTIONS,
    "http": Connection,
    "timeout_keep_alive": int(Connection.limits.idle_s),
}
"""How uvicorn serves it."""
