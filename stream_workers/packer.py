"""The packer: reads what producers wrote, writes blocks. At least once; the counter sorts it out.

It stops and starts again from its commit after any failed send, and commits a source position only
when every block that holds something before it is acknowledged by the broker.
"""

import asyncio
import logging
import re
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import Counter, Gauge, Histogram

from catalog.database import Catalog, CatalogUnavailable
from catalog.follower import Follower
from schemas.batches import BoundedConsumer
from schemas.block import encode
from schemas.census import rows_due
from schemas.failpoint import failpoint
from schemas.lasting import keep_for_good, keep_memory
from schemas.limits import FUTURE_MS_MAX, MESSAGE_BYTES_MAX
from schemas.position import Log
from schemas.topics import (
    GATEWAY_EVENTS,
    HEADER_ACCOUNT,
    HEADER_FIRST_ID,
    HEADER_RECEIVED_AT,
    NATIVE_PREFIX,
    PACKER_GROUP,
    RESENT,
    block_topic,
)
from stream_workers.counting_lag import CountingLag
from stream_workers.customers import Customers
from stream_workers.epochs import Bookmark, open_epochs
from stream_workers.monitor import ROWS, serve_monitor
from stream_workers.pace import Pace
from stream_workers.packing import Pool, Record
from stream_workers.settings import PackerSettings
from stream_workers.topics import ensure_topics
from stream_workers.waiting import wait_for

SOURCES = re.compile(
    f"^({re.escape(GATEWAY_EVENTS)}|{re.escape(RESENT)}|{re.escape(NATIVE_PREFIX)}.+)$"
)
_MOMENT = re.compile("[0-9]{1,13}")
_ULID = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")
METADATA_MAX_AGE_MS = 2000
POLL_MS = 200
GATHER_MS, MUCH_ROWS = 100, 8_000
"""Where there is time, the log gathers so long, unless much is there: a fetch costs broker and
packer as much as hundreds of events do."""
FLUSHES_MAX = 2
RESTART_S = 1.0
HOLD_S = 1.0
"""How long a partition waits before the catalog is asked again whom its next record names."""
log = logging.getLogger(__name__)

RECORDS = Counter("packer_records_total", "Source records read")
PACKED = Counter("packer_rows_total", "Events and dead letters packed")
BLOCKS = Counter("packer_blocks_total", "Blocks written")
RESTARTS = Counter("packer_restarts_total", "Starts over from the commit")
FLUSH_SECONDS = Histogram("packer_flush_seconds", "From cutting blocks to their commit")
FLUSH_ROWS = Histogram("packer_flush_rows", "Events and dead letters of a flush", buckets=ROWS)
REBALANCES = Counter("packer_rebalances_total", "Assignments of source partitions")
PARTITIONS = Gauge("packer_source_partitions", "Source partitions assigned")
HELD = Gauge("packer_held_partitions", "Source partitions that wait for the catalog")


class LogWentBack(KafkaError):
    """A topic was made anew under a running packer: the consumer began it again by itself.

    A new run sees that the committed record isn't there any more, and opens an epoch.
    """


