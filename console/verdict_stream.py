"""/v1/events/stream: verdicts as they fall, as server-sent events.

Which blocks are stored is looked up once for all connections; each reads the rows of its own
account behind its own cursor, page by page, when it has sent what it read before. The cursor is the
id of every event, so a client that comes back with Last-Event-ID misses nothing and sees nothing
twice.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from clickhouse_connect.driver.exceptions import ClickHouseError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from catalog.follower import Follower
from clickhouse.queries import query
from console.calls import look, query_as
from console.event_pages import LIMITS
from console.events import item
from console.routing import Resource, caller, peer, reads
from console.settings import Settings
from console.store import Store
from console.warnings import warnings_of
from schemas.catalog import Scope
from schemas.errors import InvalidRequest, Rejection, TooManyRequests
from schemas.verdict import NO_ACTIVE_SUBSCRIPTION, Verdict
from schemas.verdict_stream import Cursor, Point, StreamedEvent, StreamQuery

LOOK_S = 0.5
HEARTBEAT_S = 15.0
KEY_S = 1.0
"""How often a stream that waits looks whether its key still opens it."""
RETRY_MS = 2000
PAGE_ROWS = 200
PROPERTIES_MAX = 65_536
MARGIN_MS = 600_000
"""How far the log's clock may have been set back between two blocks."""
ACCOUNT_STREAMS_MAX = 10
STREAMS_MAX = 100
log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """What is stored: by partition, the first block that is not; no such block is older than time.

    time  The least block time (ms) of the last stored blocks.
    """

    time: int
    ends: Mapping[int, int]


class Tail:
    """Up to which block each partition is stored, looked up while somebody streams."""

    def __init__(self, settings: Settings, store: Store, stopping: asyncio.Event) -> None:
        self.epoch = settings.block_epoch
        self.stopping = stopping
        self._store = store
        self.stored = Stored(0, {})
        self._news = asyncio.Condition()
        self._looking: asyncio.Task[None] | None = None
        self._streams: Counter[str] = Counter()

    def check_room(self, account: str) -> None:
        """Raises TooManyRequests when so many streams are open that one more is too much."""
        if self._streams[account] >= ACCOUNT_STREAMS_MAX or self._streams.total() >= STREAMS_MAX:
            raise TooManyRequests(
                f"{self._streams[account]} streams of this account are open",
                cure="close one of them, and come back",
                headers={"Retry-After": "5"},
            )

    @contextlib.contextmanager
    def streaming(self, account: str) -> Iterator[None]:
        """Hold one of the account's streams: somebody looks for news meanwhile."""
        self._streams[account] += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            self._streams[account] -= 1
            if not self._streams.total() and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def beyond(self, known: Stored) -> None:
        """Wait until more blocks are stored than are known."""
        async with self._news:
            await self._news.wait_for(lambda: self.stored != known)

    async def look(self) -> None:
        """Find out what is stored. Raises ServiceUnavailable."""
        found = await asyncio.to_thread(self._look)
        if found != self.stored:
            async with self._news:
                self.stored = found
                self._news.notify_all()

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except (Rejection, ClickHouseError) as error:
                log.warning("the store is away from those who stream: %s", error)

    def _look(self) -> Stored:
        with self._store.reading() as client:
            rows = client.query(query("sweep_marks")).result_rows
        of_epoch = [row for row in rows if row[0] == self.epoch]
        return Stored(
            min((int(moment) for *_, moment, _ in of_epoch), default=0),
            {int(partition): int(offset) + 1 for _, partition, offset, *_ in of_epoch},
        )


class Row(NamedTuple):
    """A row of `rows_behind`."""

    event_id: str
    event_name: str
    customer: str
    timestamp: int
    ingested_at: int
    source: str
    properties: str
    verdict: str
    detail: str
    warnings: str
    feature_id: str
    properties_left_out: bool
    position: str
    block_partition: int
    block_offset: int
    block_index: int
    block_time: int


async def stream_verdicts(request: Request) -> Response:
    """GET /v1/events/stream: `event: verdict`, with an event and its verdict as `data`, for ever.

    With Last-Event-ID it goes on behind that event. A comment comes now and then, and the stream
    ends when the server stops or the key does. Raises InvalidRequest (400), TooManyRequests (429),
    ServiceUnavailable (503).
    """
    wish = query_as(StreamQuery, request)
    tail: Tail = request.state.tail
    cursor = None
    given = request.headers.get("last-event-id")
    if given:
        try:
            cursor = Cursor.of(given)
        except ValueError:
            detail = "Last-Event-ID is no id of this stream: leave it out to begin now"
            raise InvalidRequest.at("", "invalid_id", detail) from None
    account = caller(request).account
    tail.check_room(account)
    await tail.look()
    stream = _Stream(request, tail, wish, cursor or _behind(tail.stored, {}))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

    async def parts() -> AsyncIterator[bytes]:
        with tail.streaming(account):
            async for part in stream.parts():
                yield part

    return StreamingResponse(parts(), media_type="text/event-stream", headers=headers)


