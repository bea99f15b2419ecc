"""Connections to ClickHouse: one for statements (sync or async), one for the counter's inserts.

A URL is `http://user:password@host:port/database` (or https). Nothing connects on import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import httpx
from clickhouse_connect.driver import Client

if TYPE_CHECKING:
    from clickhouse_connect.driver import AsyncClient  # brings aiohttp along

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 60
INSERT_TIMEOUT_SECONDS = 120.0
CONNECTIONS_MAX = 16

INSERT_SETTINGS: Mapping[str, str] = {
    "async_insert": "0",  # 26.x defaults to 1: an answer before the rows are in
    "deduplicate_blocks_in_dependent_materialized_views": "1",
}
"""On every insert, beside its `insert_deduplication_token`."""


@dataclass(frozen=True)
class Address:
    """Where a ClickHouse server is, and which of its databases is meant."""

    host: str
    port: int
    database: str
    user: str = "default"
    password: str = ""
    secure: bool = False

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL. Raises ValueError when it is not one of ClickHouse's HTTP interface."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{parts.scheme}://{parts.hostname}: want http://host:port/database")
        secure = parts.scheme == "https"
        return cls(
            host=parts.hostname,
            port=parts.port or (8443 if secure else 8123),
            database=unquote(parts.path.strip("/")) or "default",
            user=unquote(parts.username or "default"),
            password=unquote(parts.password or ""),
            secure=secure,
        )

    @property
    def root(self) -> str:
        """The server's URL, without user and database."""
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}/"


def _options(address: Address, database: str) -> dict[str, Any]:
    return {
        "host": address.host,
        "port": address.port,
        "username": address.user,
        "password": address.password,
        "database": database,
        "interface": "https" if address.secure else "http",
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "send_receive_timeout": READ_TIMEOUT_SECONDS,
        "autogenerate_session_id": False,  # a session forbids concurrent queries
        "tz_mode": "aware",
        "settings": dict(INSERT_SETTINGS),
    }


def connect(url: str, *, database: str | None = None) -> Client:
    """A client for statements, in the URL's database or another one.

    Threads may share it: it has no session, and a pool of its own. Asks the server for its version
    and zone at once; raises clickhouse_connect's OperationalError when nobody answers.
    """
    address = Address.of(url)
    pool = clickhouse_connect.driver.httputil.get_pool_manager(maxsize=CONNECTIONS_MAX)
    return clickhouse_connect.get_client(
        **_options(address, address.database if database is None else database), pool_mgr=pool
    )


async def connect_async(url: str) -> "AsyncClient":
    """The same for asyncio: tasks of one event loop may share it. Close it with `await close()`."""
    address = Address.of(url)
    return await clickhouse_connect.get_async_client(
        **_options(address, address.database), connector_limit_per_host=CONNECTIONS_MAX
    )


class InsertFailed(Exception):
    """An insert was not answered with success: ask the markers what landed before trying again.

    `code` is ClickHouse's, None when no answer came. Either way a part of it may be in: the source
    first, then each view's target.
    """

    def __init__(self, code: int | None, text: str) -> None:
        super().__init__(text)
        self.code = code


class Inserts:
    """Inserts of Arrow streams over HTTP, each sent exactly once: it never retries by itself.

    clickhouse-connect is not used here because it repeats a raw insert whose connection broke, and
    reads each body as text to classify it (10 ms for a MiB). Tasks of one event loop may share it.
    """

    def __init__(self, url: str, timeout_s: float = INSERT_TIMEOUT_SECONDS) -> None:
        self._address = Address.of(url)
        self._http = httpx.AsyncClient(
            base_url=self._address.root,
            headers={
                "X-ClickHouse-User": self._address.user,
                "X-ClickHouse-Key": self._address.password,
            },
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_SECONDS),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
            trust_env=False,
        )

    async def insert(self, table: str, stream: bytes, *, token: str, query_id: str = "") -> None:
        """Insert one Arrow IPC stream under a deduplication token. Raises InsertFailed."""
        parameters = {
            "query": f"INSERT INTO {table} FORMAT ArrowStream",
            "database": self._address.database,
            "insert_deduplication_token": token,
            "wait_end_of_query": "1",
            **INSERT_SETTINGS,
        }
        if query_id:
            parameters["query_id"] = query_id
        try:
            answer = await self._http.post("", params=parameters, content=stream)
        except httpx.HTTPError as error:
            raise InsertFailed(None, f"no answer from ClickHouse: {error!r}") from error
        code = answer.headers.get("X-ClickHouse-Exception-Code")
        if answer.status_code != 200 or code is not None:
            raise InsertFailed(int(code) if code else None, answer.text[:2000])

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()
