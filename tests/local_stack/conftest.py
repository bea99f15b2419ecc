"""What tests of the local stack share."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from local_stack.ports import HOST


class Http:
    """ClickHouse over plain HTTP: `ask` sends a query and returns the answer."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        user, password = parts.username or "default", parts.password or ""
        self.base = f"{parts.scheme}://{parts.hostname}:{parts.port}/"
        self.client = httpx.Client(
            base_url=self.base, trust_env=False, timeout=30, auth=(user, password)
        )
        self.database = parts.path.strip("/") or "default"

    def ask(
        self,
        sql: str = "",
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        **args: object,
    ) -> httpx.Response:
        """POST a query: as the body, or in the URL when there is a body of data."""
        params = {"database": self.database} | {name: str(value) for name, value in args.items()}
        if body is not None and sql:
            params["query"] = sql
        content = sql if body is None else body
        return self.client.post("/", params=params, content=content, headers=headers)

    def rows(self, sql: str, **args: Any) -> str:
        """The answer to a query that must succeed, as tab separated text."""
        answer = self.ask(sql, **args)
        assert answer.status_code == 200, answer.text
        return answer.text.rstrip("\n")


@pytest.fixture
def http(clickhouse_url: str) -> Iterator[Http]:
    """Plain HTTP to the engine."""
    each = Http(clickhouse_url)
    yield each
    each.client.close()


@pytest.fixture(scope="module")
def web() -> Iterator[list[str]]:
    """The requests that reached a web server of this machine; its port comes first."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            seen.append("reached")
            self.close_connection = True

    with HTTPServer((HOST, 0), Handler) as server:
        seen.append(str(server.server_port))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield seen
        server.shutdown()
        thread.join()


@pytest.fixture
def table(http: Http) -> Iterator[str]:
    """An empty table `t (a UInt64, b String)` of the test's own, with deduplication on."""
    http.rows("DROP TABLE IF EXISTS t")
    http.rows(
        "CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    yield "t"
    http.rows("DROP TABLE t")
