"""A connection that nobody can hold for nothing: uvicorn's, with deadlines and limits of its own.

uvicorn waits for ever for the rest of a head or a body, and for a client that doesn't read. Here a
head has to be whole in time, and of some size at most; a body has to arrive in time, and not by
drops; answers have to be read; and what is idle is closed. The parser, llhttp, refuses what a
proxy and a server may read differently (both lengths, two lengths, folded headers, bare line
feeds); what it leaves open is refused here. An offer to upgrade is ignored, as the standard allows:
clients of HTTP/2 make it with their first request.

What is wrong before there is a request is answered by `refusal`, and the connection closed.
"""

import asyncio
import math
import socket
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from schemas.errors import Answer, InvalidRequest, Rejection, answer
from sockets.errors import HeadersTooLarge, RequestTimeout


@dataclass(frozen=True)
class Limits:
    """What a client may take, in seconds and bytes.

    head_s            From a request's first byte to the end of its headers, and to that byte.
    head_bytes_max    Of address and headers.
    body_s            From the end of the headers to that of the body.
    body_silence_s    Between two pieces of a body.
    body_grace_s      After this a body has to have come at 1 KiB/s on average.
    unread_s          Between two moments in which the client has read some of what waits for it.
    unsent_bytes      What may wait in the system's own memory, where that can be said: else it is
                      megabytes, and a client reads for minutes before that shows here.
    idle_s            For another request: longer than most proxies keep theirs.
    connections_max   Of one server at once.
    """

    head_s: float = 10.0
    head_bytes_max: int = 64 << 10
    body_s: float = 60.0
    body_silence_s: float = 20.0
    body_grace_s: float = 10.0
    unread_s: float = 60.0
    unsent_bytes: int = 64 << 10
    idle_s: float = 75.0
    connections_max: int = 1_000_000


BODY_BYTES_PER_S = 1024
HEADERS_MAX = 100
FRAMING_PER_BYTE = 8
"""Bytes of chunk framing for one of the body: chunks of one byte take 5, more is padding."""

STOP_S = 5.0
"""What is left for a request to arrive once the process is told to stop."""

REFUSED_BODY_S = 60.0
REFUSED_BYTES_MAX = 64 << 20
"""How long and how much is still read of the body of a request that is answered already."""

LINGER_S = 1.0
"""How long what comes is read and dropped behind a refusal: a socket that is closed with something
unread resets the connection, and the client may not see the answer any more."""

FLUSH_S = 10.0
"""How long a closed connection waits for a client that reads nothing of what is left for it."""

LOOK_S = 5.0
"""How often a connection looks at its deadlines; less than the shortest, so that each is kept."""


class Phase(Enum):
    """What a connection waits for."""

    HEAD = "headers"
    BODY = "body"
    NEXT = "another request"
    READ = "its answers to be read"


