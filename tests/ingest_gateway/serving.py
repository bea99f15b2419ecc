"""The gateway behind a real socket, and a client that may send any bytes."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from catalog import accounts, keys
from catalog.bootstrap import bootstrap
from catalog.database import Catalog
from catalog.follower import Follower
from ingest_gateway import health
from ingest_gateway.app import routes
from ingest_gateway.connection import OPTIONS
from ingest_gateway.errors import EXCEPTION_HANDLERS
from ingest_gateway.events import Gateway
from ingest_gateway.settings import Settings
from schemas.keys import NewAccount, NewApiKey
from tests.ingest_gateway.conftest import FakeLog

EVENT = b'{"event_name":"api.calls","external_customer_id":"cust_1"}'


class Answer(NamedTuple):
    """One response: its body is the JSON that every answer of ours is, None where it has none."""

    status: int
    headers: dict[str, str]
    body: Any


class Wire:
    """One connection, byte by byte; `receive_bytes` is what may wait for this side unread."""

    def __init__(self, port: int, timeout_s: float = 10, receive_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout_s)
        self.socket.connect(("127.0.0.1", port))
        self._read = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it; what the server has closed already is no fault here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def answer(self) -> Answer | None:
        """The next response; None when the server closes without one."""
        while b"\r\n\r\n" not in self._read:
            if not self._more():
                assert self._read == b""
                return None
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        status = int(first.split()[1])
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if status == 100:
            return Answer(status, headers, None)
        length = int(headers["content-length"])
        while len(self._read) < length:
            assert self._more(), "the answer is cut"
        body, self._read = self._read[:length], self._read[length:]
        return Answer(status, headers, json.loads(body))

    def closed_after(self) -> float:
        """Seconds until the server closes; fails when it sends anything."""
        started = time.monotonic()
        assert not self._more(), f"unexpected: {self._read!r}"
        return time.monotonic() - started

    def _more(self) -> bool:
        try:
            piece = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._read += piece
        return piece != b""


class Served:
    """Where the gateway answers, with keys of two accounts, and the log that it writes to."""

    def __init__(self, port: int, keys: list[str], log: FakeLog, server: uvicorn.Server) -> None:
        self.port, self.log, self.server = port, log, server
        self.key, self.others_key = keys

    def head(
        self, *headers: bytes, path: bytes = b"/v1/events", length: int | None = None
    ) -> bytes:
        """The head of a POST with a valid key."""
        lines = [b"POST %s HTTP/1.1" % path, b"Host: gateway", b"x-api-key: " + self.key.encode()]
        lines += [b"Content-Type: application/json", *headers]
        if length is not None:
            lines.append(b"Content-Length: %d" % length)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def post(self, body: bytes, *headers: bytes, path: bytes = b"/v1/events") -> Answer:
        """A whole request, on a connection of its own."""
        with Wire(self.port) as wire:
            wire.send(self.head(*headers, path=path, length=len(body)) + body)
            answer = wire.answer()
        assert answer is not None
        return answer

    def healthy(self) -> bool:
        """Whether an ordinary request is accepted."""
        return self.post(EVENT).status == 202


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[Served]:
    """The gateway's two routes on a free port, in a thread, with a log that keeps records."""
    first = NewApiKey(name="k", requests_per_minute=0, bulk_requests_per_minute=0)
    key = bootstrap(settings.catalog, first).api_key
    assert key is not None
    catalog = Catalog(settings.catalog)
    with catalog.writing("test") as writing:
        accounts.create(writing, NewAccount(id="other", name="other"))
        others_key = keys.create(writing, "other", first)[1]
    follower = Follower(catalog)
    follower.refresh()
    log = FakeLog()
    app = Starlette(routes=[*routes(), *health.routes()], exception_handlers=EXCEPTION_HANDLERS)
    gateway: Gateway | None = None

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal gateway
        gateway = gateway or Gateway(settings, follower, log)  # type: ignore[arg-type]
        scope["state"] = {"gateway": gateway}
        await app(scope, receive, send)

    options = {**OPTIONS, "log_level": "critical", "lifespan": "off"}
    config = uvicorn.Config(with_state, port=0, timeout_graceful_shutdown=20, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield Served(server.servers[0].sockets[0].getsockname()[1], [key, others_key], log, server)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()
    catalog.close()
