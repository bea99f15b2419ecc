"""Load: requests from a process of their own, over some connections.

Each connection sends its next request when it has the answer to the last, or, with a rate, when the
next request is due: its time then counts from the moment it was due, so a server that stalls is not
let off the requests that it kept from being sent.
"""

import asyncio
import multiprocessing
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import chain, cycle
from multiprocessing.connection import Connection as Pipe
from multiprocessing.sharedctypes import Synchronized
from typing import Any
from urllib.parse import urlsplit

from benchmarks.figures import percentile

TICK_S = 0.002
GRACE_S = 60.0
"""For the last answers."""
ANSWER = re.compile(rb"HTTP/1\.1 (\d+)[\s\S]*?\r\ncontent-length: *(\d+)", re.IGNORECASE)
READY = "ready"
ID_BYTES = 10
"""Of chance in an id: 80 bits, as 20 hexadecimal digits."""
HOLE = b"@@@@"
"""Where an id belongs in a template."""


@dataclass(frozen=True)
class Body:
    """A body with holes for ids, so that no two requests have the same ones."""

    text: bytes

    @property
    def events(self) -> int:
        """How many ids it takes."""
        return self.text.count(HOLE)

    def maker(self) -> "_Maker":
        """What makes bodies of it."""
        return _Maker(self.text.split(HOLE))


class _Maker:
    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces[:-1]
        self._last = pieces[-1]
        self.events = len(pieces) - 1

    def make(self) -> bytes:
        """The body with new ids: about 0.1 us for each."""
        ids = os.urandom(ID_BYTES * self.events).hex().encode()
        width = 2 * ID_BYTES
        cut = [ids[at : at + width] for at in range(0, len(ids), width)]
        return b"".join(chain.from_iterable(zip(self._pieces, cut, strict=True))) + self._last


@dataclass(frozen=True)
class Load:
    """What to send.

    rate     Requests a second; 0: as fast as they are answered.
    seconds  How long.
    limited  Whether only as many events are sent as the driver allows, see `Running.allow`.
    """

    path: str
    bodies: Sequence[Body]
    connections: int
    seconds: float
    rate: float = 0.0
    limited: bool = False


@dataclass(frozen=True)
class Sent:
    """What came of a load: seconds that it took, answers by status, ms to each, CPU seconds."""

    seconds: float
    events: int
    statuses: Counter[int]
    times_ms: Sequence[float] = field(repr=False)
    cpu_s: float

    @property
    def requests(self) -> int:
        """How many were answered with 202."""
        return self.statuses[202]

    def ms(self, share: float) -> float:
        """What so many of the answers took at most."""
        return percentile(self.times_ms, share)

    def check(self) -> "Sent":
        """Itself. Raises RuntimeError when anything but 202 was answered."""
        if set(self.statuses) != {202}:
            raise RuntimeError(f"answers by status: {dict(self.statuses)}")
        return self


@dataclass
class Running:
    """A load under way."""

    _process: Any
    _pipe: Pipe
    _allowed: "Synchronized[int]"
    _sent: "Synchronized[int]"

    def allow(self, events: int = 1) -> None:
        """Begin; and let so many events have been sent, of a load that is limited."""
        self._allowed.value = events

    @property
    def sent(self) -> int:
        """Events sent so far."""
        return self._sent.value

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._pipe.poll() or not self._process.is_alive()

    def result(self) -> Sent:
        """Wait for its end. Raises RuntimeError when the process failed."""
        try:
            sent: Sent = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the load generator failed") from None
        return sent