def _behind(stored: Stored, points: Mapping[int, Point]) -> Cursor:
    """The cursor behind everything that is stored, and behind some points."""
    behind = dict(points)
    for partition, end in stored.ends.items():
        last = Point(end - 1, MARKER_INDEX)
        behind[partition] = max(behind.get(partition, last), last)
    return Cursor(stored.time, behind)


MARKER_INDEX = (1 << 32) - 1


class _Stream:
    """One connection: reads behind its cursor, sends, and waits for more."""

    def __init__(self, request: Request, tail: Tail, wish: StreamQuery, cursor: Cursor) -> None:
        self._request = request
        self._tail = tail
        self._cursor = cursor
        self._store: Store = request.state.store
        self._wanted = frozenset(wish.warning)
        self._filters = {
            "account": caller(request).account,
            "event_name": wish.event_name or "",
            "customer": wish.external_customer_id or "",
            "source": wish.source or "",
            "verdicts": list(wish.verdict),
            "warnings": list(wish.warning),
            "unbilled": NO_ACTIVE_SUBSCRIPTION in wish.warning,
            "epoch": tail.epoch,
            "properties_max": PROPERTIES_MAX,
            "limit": PAGE_ROWS,
        }

    async def parts(self) -> AsyncIterator[bytes]:
        """The stream's text, until the server stops or the key ends."""
        yield b"retry: %d\n: %s\n\n" % (RETRY_MS, self._cursor.text().encode())
        while await self._may_go_on():
            known = self._tail.stored
            page = await self._page(known.ends)
            if page is not None:
                for event in self._events(page):
                    yield event
                if len(page) == PAGE_ROWS:
                    continue
                self._cursor = _behind(known, self._cursor.points)
            if not await self._more_than(known):
                yield b": heartbeat\n\n"

    async def _page(self, ends: Mapping[int, int]) -> list[tuple[Row, list[str]]] | None:
        """The account's next rows behind the cursor, with their warnings; None without a store."""
        try:
            rows = await asyncio.to_thread(self._read, ends)
            told = await look(self._request, warnings_of, rows)
        except (Rejection, ClickHouseError) as error:
            log.warning("a stream has to wait: %s", error)
            return None
        return list(zip(rows, told, strict=True))

    def _events(self, page: list[tuple[Row, list[str]]]) -> Iterator[bytes]:
        """What is sent of a page; the cursor moves behind each of its rows."""
        for row, warnings in page:
            points = dict(self._cursor.points)
            points[row.block_partition] = Point(row.block_offset, row.block_index)
            self._cursor = Cursor(self._cursor.time, points)
            if not self._wanted or not self._wanted.isdisjoint(warnings):
                yield _event(row, warnings, self._cursor)

    def _read(self, ends: Mapping[int, int]) -> list[Row]:
        points = self._cursor.points
        afters = [points.get(partition, Point(-1, -1)) for partition in ends]
        parameters = self._filters | {
            "since": max(0, self._cursor.time - MARGIN_MS),
            "lowest": max(0, min((after.offset for after in afters), default=0)),
            "partitions": list(ends),
            "afters": [after.offset for after in afters],
            "rows": [after.row for after in afters],
            "uptos": list(ends.values()),
        }
        with self._store.reading() as client:
            rows = client.query(query("rows_behind"), parameters, settings=LIMITS).result_rows
        return [Row._make(row) for row in rows]

    async def _more_than(self, known: Stored) -> bool:
        """Wait until more is stored, or the stream has to end; False after a while without."""
        waiting = asyncio.ensure_future(self._tail.beyond(known))
        heartbeat = time.monotonic() + HEARTBEAT_S
        try:
            while time.monotonic() < heartbeat:
                done, _ = await asyncio.wait([waiting], timeout=KEY_S)
                if done or not await self._may_go_on():
                    return True
            return False
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _may_go_on(self) -> bool:
        """Whether the server stays, and the key that opened the stream still opens it."""
        if self._tail.stopping.is_set():
            return False
        follower: Follower = self._request.state.follower
        try:
            key = self._request.headers.get("x-api-key")
            await follower.authenticate(key, Scope.READ, peer=peer(self._request))
        except Rejection:
            return False
        return True


def _event(row: Row, warnings: list[str], cursor: Cursor) -> bytes:
    shown: dict[str, Any] = item(row, None, warnings)
    if row.properties_left_out:
        shown["properties_left_out"] = True
    if row.verdict == Verdict.DEAD_LETTER:
        shown["dead_letter"] = row.position
    data = msgspec.json.encode(shown).replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: verdict\nid: %s\ndata: %s\n\n" % (cursor.text().encode(), data)


def routes() -> list[BaseRoute]:
    """The route of the stream."""
    streamed = reads(stream_verdicts, asks=StreamQuery, gives=StreamedEvent)
    return [Resource("/v1/events/stream", GET=streamed)]