class Packer:
    """One run from the committed positions until a rebalance, a fault or the end.

    A run reads, gathers in a Pool, cuts the pool into blocks, sends them, and commits. Two
    flushes may be under way; they are acknowledged and committed in order.
    """

    def __init__(
        self,
        settings: PackerSettings,
        partitions: int,
        follower: Follower,
        lag_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`lag_s` says how long blocks have waited for the counter."""
        self._settings = settings
        self._lag_s = lag_s
        self._partitions = partitions
        self._follower = follower
        self._customers = Customers(follower)
        self._topic = block_topic(settings.block_epoch)
        self._stopping = asyncio.Event()
        self.troubles: dict[str, str] = {"partitions": "none assigned yet"}

    def stop(self) -> None:
        """Finish what is gathered, commit, and end."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop`; start over from the commit whenever something fails."""
        while not self._stopping.is_set():
            try:
                await self._run_once()
            except (KafkaError, OSError) as error:
                RESTARTS.inc()
                self.troubles = {"kafka": f"{type(error).__name__}: {error}"}
                log.warning("starting over from the commit: %r", error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RESTART_S)

    async def _run_once(self) -> None:
        consumer = BoundedConsumer(
            bytes_max=self._settings.batch_bytes,
            bootstrap_servers=self._settings.kafka,
            group_id=PACKER_GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            session_timeout_ms=int(self._settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(self._settings.session_timeout_s * 250),
        )
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka,
            acks="all",
            enable_idempotence=True,
            max_request_size=MESSAGE_BYTES_MAX,
            max_batch_size=1 << 20,
            linger_ms=0,
        )
        await producer.start()
        try:
            run = _Run(self, consumer, producer)
            consumer.subscribe(pattern=SOURCES.pattern, listener=run)
            await consumer.start()
            try:
                await run.loop()
            finally:
                await run.cancel()
                await consumer.stop()
        finally:
            await producer.stop()


class _Run(ConsumerRebalanceListener):
    """The state between one start and the next: positions, coverage, flushes under way."""

    def __init__(
        self, packer: Packer, consumer: BoundedConsumer, producer: AIOKafkaProducer
    ) -> None:
        self._packer = packer
        self._consumer = consumer
        self._producer = producer
        settings = packer._settings
        self._pace = Pace(settings.blocks_per_s, settings.linger_ms / 1000, lag_s=packer._lag_s)
        self._starts: dict[tuple[int, Log], int] = {}
        self._flushing = asyncio.Lock()
        self._failure: BaseException | None = None
        self._unopened: list[TopicPartition] | None = None
        self._logs: dict[TopicPartition, Log] = {}
        self._gaps: dict[TopicPartition, str] = {}
        self._events: dict[TopicPartition, int] = {}  # read so far, where that is known
        self._read: dict[TopicPartition, int] = {}  # the last offset
        self._held: dict[TopicPartition, float] = {}  # until when
        self._told: set[TopicPartition] = set()
        self._pool = Pool()
        self._much_came = False
        self._reached: dict[TopicPartition, Bookmark] = {}
        self._flushes: list[asyncio.Task[None]] = []

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Write and commit what was read before somebody else reads on."""
        if self._logs and self._failure is None:
            try:
                await self._flush()
                await self._settle()
            except KafkaError as error:
                log.warning("blocks of revoked partitions start over: %r", error)
        self._forget()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note what to open; `loop` does it, as it has to read from the partitions."""
        REBALANCES.inc()
        self._forget()
        self._unopened = list(assigned)

    async def _open(self) -> None:
        """Check that each topic is the one that was committed on, and open new epochs if not."""
        tps, self._unopened = self._unopened, None
        found = await open_epochs(self._consumer, tps or [])
        if self._unopened is not None:
            return  # assigned anew meanwhile: these seeks are void
        for tp, opened in found.items():
            self._logs[tp] = Log(tp.topic, opened.epoch, tp.partition)
            if opened.gap is not None:
                self._gaps[tp] = opened.gap
            if opened.events is not None:
                self._events[tp] = opened.events
        PARTITIONS.set(len(self._logs))
        self._packer.troubles = {}

    def _forget(self) -> None:
        self._logs.clear()
        self._gaps.clear()
        self._events.clear()
        self._read.clear()
        self._held.clear()
        self._told.clear()
        self._starts = {}  # a flush under way goes on with its own
        self._reached.clear()
        self._pool = Pool()

    async def loop(self) -> None:
        """Read, gather and flush until told to stop, then write what is left."""
        while not self._packer._stopping.is_set():
            await self._raise_failures()
            while self._unopened is not None:
                await self._open()
            self._release()
            rows = len(self._pool)
            wait_ms = self._pace.wait_ms(rows) if rows else POLL_MS
            came = await self._take_in(wait_ms)
            full = self._pool.weight >= self._packer._settings.batch_bytes
            if self._reached and (full or self._pace.may_go(len(self._pool), came)):
                await self._flush()
        await self._flush()
        await self._settle()

    async def _take_in(self, wait_ms: int) -> bool:
        """Gather what comes within so long; whether anything did. Nothing of it is kept beside."""
        if len(self._pool) and wait_ms > GATHER_MS and not self._much_came:
            await asyncio.sleep(GATHER_MS / 1000)
            wait_ms = 0
        before = len(self._pool)
        batches = await self._consumer.getmany(timeout_ms=wait_ms)
        for tp, records in batches.items():
            await self._gather(tp, records)
        self._much_came = len(self._pool) - before >= MUCH_ROWS
        return bool(batches)

    async def _gather(self, tp: TopicPartition, records: list[ConsumerRecord]) -> None:
        source = self._logs.get(tp)
        if source is None:
            return  # not opened yet: read again after its seek; or of an assignment that is over
        if records[0].offset <= self._read.get(tp, -1):
            raise LogWentBack(f"{tp.topic}/{tp.partition} is read again from {records[0].offset}")
        read = _records(source, records)
        first = 1 if tp in self._gaps else 0
        before = len(self._pool)
        taken = await self._add(tp, read[:first])
        if first and taken:
            self._pool.note_gap(read[0], self._gaps.pop(tp))
        if taken == first:
            taken += await self._add(tp, read[first:])
        if self._logs.get(tp) is not source:
            return  # the assignment ended meanwhile: who has it now reads this again
        if taken < len(read):
            self._hold(tp, read[taken])
        if not taken:
            return
        last = records[taken - 1]
        self._read[tp] = last.offset
        if tp in self._events:
            made = len(self._pool) - before - first
            self._events[tp] += first + rows_due(tp.topic, read[:taken], made)
        self._reached[tp] = Bookmark.after(source.epoch, last, self._events.get(tp))
        RECORDS.inc(taken)

    async def _add(self, tp: TopicPartition, records: Sequence[Record]) -> int:
        """Take records into the pool; how many, up to one whose customer nobody can tell.

        Who isn't known is asked for once. None is taken where the assignment ended meanwhile.
        """
        if tp.topic == RESENT:
            for record in records:
                self._pool.add_resent(record)
            return len(records)
        source, customers = self._logs.get(tp), self._packer._customers
        left = self._pool.add(records, customers.known)
        if left and await customers.asked() and self._logs.get(tp) is source:
            left = self._pool.add(left, customers.found)
        return len(records) - len(left) if self._logs.get(tp) is source else 0

    def _hold(self, tp: TopicPartition, record: Record) -> None:
        """Read this partition on from a record, but later; the others don't wait for it."""
        if tp not in self._told:
            log.warning(
                "%s/%d waits at offset %d: which customer it names only the catalog can tell",
                *(tp.topic, tp.partition, record.offset),
            )
        self._told.add(tp)
        self._consumer.seek(tp, record.offset)
        self._consumer.pause(tp)
        self._held[tp] = time.monotonic() + HOLD_S
        HELD.set(len(self._held))

    def _release(self) -> None:
        """Try those again that have waited for a while."""
        now = time.monotonic()
        for tp in [tp for tp, until in self._held.items() if until <= now]:
            del self._held[tp]
            self._consumer.resume(tp)
        HELD.set(len(self._held))

    async def _flush(self) -> None:
        """Cut the pool into blocks and send them; at most two flushes are under way.

        After a failure nothing more is sent or committed: what failed comes before it. A flush at
        a rebalance waits for the one at hand.
        """
        async with self._flushing:
            await self._raise_failures()
            if self._reached or len(self._pool):
                await self._cut_and_send()

    async def _cut_and_send(self) -> None:
        failpoint("packer.read")
        pool, reached, starts = self._pool, self._reached, self._starts
        self._pool, self._reached = Pool(), {}
        started = time.monotonic()
        version = await self._catalog_version()
        sends = []
        settings = self._packer._settings
        blocks = pool.cut(
            self._packer._partitions,
            epoch=settings.block_epoch,
            catalog_version=version,
            starts=starts,
        )
        # All are made before the first is sent: the counter stores what comes together at once.
        for partition, value in [(partition, encode(block)) for partition, block in blocks]:
            sends.append(await self._producer.send(self._packer._topic, value, partition=partition))
            failpoint("packer.sending")
        self._pace.went(len(sends), len(pool))
        BLOCKS.inc(len(sends))
        PACKED.inc(len(pool))
        FLUSH_ROWS.observe(len(pool))
        before = self._flushes[-1] if self._flushes else None
        self._flushes.append(asyncio.create_task(self._land(before, sends, reached, started)))
        if len(self._flushes) > FLUSHES_MAX:
            await self._flushes[0]
            await self._raise_failures()

    async def _land(
        self,
        before: "asyncio.Task[None] | None",
        sends: list["asyncio.Future[object]"],
        reached: dict[TopicPartition, Bookmark],
        started: float,
    ) -> None:
        """Wait for the flush before this one and for our own acknowledgements, then commit."""
        try:
            if before is not None:
                await asyncio.shield(before)
            await asyncio.gather(*sends)
            failpoint("packer.sent")
            if reached:
                await self._consumer.commit(
                    {
                        tp: OffsetAndMetadata(bookmark.offset + 1, bookmark.to_text())
                        for tp, bookmark in reached.items()
                    }
                )
                failpoint("packer.committed")
        except BaseException as error:
            self._failure = self._failure or error
            raise
        FLUSH_SECONDS.observe(time.monotonic() - started)

    async def _catalog_version(self) -> int:
        """The catalog's newest version; the last known one while the catalog is away.

        Asking here, after every event of the pool was in the log, is what makes an event that was
        accepted after its feature's creation match it.
        """
        follower = self._packer._follower
        try:
            return await follower.catch_up()
        except CatalogUnavailable as error:
            log.warning("matching with catalog version %d: %s", follower.snapshot.version, error)
            return follower.snapshot.version

    async def _raise_failures(self) -> None:
        """Forget the flushes that are done; raise what one of them failed with."""
        if self._failure is not None:
            raise self._failure
        while self._flushes and self._flushes[0].done():
            await self._flushes.pop(0)

    async def _settle(self) -> None:
        """Wait for every flush under way."""
        while self._flushes:
            await self._flushes.pop(0)

    async def cancel(self) -> None:
        """Give up on the flushes under way: the next run starts from the commit."""
        self._failure = self._failure or KafkaError("this run is over")
        flushes, self._flushes = self._flushes, []
        for flush in flushes:
            flush.cancel()
        await asyncio.gather(*flushes, return_exceptions=True)


def _records(source: Log, records: Sequence[ConsumerRecord]) -> list[Record]:
    """What was read from one log, with whose it is and when it came."""
    latest = int(time.time() * 1000) + FUTURE_MS_MAX
    if source.topic == GATEWAY_EVENTS:
        return [_of_gateway(source, record, latest) for record in records]
    # Headers of native producers may be anything: the topic alone says whose its records are.
    account = source.topic.removeprefix(NATIVE_PREFIX) if source.topic != RESENT else ""
    return [
        Record(source, record.offset, account, _moment(record, latest), record.value)
        for record in records
    ]


def _of_gateway(source: Log, record: ConsumerRecord, latest: int) -> Record:
    """The gateway says whose its record is, when it came, and from where missing ids count."""
    headers = {key: value.decode("ascii", "replace") for key, value in record.headers if value}
    received_at = headers.get(HEADER_RECEIVED_AT, "")
    first_id = headers.get(HEADER_FIRST_ID, "")
    return Record(
        source,
        record.offset,
        headers.get(HEADER_ACCOUNT, ""),
        int(received_at) if _MOMENT.fullmatch(received_at) else _moment(record, latest),
        record.value,
        first_id if _ULID.fullmatch(first_id) else None,
    )


def _moment(record: ConsumerRecord, latest: int) -> int:
    """When the record was written, as far as that can be believed; else now."""
    written: int = record.timestamp
    return written if 0 < written <= latest else latest - FUTURE_MS_MAX


def _show_tasks() -> None:
    """Write on stderr where every task is: `kill -USR1`."""
    for task in asyncio.all_tasks():
        task.print_stack()


async def pack(settings: PackerSettings) -> None:
    """Pack until SIGINT or SIGTERM."""
    partitions = await ensure_topics(settings)
    follower = Follower(Catalog(settings.catalog))
    await asyncio.to_thread(wait_for, "the catalog", follower.refresh, CatalogUnavailable)
    lag = CountingLag()
    packer = Packer(settings, partitions, follower, lambda: lag.seconds)
    following = [
        asyncio.create_task(lag.follow(settings, partitions)),
        asyncio.create_task(follower.follow()),
    ]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, packer.stop)
    loop.add_signal_handler(signal.SIGUSR1, _show_tasks)
    monitor = asyncio.create_task(serve_monitor(settings.monitor_port, lambda: packer.troubles))
    keep_for_good()
    await packer.run()
    for task in (monitor, *following):
        task.cancel()


def run(settings: PackerSettings) -> None:
    """Pack until told to stop."""
    import uvloop

    keep_memory()
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    uvloop.run(pack(settings))