class Connection(HttpToolsProtocol):
    """One connection. For uvicorn's `http`; a server has a subclass with its limits."""

    limits: ClassVar[Limits] = Limits()
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
    _unread = 0  # bytes that the client had not read when we looked
    _looking: asyncio.Handle
    _read = 0.0  # when it had last read some, or there was no need to

    def refusal(self, rejection: Rejection) -> Answer:
        """What is answered to something that is no request."""
        return answer(rejection)

    def timed_out(self, phase: Phase) -> None:
        """The connection is given up, since what it waited for did not come in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            option = socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self.limits.unsent_bytes
            transport.get_extra_info("socket").setsockopt(*option)
        self._since = self._read = self._look_at = self.loop.time()
        self._looking = self.loop.call_soon(self._look)
        if len(self.connections) > self.limits.connections_max:
            transport.abort()

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
        if self._fed > self.limits.head_bytes_max:
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
        self._look()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came after an answer: uvicorn's own timer for it."""
        self.timed_out(Phase.NEXT)
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
            self._refuse(self._head_too_large())
        elif self._phase is Phase.BODY:
            if self._fed > self.limits.head_bytes_max + FRAMING_PER_BYTE * self._body:
                self._refuse(_not_http("chunks are padded"))
            elif self.cycle.response_complete and self._body > REFUSED_BYTES_MAX:
                self._close()

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
            return self._head_too_large()
        if self._begun + self._fed > self.limits.head_bytes_max:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > self.limits.head_bytes_max:
                return self._head_too_large()
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

    def _head_too_large(self) -> Rejection:
        return HeadersTooLarge(HEADERS_MAX, self.limits.head_bytes_max)

    def _deadline(self) -> tuple[Phase, float]:
        """What is waited for, and when it has to be there: never, while it is an answer of ours."""
        limits = self.limits
        if self.transport.is_closing():
            return Phase.READ, self._read + FLUSH_S
        if self.flow.write_paused:
            return Phase.READ, self._read + limits.unread_s
        if self._deaf:
            return self._phase, math.inf
        if self._phase is Phase.HEAD:
            due = self._since + limits.head_s
        elif self._phase is Phase.BODY:
            refused = self.cycle.response_complete
            due = self._since + (REFUSED_BODY_S if refused else limits.body_s)
            if not self.flow.read_paused:  # else it is us who are slow
                fast = self._since + limits.body_grace_s + self._body / BODY_BYTES_PER_S
                due = min(due, self._now + limits.body_silence_s, fast)
        elif self.cycle is None:
            due = self._since + limits.head_s
        elif self.cycle.response_complete:
            due = self._since + limits.idle_s
        else:
            return self._phase, math.inf
        return self._phase, due if self._stop_at is None else min(due, self._stop_at)

    def _look_in(self, seconds: float) -> None:
        self._looking.cancel()
        self._look_at = self.loop.time() + seconds
        self._looking = self.loop.call_at(self._look_at, self._look)

    def _look(self) -> None:
        """Look whether a deadline has passed, and when to look again."""
        now = self.loop.time()
        slept = max(0.0, now - self._look_at)  # that is not the client's fault
        self._since, self._now, self._read = (
            each + slept for each in (self._since, self._now, self._read)
        )
        unread, before = self.transport.get_write_buffer_size(), self._unread
        waits = self.flow.write_paused or self.transport.is_closing()
        if unread < before or not waits:
            self._read = now
        self._unread = unread
        phase, due = self._deadline()
        if due > now:
            self._look_in(min(LOOK_S, due - now))
            return
        self.timed_out(phase)
        if phase in (Phase.NEXT, Phase.READ):
            self.transport.abort()
        else:
            self._refuse(RequestTimeout(phase.value, now - self._since))

    def _close(self) -> None:
        """Close when the client has read what is left for it, or doesn't read on."""
        self.transport.close()
        self._look_in(LOOK_S)

    def _refuse(self, rejection: Rejection) -> None:
        """Answer what is no request, or won't become one, and close."""
        cycle, self._deaf = self.cycle, True
        unanswered = cycle is not None and not cycle.response_complete
        if self._phase is not Phase.BODY and unanswered:
            cycle.keep_alive = False  # the request before comes first; that ends the connection
            self._look_in(LOOK_S)
            return
        if unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        begun = self._phase is Phase.BODY and cycle.response_started
        if begun or self.pipeline or not self.transport.can_write_eof():
            self._close()
            return
        self.transport.write(_response(self.refusal(rejection)))
        self.transport.write_eof()
        self._looking.cancel()
        self._looking = self.loop.call_later(LINGER_S, self._close)


def _response(refusal: Answer) -> bytes:
    headers = {
        **refusal.headers,
        "Content-Length": str(len(refusal.body)),
        "Connection": "close",
    }
    lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    return b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", refusal.body])


def _not_http(why: object) -> InvalidRequest:
    return InvalidRequest.at("", "invalid_http", f"The request is not valid HTTP: {why}")


OPTIONS: dict[str, Any] = {
    "loop": "uvloop",
    "ws": "none",
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "backlog": 4096,
}
"""How uvicorn serves every HTTP service of ours; `http` is each one's kind of connection."""
