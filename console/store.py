"""The console's client of ClickHouse: made when it is first needed, shared by its threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from clickhouse.client import connect
from schemas.errors import InvalidRequest, ServiceUnavailable

TOO_MUCH = {
    158: "too many rows",
    159: "too long",
    160: "too long",
    241: "too much memory",
    396: "too many rows",
}
"""ClickHouse's codes for a query that hits a limit."""


class Store:
    """Where usage and events are read. Any thread may use it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._client: Client | None = None

    @contextmanager
    def reading(self) -> Iterator[Client]:
        """The client, for the length of a read.

        Raises ServiceUnavailable when ClickHouse is away, InvalidRequest when it gives up.
        """
        try:
            yield self._connected()
        except DatabaseError as error:
            if error.code in TOO_MUCH:
                raise InvalidRequest(
                    f"The answer takes {TOO_MUCH[error.code]}", cure="ask for a shorter range"
                ) from error
            if isinstance(error, OperationalError):
                raise ServiceUnavailable(
                    "The store is unavailable", cure="send the request again in a moment"
                ) from error
            raise

    def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = connect(self._url)
            return self._client
