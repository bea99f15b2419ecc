"""The sweep: stored events whose feature came after them go through the log again.

Nothing is decided here. What is re-sent names the row that it supersedes, and the counter takes the
first for each row: sending twice, from two processes, or before a crash and after it, leaves one.
So the sweep needs no memory of its own; it looks, sends a page, waits until the log is counted
beyond it, and goes on until a look finds nothing.
"""

import asyncio
import contextlib
import fcntl
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import Counter, Gauge
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import features
from catalog.follower import Follower
from clickhouse.client import CONNECT_TIMEOUT_SECONDS
from clickhouse.queries import query
from console.calls import json_answer, look
from console.late_events import Key, Mark, Name, Pass, Row, Sent, Slot, Worklist, records, rows
from console.resent_log import ACK_TIMEOUT_S, AWAY, ResentLog
from console.routing import Resource, reads
from console.settings import Settings
from console.store import Store
from schemas.catalog import Status
from schemas.documents import SweepDocument
from schemas.errors import ServiceUnavailable

PAGE_ROWS = 20_000
LOOK_S = 1.0
"""How often the store is asked whether late events were stored."""
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)
POLL_S = (0.05, 0.1, 0.2, 0.5)
RESEND_AFTER_S = 600.0
"""A page that isn't counted after so long is sent again."""
VAGUE_S = 30.0
"""How long to wait for a page of which the marks can't say whether it is counted."""
T = TypeVar("T")
log = logging.getLogger(__name__)

SENT = Counter("sweep_resent_total", "Late events written to the log again")
PENDING = Gauge(
    "sweep_pending", "Late events that wait to be sent again", multiprocess_mode="livemax"
)


class Sweep:
    """The background task of the console; of several processes on a data folder, one does it."""

    def __init__(self, settings: Settings, follower: Follower, store: Store) -> None:
        self._settings = settings
        self._follower = follower
        self._store = store
        self._worklist = Worklist()
        self._pending: dict[Name, int] = {}
        self._log = ResentLog(settings)

    async def run(self) -> None:
        """Sweep for ever; whatever is away is waited for."""
        async with _alone(self._settings.data_dir / "sweep.lock"):
            failures = 0
            try:
                while True:
                    try:
                        await self._round()
                        failures = 0
                        await asyncio.sleep(0 if self._worklist.passes else LOOK_S)
                    except (*_AWAY, ClickHouseError) as error:
                        if not failures:
                            log.warning("late events have to wait: %r", error)
                        await self._log.discard()
                        await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                        failures += 1
            finally:
                await self._log.discard()

    async def _round(self) -> None:
        """Look for late events, then send a page of each name that has some."""
        worklist = self._worklist
        marks = await self._marks()
        worklist.see_features(self._follower.snapshot.features())
        newer = worklist.newer(marks)
        if newer is not None:
            for name, since in await self._ask(_stored_since, newer._asdict()):
                worklist.found(name, since)
        worklist.reached(marks)
        self._pending = {name: self._pending.get(name, 0) for name in worklist.passes}
        for name, each in list(worklist.passes.items()):
            if await self._page(name, each):
                self._pending.pop(name, None)
                worklist.finish(name, each)
            PENDING.set(sum(self._pending.values()))

    async def _page(self, name: Name, each: Pass) -> bool:
        """Send the next page of a name, and wait until it is counted; whether it was the last."""
        if each.after is None and each.since == 0:
            pending, _ = await self._ask(progress_of, name)
            self._pending[name] = pending
            if pending <= 0:
                return True
        after = each.after or Key()
        upto = await self._ask(_bound, name, each.since, after)
        stretch = {
            "account": name.account, "event_name": name.event_name, "since": each.since,
            "after_customer": after.customer, "after_time": after.timestamp,
            "to_end": upto is None,
            "upto_customer": upto.customer if upto else "",
            "upto_time": upto.timestamp if upto else 0,
        }  # fmt: skip
        sent = await self._send(name, stretch)
        if sent.count and not await self._until_counted(name, sent, stretch):
            return False  # feature archived, or not counted for long: look again
        self._pending[name] = max(0, self._pending.get(name, 0) - sent.count)
        each.after = upto
        return upto is None

    async def _send(self, name: Name, stretch: dict[str, Any]) -> Sent:
        """Write the late events of a stretch to the log, and wait for the broker's word."""
        sent = Sent()
        under_way = []
        with contextlib.closing(_LateEvents(self._store, name, stretch)) as late:
            while (batch := await _on_thread(late.next_rows)) is not None:
                if not self._is_active(name):
                    break  # archived since: what was stored after that is not late
                for record in records(batch):
                    under_way.append((record, await self._log.append(record.value)))
        for record, ack in under_way:
            async with asyncio.timeout(ACK_TIMEOUT_S):
                place = await ack
            sent.add(record, place.partition, place.offset)
        SENT.inc(sent.count)
        if sent.count:
            log.info("%d late events of %r sent again", sent.count, name.event_name)
        return sent

    async def _until_counted(self, name: Name, sent: Sent, stretch: dict[str, Any]) -> bool:
        """Wait until the log is counted beyond a page; False when that is no use any more."""
        started, attempt = time.monotonic(), 0
        while not sent.is_counted(await self._marks()):
            waited = time.monotonic() - started
            if not self._is_active(name) or waited > RESEND_AFTER_S:
                return False
            if attempt > len(POLL_S) and not await self._ask(_left, stretch):
                return True
            if sent.vague and waited > VAGUE_S:
                return True
            await asyncio.sleep(POLL_S[min(attempt, len(POLL_S) - 1)])
            attempt += 1
        return True

    def _is_active(self, name: Name) -> bool:
        """Whether the name's events count, by the catalog as it is now."""
        self._worklist.see_features(self._follower.snapshot.features())
        return self._worklist.is_active(name)

    async def _marks(self) -> Mapping[Slot, Mark]:
        return await self._ask(_marks)

    async def _ask(self, question: Callable[..., T], *arguments: Any) -> T:
        def ask() -> T:
            with self._store.reading() as client:
                return question(client, *arguments)

        return await _on_thread(ask)


