"""The counter: a Faust agent that stores each block, in order, and then acknowledges it.

Faust schedules, owns partitions and supervises; the rules of counting are in `folding`. Where a
partition starts is the store's word, the group's commit only a hint. Whatever goes wrong ends the
process: a live worker never sees an un-acknowledged record again, a new one starts where the
store is.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import faust
from faust.types import TP, EventT, StreamT
from prometheus_client import Counter, Gauge, Histogram

from catalog.database import Catalog, CatalogUnavailable
from catalog.follower import Follower
from clickhouse.client import Inserts, connect
from schemas.failpoint import failpoint
from schemas.lasting import keep_for_good, keep_memory
from schemas.limits import MESSAGE_BYTES_MAX
from schemas.open_files import allow_many_files
from schemas.topics import block_topic, counter_group
from stream_workers.group_commit import GroupCommit
from stream_workers.monitor import serve_monitor
from stream_workers.partition import Partition, Parts
from stream_workers.settings import WorkerSettings
from stream_workers.silence import Silence
from stream_workers.store import NO_ANSWER, Store, StoreBehind
from stream_workers.topics import ensure_topics
from stream_workers.transport import NoTables, transport
from stream_workers.waiting import wait_for

QUEUE_BLOCKS = 2
STALL_S = 60.0
EXIT_FAULT = 70
log = logging.getLogger(__name__)

ROWS = Counter("counter_rows_total", "Rows stored, by verdict", ["verdict"])
BLOCKS = Counter("counter_blocks_total", "Blocks stored", ["partition"])
NEXT_OFFSET = Gauge("counter_next_offset", "Block to count next", ["partition"])
BLOCK_SECONDS = Histogram("counter_block_seconds", "From reading a block to its acknowledgement")
REBALANCES = Counter("counter_rebalances_total", "Assignments of partitions")


class Counting:
    """The partitions of this worker, each with a task that counts its blocks one by one."""

    def __init__(self, parts: Parts, topic: str) -> None:
        self._parts = parts
        self._topic = topic
        self._lanes: dict[int, _Lane] = {}
        self._handing_over = False
        self.ready = False

    async def assigned(
        self, partitions: set[TP], earliest: Mapping[TP, int], ends: Mapping[TP, int]
    ) -> Mapping[TP, int]:
        """Take partitions over, and say where to read on. Refuses when log and store disagree."""
        REBALANCES.inc()
        await self.stop()
        starts: dict[TP, int] = {}
        try:
            for tp in sorted(partitions):
                if tp.topic != self._topic:
                    continue
                partition = Partition(tp.partition, self._parts)
                start = await asyncio.to_thread(partition.prepare)
                _agree(tp, start, earliest.get(tp), ends.get(tp))
                starts[tp] = start
                self._lanes[tp.partition] = _Lane(partition)
                log.info("block partition %d from offset %d", tp.partition, start)
        except Exception:
            log.exception("taking partitions over failed")
            end_process()
        self.ready = True
        return starts

    async def put(self, event: EventT[bytes]) -> None:
        """Hand a block to its partition; waits while the partition has enough of them."""
        lane = self._lanes.get(event.message.partition)
        if lane is None:
            event.ack()  # of an assignment that is over
            return
        self._handing_over = True
        try:
            await lane.queue.put(event)
        finally:
            self._handing_over = False

    async def stop(self) -> None:
        """Finish the blocks at hand and let all partitions go."""
        lanes, self._lanes = list(self._lanes.values()), {}
        await asyncio.gather(*(lane.stop() for lane in lanes))

    def troubles(self) -> dict[str, str]:
        """What keeps this worker from its work."""
        found = {} if self.ready else {"partitions": "none assigned yet"}
        for number, lane in self._lanes.items():
            if lane.stalled_s > STALL_S:
                found[f"partition {number}"] = f"no progress for {lane.stalled_s:.0f} s"
        return found

    def unread(self, ends: Mapping[int, int]) -> dict[int, int]:
        """By partition that has nothing to do while its log goes on, the block that it waits for.

        None while a block waits to be handed to its partition: those behind it can't be read yet.
        """
        found: dict[int, int] = {}
        for number, end in ends.items() if not self._handing_over else ():
            lane = self._lanes.get(number)
            offset = 0 if lane is None else lane.next_offset
            if (lane is None or lane.idle) and end > offset:
                found[number] = offset
        return found

    async def watch(self, app: faust.App) -> None:
        """End the process when blocks wait in the log and none comes: consumers are known to die.

        (faust-streaming issues 175, 523, 532: never explained.) The store may be away for as long
        as it likes: the blocks that wait for it are no silence.
        """
        silence = Silence(STALL_S / 2)
        while True:
            await asyncio.sleep(STALL_S / 6)
            tps = [tp for tp in app.consumer.assignment() if tp.topic == self._topic]
            try:
                async with asyncio.timeout(STALL_S):
                    ends = await app.consumer.highwaters(*tps) if tps else {}
            except Exception as error:  # the broker is away: nothing waits that we could know of
                log.warning("no word from the log: %r", error)
                continue
            waiting = self.unread({tp.partition: ends.get(tp, 0) for tp in tps})
            counted = sum(lane.next_offset for lane in self._lanes.values())
            silent = silence.look(time.monotonic(), waiting, counted)
            if silent is not None:
                log.error(
                    "no block comes to partition %d from offset %d: starting over",
                    silent, waiting[silent],
                )  # fmt: skip
                end_process()


class _Lane:
    """One partition's queue and the task that works it off."""

    def __init__(self, partition: Partition) -> None:
        self.queue: asyncio.Queue[EventT[bytes] | None] = asyncio.Queue(QUEUE_BLOCKS)
        self._partition = partition
        self._busy_since: float | None = None
        self._opened = False
        self._task = asyncio.create_task(self._run())

    @property
    def stalled_s(self) -> float:
        """How long the block at hand has taken so far."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    @property
    def idle(self) -> bool:
        """Whether it waits for a block."""
        return self._opened and self._busy_since is None and self.queue.empty()

    @property
    def next_offset(self) -> int:
        """The block it counts next."""
        return self._partition.next_offset

    async def _run(self) -> None:
        partition, label = self._partition, str(self._partition.number)
        try:
            await asyncio.to_thread(partition.open)
            self._opened = True
            while (event := await self.queue.get()) is not None:
                message = event.message
                if message.offset == partition.next_offset:
                    self._busy_since = time.monotonic()
                    moment = round(message.timestamp * 1000)
                    tally = await partition.count(message.offset, moment, message.value)
                    for verdict, count in tally.items():
                        ROWS.labels(verdict).inc(count)
                    BLOCKS.labels(label).inc()
                    NEXT_OFFSET.labels(label).set(partition.next_offset)
                    BLOCK_SECONDS.observe(self.stalled_s)
                    self._busy_since = None
                # Any other offset is from before a rebalance: the right ones come after it.
                event.ack()
                failpoint("counter.acked")
        except Exception:
            log.exception("block partition %s failed", label)
            end_process()
        finally:
            await asyncio.to_thread(partition.close)

    async def stop(self) -> None:
        """Finish the block at hand; leave the queued ones to the next owner."""
        while not self.queue.empty():
            self.queue.get_nowait()
        await self.queue.put(None)
        await self._task


def _agree(tp: TP, start: int, earliest: int | None, end: int | None) -> None:
    """Refuse to count when the log is not the one that the store has counted."""
    if end is not None and start > end:
        raise StoreBehind(
            f"{tp.topic}/{tp.partition}: the store has counted up to {start - 1}, the log ends at"
            f" {end}: was the topic made anew? Set TALLYLOG_BLOCK_EPOCH to a new epoch."
        )
    if earliest is not None and start < earliest:
        raise StoreBehind(
            f"{tp.topic}/{tp.partition}: the store has counted up to {start - 1}, the log begins at"
            f" {earliest}: blocks were deleted before they were counted."
        )


def end_process() -> None:
    """End at once, without acknowledging anything; whoever started the worker starts it again."""
    sys.stderr.flush()
    os._exit(EXIT_FAULT)


def create_app(settings: WorkerSettings, counting: Counting) -> faust.App:
    """The Faust app: one agent on the block topic."""
    name = block_topic(settings.block_epoch)
    folder = settings.data_dir.absolute() / "faust" / settings.worker
    folder.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        counter_group(settings.block_epoch),
        broker=f"kafka://{settings.kafka.replace(',', ';kafka://')}",
        datadir=str(folder),
        store="memory://",
        TableManager=NoTables,
        value_serializer="raw",
        key_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
        stream_buffer_maxsize=16,
        stream_wait_empty=False,
        stream_publish_on_commit=False,
        broker_max_poll_records=16,
        broker_commit_interval=1.0,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_rebalance_timeout=30.0,
        broker_request_timeout=90.0,
        consumer_max_fetch_size=MESSAGE_BYTES_MAX,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_request_timeout=30.0,
    )
    app.transport = transport(app, counting.assigned)
    blocks = app.topic(name, value_type=bytes, value_serializer="raw", key_serializer="raw")

    @app.agent(blocks)
    async def count(stream: StreamT[bytes]) -> None:
        """Store each block, then acknowledge it: in order, and the same when done again."""
        stream.enable_acks = False  # a block is done when it is stored, not when it is read
        async for event in stream.events():
            await counting.put(event)

    return app


class _Worker(faust.Worker):
    """Runs the app, the monitor and the catalog's follower in one event loop."""

    def __init__(self, app: faust.App, settings: WorkerSettings, counting: Counting) -> None:
        super().__init__(app, loglevel=settings.log_level.upper(), redirect_stdouts=False)
        self._settings = settings
        self._counting = counting
        self._tasks: list[asyncio.Task[None]] = []

    async def on_first_start(self) -> None:
        await super().on_first_start()
        keep_for_good()
        port = self._settings.monitor_port
        self._tasks = [
            asyncio.create_task(serve_monitor(port, self._counting.troubles)),
            asyncio.create_task(self._counting.watch(self.app)),
        ]

    async def on_stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._counting.stop()
        await super().on_stop()


def run(settings: WorkerSettings) -> None:
    """Count until told to stop."""
    allow_many_files()
    keep_memory()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each insert
    asyncio.run(ensure_topics(settings))
    follower = Follower(Catalog(settings.catalog))
    wait_for("the catalog", follower.refresh, CatalogUnavailable)
    client = wait_for("the store", lambda: connect(settings.clickhouse_url), *NO_ANSWER)
    store = Store(client, settings.block_epoch)
    core = ThreadPoolExecutor(1, thread_name_prefix="core")
    refills = ThreadPoolExecutor(1, thread_name_prefix="refills")
    merges = ThreadPoolExecutor(1, thread_name_prefix="merges")
    commits = GroupCommit(Inserts(settings.clickhouse_url, settings.insert_timeout_s))
    parts = Parts(settings, store, commits, follower, core, refills, merges)
    counting = Counting(parts, block_topic(settings.block_epoch))
    app = create_app(settings, counting)
    _Worker(app, settings, counting).execute_from_commandline()
