"""Producers that send at a steady rate over HTTP, and keep what each request was answered.

Answers are read from bare sockets: hundreds of clients cost little beside what they measure.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.e2e.running import Tallylog

ANSWER_S = 60.0


class Answered(NamedTuple):
    """One request: when it was sent, how long its answer took, and what it was.

    status       0: no answer came.
    retry_after  The header's text; "" without one.
    """

    at: float
    seconds: float
    status: int
    retry_after: str
    ids: Sequence[str]


class Wish(NamedTuple):
    """What some clients do.

    clients  How many of them.
    size     Events in a request: one goes to /v1/events, more go as a bulk.
    every_s  From the start of a client's request to the start of its next, at least.
    again    Whether a client sends what wasn't accepted again, with the same ids.
    """

    clients: int
    size: int
    every_s: float
    again: bool = False

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.clients * self.size / self.every_s


class Senders:
    """Clients that send events of one name with the value 2 until they are told to stop."""

    def __init__(self, tallylog: Tallylog, event_name: str, wishes: Sequence[Wish]) -> None:
        self.answers: list[Answered] = []
        self._tallylog = tallylog
        self._name = event_name
        self._wishes = wishes
        self._numbers = count()
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """End with the request at hand; with `again` once it is accepted."""
        self._stopping = True
        self._thread.join()

    @property
    def acked_count(self) -> int:
        """How many events were answered 202 so far."""
        return sum(len(each.ids) for each in self.answers if each.status == 202)

    @property
    def acked(self) -> set[str]:
        """The ids that were answered 202."""
        return {each for answer in self.answers if answer.status == 202 for each in answer.ids}

    @property
    def refused(self) -> set[str]:
        """The ids that were answered otherwise, or not at all, and never 202: nobody knows."""
        others = {each for answer in self.answers if answer.status != 202 for each in answer.ids}
        return others - self.acked

    def between(self, start: float, end: float) -> list[Answered]:
        """The requests that were sent in a stretch of time (time.monotonic)."""
        return [each for each in self.answers if start <= each.at < end]

    async def _run(self) -> None:
        clients = [wish for wish in self._wishes for _ in range(wish.clients)]
        await asyncio.gather(*(self._send(wish, n) for n, wish in enumerate(clients)))

    async def _send(self, wish: Wish, number: int) -> None:
        await asyncio.sleep(wish.every_s * (number % wish.clients) / wish.clients)
        connection: _Connection | None = None
        ids: list[str] = []
        due = time.monotonic()
        while not self._stopping or (wish.again and ids):
            await asyncio.sleep(due - time.monotonic())
            due = max(due + wish.every_s, time.monotonic())
            ids = ids or [f"{self._name}-{next(self._numbers)}" for _ in range(wish.size)]
            at = time.monotonic()
            try:
                if connection is None:
                    connection = await _Connection.open(self._tallylog.base_url)
                async with asyncio.timeout(ANSWER_S):
                    status, retry_after = await connection.post(self._request(ids))
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                status, retry_after = 0, ""
                if connection is not None:
                    connection.close()
                connection = None
            self.answers.append(Answered(at, time.monotonic() - at, status, retry_after, ids))
            if status == 202 or not wish.again:
                ids = []
        if connection is not None:
            connection.close()

    def _request(self, ids: Sequence[str]) -> bytes:
        events = [
            {
                "event_id": each,
                "event_name": self._name,
                "external_customer_id": f"cust_{len(each)}",
                "properties": {"credits": 2},
            }
            for each in ids
        ]
        path = "/v1/events" if len(ids) == 1 else "/v1/events/bulk"
        body = json.dumps(events[0] if len(ids) == 1 else {"events": events}).encode()
        return request(path, self._tallylog.api_key, body)


def request(path: str, key: str, body: bytes) -> bytes:
    """A POST of JSON as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: tallylog\r\nx-api-key: {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def post_all(base_url: str, requests: Sequence[bytes]) -> list[Answered]:
    """Send requests, each on a connection of its own, all at once."""

    async def post(whole: bytes) -> Answered:
        at = time.monotonic()
        try:
            async with asyncio.timeout(4 * ANSWER_S):
                connection = await _Connection.open(base_url)
                status, retry_after = await connection.post(whole)
                connection.close()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            status, retry_after = 0, ""
        return Answered(at, time.monotonic() - at, status, retry_after, ())

    return list(await asyncio.gather(*(post(each) for each in requests)))


class _Connection:
    """A connection that is kept open from request to request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, base_url: str) -> "_Connection":
        place = urlsplit(base_url)
        return cls(*await asyncio.open_connection(place.hostname, place.port))

    async def post(self, request: bytes) -> tuple[int, str]:
        """Send a request; status and Retry-After of its answer."""
        self._writer.write(request)
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        headers = {
            name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)
        }
        await self._reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            raise OSError("closed by the server")
        return int(status.split()[1]), headers.get("retry-after", "")

    def close(self) -> None:
        self._writer.close()


@contextmanager
def sending(tallylog: Tallylog, event_name: str, *wishes: Wish) -> Iterator[Senders]:
    """Clients that send for the length of a block."""
    senders = Senders(tallylog, event_name, wishes)
    senders.start()
    try:
        yield senders
    finally:
        senders.stop()


def p99(answers: Sequence[Answered], accept: Callable[[Answered], bool] = lambda _: True) -> float:
    """The 99th percentile of how long answers took, in seconds."""
    times = sorted(each.seconds for each in answers if accept(each))
    return times[min(len(times) - 1, int(len(times) * 0.99))] if times else 0.0