_AWAY = (ServiceUnavailable, *AWAY)
"""What says that a server is away; ClickHouse may also miss its tables for a while."""


class _LateEvents:
    """The late events of a stretch, batch by batch as they come from the store. For threads."""

    def __init__(self, store: Store, name: Name, stretch: dict[str, Any]) -> None:
        self._store = store
        self._name = name
        self._stretch = stretch
        self._opened = contextlib.ExitStack()
        self._batches: Iterator[pa.RecordBatch] | None = None

    def next_rows(self) -> list[Row] | None:
        """The next batch; None at the end."""
        if self._batches is None:
            client = self._opened.enter_context(self._store.reading())
            stream = client.raw_stream(query("sweep_page"), self._stretch, fmt="ArrowStream")
            self._opened.enter_context(stream)
            self._batches = iter(self._opened.enter_context(pa.ipc.open_stream(stream)))
        batch = next(self._batches, None)
        return None if batch is None else rows(self._name, batch)

    def close(self) -> None:
        """Give the connection back."""
        self._opened.close()


async def _on_thread(call: Callable[[], T]) -> T:
    """Call on a thread; when cancelled, let the call end before what it uses is closed."""
    calling = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        await asyncio.wait([calling], timeout=CONNECT_TIMEOUT_SECONDS + 1)
        if calling.done() and not calling.cancelled():
            calling.exception()  # nobody waits for it any more
        raise


def _marks(client: Client) -> Mapping[Slot, Mark]:
    found = client.query(query("sweep_marks")).result_rows
    return {
        Slot(epoch, partition): Mark(offset, moment, covered)
        for epoch, partition, offset, moment, covered in found
    }


def _stored_since(client: Client, newer: dict[str, Any]) -> list[tuple[Name, int]]:
    found = client.query(query("sweep_newer"), newer).result_rows
    return [(Name(account, name), since) for account, name, since in found]


def _bound(client: Client, name: Name, since: int, after: Key) -> Key | None:
    parameters = {
        **name._asdict(), "since": since, "after_customer": after.customer,
        "after_time": after.timestamp, "rows": PAGE_ROWS - 1,
    }  # fmt: skip
    found = client.query(query("sweep_bound"), parameters).result_rows
    return Key(*found[0]) if found else None


def _left(client: Client, stretch: dict[str, Any]) -> int:
    text = f"SELECT count() FROM ({query('sweep_page')})"  # noqa: S608
    return int(client.query(text, stretch).result_rows[0][0])


def progress_of(client: Client, name: Name) -> tuple[int, int]:
    """How many events of a name wait to be sent again, and how many were."""
    pending, resent = client.query(query("sweep_progress"), name._asdict()).result_rows[0]
    return int(pending), int(resent)


@contextlib.asynccontextmanager
async def _alone(file: Path) -> AsyncIterator[None]:
    """Wait until no other process of this machine holds the lock, and hold it."""
    with _opened(file) as handle:  # not on a thread: a cancelled wait would leave it open
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOOK_S)
        yield


def _opened(file: Path) -> IO[str]:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("w")


async def get_sweep(request: Request) -> Response:
    """GET /v1/features/:id/sweep: how far events from before the feature are counted.

    `pending` events wait to be counted, `resent` were; `done` when there is nothing left to do.
    Raises NotFound (404), ServiceUnavailable (503).
    """
    feature = (await look(request, features.get, request.path_params["id"])).document()
    name = Name(request.state.caller.account, feature["meter"]["event_name"])
    store: Store = request.state.store

    def ask() -> tuple[int, int]:
        with store.reading() as client:
            return progress_of(client, name)

    pending, resent = await asyncio.to_thread(ask)
    done = pending == 0 or feature["status"] != Status.PUBLISHED
    return json_answer({"pending": pending, "resent": resent, "done": done})


def routes() -> list[BaseRoute]:
    """The route of a feature's sweep."""
    return [Resource("/v1/features/{id}/sweep", GET=reads(get_sweep, gives=SweepDocument))]