@contextmanager
def working(work: Callable[..., None], *args: object) -> Iterator[Running]:
    """`work(*args, pipe, allowed, sent)` in a process of its own, once it says that it is ready."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    allowed, sent = context.Value("q", 0), context.Value("q", 0)
    process = context.Process(target=work, args=(*args, theirs, allowed, sent), daemon=True)
    process.start()
    theirs.close()
    if mine.recv() != READY:
        raise RuntimeError("the load generator failed")
    try:
        yield Running(process, mine, allowed, sent)
    finally:
        process.terminate()
        process.join()


def sending(base_url: str, key: str, load: Load) -> AbstractContextManager[Running]:
    """Send a load, from the first `allow` on."""
    return working(_send, base_url, key, load)


def run(base_url: str, key: str, load: Load) -> Sent:
    """Send a load and wait for its end."""
    with sending(base_url, key, load) as under_way:
        under_way.allow()
        return under_way.result()


def _send(
    base_url: str,
    key: str,
    load: Load,
    pipe: Pipe,
    allowed: "Synchronized[int]",
    sent: "Synchronized[int]",
) -> None:
    import uvloop

    uvloop.run(_Driver(base_url, key, load, allowed, sent).drive(pipe))


class _Driver:
    """The connections of a load, and what is due."""

    def __init__(
        self,
        base_url: str,
        key: str,
        load: Load,
        allowed: "Synchronized[int]",
        sent: "Synchronized[int]",
    ) -> None:
        address = urlsplit(base_url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._head = (
            f"POST {load.path} HTTP/1.1\r\nHost: {address.netloc}\r\nx-api-key: {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._load = load
        self._allowed, self._sent = allowed, sent
        self._makers = cycle([body.maker() for body in load.bodies])
        self._idle: deque[_Connection] = deque()
        self._busy = 0
        self._events = self._requests = 0
        self._ended = False
        self.times_ms: list[float] = []
        self.statuses: Counter[int] = Counter()

    async def drive(self, pipe: Pipe) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._load.connections):
            await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        pipe.send(READY)
        while not self._allowed.value:  # noqa: ASYNC110 - another process says so
            await asyncio.sleep(TICK_S)
        self._begun = time.perf_counter()
        cpu = time.process_time()
        end = self._begun + self._load.seconds
        while (now := time.perf_counter()) < end or (self._busy and now < end + GRACE_S):
            self._ended = now >= end
            self._give_out()
            await asyncio.sleep(TICK_S)
        seconds = time.perf_counter() - self._begun
        spent = time.process_time() - cpu
        pipe.send(Sent(seconds, self._events, self.statuses, self.times_ms, spent))

    def rest(self, connection: "_Connection") -> None:
        """A connection has nothing to do: give it something at once if there is."""
        self._idle.append(connection)
        self._give_out()

    def answered(self, connection: "_Connection", status: int) -> None:
        """A connection has its answer."""
        self._busy -= 1
        self.statuses[status] += 1
        self.times_ms.append((time.perf_counter() - connection.due) * 1000)
        self.rest(connection)

    def lost(self, connection: "_Connection", is_busy: bool) -> None:
        """A connection was closed by the server."""
        if is_busy:
            self._busy -= 1
            self.statuses[0] += 1
        elif connection in self._idle:
            self._idle.remove(connection)

    def _give_out(self) -> None:
        while self._idle and not self._ended and hasattr(self, "_begun"):
            due = time.perf_counter()
            if self._load.rate:
                next_due = self._begun + self._requests / self._load.rate
                if next_due > due:
                    return
                due = next_due
            if self._load.limited and self._events >= self._allowed.value:
                return
            maker = next(self._makers)
            body = maker.make()
            self._requests += 1
            self._events += maker.events
            self._sent.value = self._events
            self._busy += 1
            self._idle.popleft().send(b"%b%d\r\n\r\n%b" % (self._head, len(body), body), due)


class _Connection(asyncio.Protocol):
    """One connection, and the request under way on it."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._read = b""
        self._is_busy = False
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._driver.rest(self)

    def send(self, request: bytes, due: float) -> None:
        self.due, self._is_busy = due, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head = self._read.find(b"\r\n\r\n")
        found = ANSWER.match(self._read, 0, head + 4) if head >= 0 else None
        if found and len(self._read) >= head + 4 + int(found[2]):
            self._read, self._is_busy = b"", False
            self._driver.answered(self, int(found[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.lost(self, self._is_busy)
