"""A connection that nobody can hold for nothing: uvicorn's, with deadlines and limits of its own.

uvicorn waits for ever for the rest of a head or a body. Here a head has to be whole in time, and of
some size at most; a body has to arrive in time, and not by drops; and what is idle is closed. The
parser, llhttp, refuses what a proxy and a server may read differently (both lengths, two lengths,
folded headers, bare line feeds); what it leaves open is refused here. An offer to upgrade is
ignored, as the standard allows: clients of HTTP/2 make it with their first request.

What is wrong before there is a request is answered in the one shape of errors, and the connection
closed.
"""

import asyncio
import resource
from enum import Enum
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ingest_gateway import metrics
from ingest_gateway.errors import HeadersTooLarge, RequestTimeout
from schemas.errors import InvalidRequest, Rejection, answer

HEAD_S = 10.0
"""From a request's first byte to the end of its headers, and from a connection to that byte."""

BODY_S = 60.0
"""From the end of the headers to that of the body."""

BODY_GRACE_S = 10.0
BODY_BYTES_PER_S = 1024
"""What a body has to arrive at on average, after a grace."""

IDLE_S = 75
"""How long a connection is kept for another request: longer than most proxies keep theirs."""

STOP_S = 5.0
"""What is left for a request to arrive once the process is told to stop."""

HEAD_BYTES_MAX = 64 << 10
HEADERS_MAX = 100
FRAMING_PER_BYTE = 8
"""Bytes of chunk framing for one of the body: chunks of one byte take 5, more is padding."""

UNREAD_BYTES_MAX = 64 << 20
UNREAD_S = 1.0
"""What is still read of a refused request, so that the refusal isn't lost: a socket that is closed
with something unread resets the connection, and the client may not see the answer any more."""

LOOK_S = 5.0
"""How often a connection looks at its deadlines; less than the shortest, so that each is kept."""


class Phase(Enum):
    """What a connection waits for."""

    HEAD = "headers"
    BODY = "body"
    NEXT = "another request"


class Connection(HttpToolsProtocol):
    """One connection. For uvicorn's `http`."""

    _phase = Phase.NEXT
    _since = 0.0  # when the phase began
    _now = 0.0  # when the last bytes came
    _chunk = 0  # how many these were
    _begun = 0  # how many were in the chunk that a head began in
    _fed = 0  # bytes of the phase, but for those of the chunk that it began in
    _body = 0  # bytes of the body so far
    _fault: Rejection | None = None
    _deaf = False  # after a fault: what still comes is dropped
    _upgradable: bytes | None = None
    _stop_at: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._look_in(LOOK_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes; what isn't HTTP is refused."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._now = self.loop.time()
        self._chunk = len(data)
        self._fed += self._chunk
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._feed_without(offer, data)
        except httptools.HttpParserError as error:
            self._refuse(self._fault or _not_http(error))
        if self._fed > HEAD_BYTES_MAX:
            self._bound()

    def on_message_begin(self) -> None:
        """A request's first byte is there."""
        super().on_message_begin()
        self._phase, self._since, self._fed = Phase.HEAD, self._now, 0
        self._begun = self._chunk

    def on_headers_complete(self) -> None:
        """A request's head is whole. Raises Rejection, which the parser makes an error of its."""
        self._fault = self._fault_of_head()
        if self._fault is not None:
            raise self._fault
        if self.parser.should_upgrade():
            self._upgradable = self._head_without_offer()
            return
        super().on_headers_complete()
        self._phase, self._since, self._fed, self._body = Phase.BODY, self._now, 0, 0
        self.headers = []  # what comes behind a body means nothing here

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        if self._upgradable is None:
            self._phase, self._since, self._fed = Phase.NEXT, self._now, 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is sent: the time until the next request begins now."""
        if self._phase is Phase.NEXT:
            self._since = self.loop.time()
        super().on_response_complete()

    def shutdown(self) -> None:
        """The process is told to stop: a request that has begun to arrive has a little time."""
        super().shutdown()
        self._stop_at = self.loop.time() + STOP_S
        self._looking.cancel()
        self._look()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came after an answer: uvicorn's own timer for it."""
        metrics.connections_timed_out.labels(Phase.NEXT.value).inc()
        super().timeout_keep_alive_handler()

    def _feed_without(self, offer: httptools.HttpParserUpgrade, data: bytes) -> None:
        """Feed a request again, without the offer to upgrade that it made, and what follows.

        The parser takes all behind the offer, the body too, for another protocol's: it is replaced.
        """
        while True:
            assert self._upgradable is not None
            data = self._upgradable + data[offer.args[0] :]
            self._upgradable = None
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as another:
                offer = another
            except httptools.HttpParserError as error:
                self._refuse(self._fault or _not_http(error))
                return

    def _bound(self) -> None:
        """Refuse a head that is too large, and a body that is, or comes in too much framing."""
        if self._deaf:
            return
        if self._phase is Phase.HEAD:
            self._refuse(HeadersTooLarge())
        elif self._phase is Phase.BODY:
            if self._fed > HEAD_BYTES_MAX + FRAMING_PER_BYTE * self._body:
                self._refuse(_not_http("chunks are padded"))
            elif self.cycle.response_complete and self._body > UNREAD_BYTES_MAX:
                self.transport.close()

    def _head_without_offer(self) -> bytes:
        """The head that was read, without its offer to upgrade."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _fault_of_head(self) -> Rejection | None:
        """What is wrong with a head that the parser took."""
        headers, version = self.headers, self.parser.get_http_version()
        if len(headers) > HEADERS_MAX:
            return HeadersTooLarge()
        if self._begun + self._fed > HEAD_BYTES_MAX:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > HEAD_BYTES_MAX:
                return HeadersTooLarge()
        names = [name for name, _ in headers]
        if version == "1.1":
            if names.count(b"host") != 1:
                return _not_http("it has to have one Host header")
        elif version != "1.0":
            return _not_http(f"version {version} is not supported")
        elif b"transfer-encoding" in names:
            return _not_http("HTTP/1.0 has no Transfer-Encoding")
        if self.parser.get_method() == b"CONNECT":
            return _not_http("this is no proxy")
        return None

    def _deadline(self) -> float | None:
        """When what is waited for has to be there; None while an answer is."""
        if self._phase is Phase.HEAD:
            due = self._since + HEAD_S
        elif self._phase is Phase.BODY:
            due = self._since + BODY_S
            if not self.flow.read_paused:  # else it is us who are slow
                due = min(due, self._since + BODY_GRACE_S + self._body / BODY_BYTES_PER_S)
        elif self.cycle is None:
            due = self._since + HEAD_S
        elif self.cycle.response_complete:
            due = self._since + IDLE_S
        else:
            return None
        return due if self._stop_at is None else min(due, self._stop_at)

    def _look_in(self, seconds: float) -> None:
        self._look_at = self.loop.time() + seconds
        self._looking = self.loop.call_at(self._look_at, self._look)

    def _look(self) -> None:
        """Look whether a deadline has passed, and when to look again."""
        if self.transport.is_closing():
            return
        now = self.loop.time()
        self._since += max(0.0, now - self._look_at)  # what we slept is not the client's fault
        due = self._deadline()
        if due is None or due > now:
            self._look_in(LOOK_S if due is None else min(LOOK_S, due - now))
            return
        metrics.connections_timed_out.labels(self._phase.value).inc()
        if self._phase is Phase.NEXT:
            self.transport.close()
        else:
            self._refuse(RequestTimeout(self._phase.value, now - self._since))

    def _refuse(self, rejection: Rejection) -> None:
        """Answer what is no request, or won't become one, and close."""
        cycle, self._deaf = self.cycle, True
        unanswered = cycle is not None and not cycle.response_complete
        if self._phase is not Phase.BODY and unanswered:
            cycle.keep_alive = False  # the request before comes first; that ends the connection
            return
        if unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        begun = self._phase is Phase.BODY and cycle.response_started
        if begun or self.pipeline or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write(_response(rejection))
        self.transport.write_eof()
        self._looking.cancel()
        self._looking = self.loop.call_later(UNREAD_S, self.transport.close)


def _response(rejection: Rejection) -> bytes:
    refusal = answer(rejection)
    headers = {
        **refusal.headers,
        "Content-Length": str(len(refusal.body)),
        "Connection": "close",
    }
    lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    return b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", refusal.body])


def _not_http(why: object) -> InvalidRequest:
    return InvalidRequest.at("", "invalid_http", f"The request is not valid HTTP: {why}")


def allow_many_connections() -> None:
    """Let this process have as many files open as the system allows: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


OPTIONS: dict[str, Any] = {
    "loop": "uvloop",
    "http": Connection,
    "ws": "none",
    "timeout_keep_alive": IDLE_S,
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "backlog": 4096,
}
"""How uvicorn serves every HTTP service of ours."""
