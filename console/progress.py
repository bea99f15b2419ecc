"""How far the pipeline is, as the broker and the store say: looked at once a second."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import Gauge

from clickhouse.queries import query
from console import backlog
from console.backlog import Backlog
from console.conservation import Conservation
from console.resent_log import AWAY as KAFKA_AWAY
from console.settings import Settings
from console.store import Store
from console.watermarks import Ends, Mark, Sample, Watermarks
from schemas.bookmark import Bookmark
from schemas.errors import Rejection, ServiceUnavailable
from schemas.position import Log
from schemas.topics import GATEWAY_EVENTS, NATIVE_PREFIX, PACKER_GROUP, RESENT, block_topic

LOOK_S = 1.0
AGAIN_S = 2.0
ANSWER_S = 10.0
STORE_ANSWER_S = 3.0
POLL_S = 0.05
STORE_AWAY = (Rejection, ClickHouseError)
log = logging.getLogger(__name__)


LAG_OFFSETS = Gauge(
    "pipeline_lag_offsets",
    "Records of a topic that wait to be packed, or blocks to be counted",
    ["stage", "topic"],
    multiprocess_mode="mostrecent",
)
LAG_SECONDS = Gauge(
    "pipeline_lag_seconds",
    "Age of the moment before which everything received in a topic is packed, or counted",
    ["stage", "topic"],
    multiprocess_mode="mostrecent",
)
KNOWN = Gauge(
    "pipeline_progress_known",
    "Whether the pipeline's progress is known: 1, or 0 while broker or store are away",
    multiprocess_mode="mostrecent",
)


class Progress:
    """The last sample of the pipeline's positions, and the watermarks that samples make."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self.sample: Sample | None = None
        self.watermarks = Watermarks()
        self.trouble: str | None = "not looked yet"
        """Why the figures are not of this moment; None when they are."""
        self._counted = _Counted(store, settings.block_epoch)
        self._wanted = asyncio.Event()
        self._looked = asyncio.Event()
        self._blocks = block_topic(settings.block_epoch)
        self.conservation = Conservation(store, settings.block_epoch)
        self._comparing: asyncio.Future[None] | None = None
        self._before: Sample | None = None
        self._voids: dict[str, tuple[Ends, Ends]] = {}

    @property
    def store_trouble(self) -> str | None:
        """Why what is counted isn't known of this moment, though what waits in the log is."""
        return self._counted.trouble

    async def run(self) -> None:
        """Look for ever; whatever is away is waited for, and said."""
        while True:
            try:
                async with _Positions(self._settings, self._counted) as positions:
                    while True:
                        self._take_in(await self._without_voids(await positions.sample()))
                        self._compare()
                        await self._until_wanted()
            except (*KAFKA_AWAY, *STORE_AWAY) as error:
                if self.trouble is None:
                    log.warning("the pipeline's progress is unknown: %r", error)
                self.trouble = f"{type(error).__name__}: {error}"
                KNOWN.set(0)
            except Exception as error:
                log.exception("looking for the pipeline's progress failed")
                self.trouble = f"{type(error).__name__}: {error}"
                KNOWN.set(0)
            await asyncio.sleep(AGAIN_S)

    async def _without_voids(self, sample: Sample) -> Sample:
        """The sample, where only transactions' own records are left packed to the end.

        The packer commits behind the last event, and a transaction's end stands behind that. What
        looks the same twice is read to see whether it holds anything.
        """
        before, packed = self._before, dict(sample.packed)
        self._before = sample
        for topic, ends in sample.sources.items():
            state = (packed.get(topic, {}), ends)
            if not topic.startswith(NATIVE_PREFIX) or not sample.records_waiting(topic):
                continue
            same = before is not None and state == (
                before.packed.get(topic, {}),
                before.sources.get(topic),
            )
            if same and self._voids.get(topic) != state:
                account = topic.removeprefix(NATIVE_PREFIX)
                left = await backlog.unpacked(self._settings, sample, account, [topic])
                if left == Backlog(0, exact=True):
                    self._voids[topic] = state
            if self._voids.get(topic) == state:
                packed[topic] = ends
        return sample._replace(packed=packed)

    def _compare(self) -> None:
        """Now and then, look whether all that was read was counted, and is stored.

        Nothing waits for it: a store that dies meanwhile must not hold up what the log says.
        """
        if self._comparing is not None and self._comparing.done():
            error, self._comparing = self._comparing.exception(), None
            if isinstance(error, STORE_AWAY):
                log.warning("what is stored could not be compared: %r", error)
            elif error is not None:
                raise error
        if self._comparing is None and self.store_trouble is None and self.sample is not None:
            due = self.conservation.due(self.sample)
            if due is not None:
                compared = asyncio.to_thread(self.conservation.compare, due)
                self._comparing = asyncio.ensure_future(compared)

    async def _until_wanted(self) -> None:
        """Wait for the next look: a second, or less when somebody waits for a figure."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._wanted.wait()
        self._wanted.clear()

    async def looked(self) -> None:
        """Wait for the first look since the start: nothing is known before it."""
        await self._looked.wait()

    async def reached(self, account: str, moment: int, timeout_s: float) -> bool:
        """Whether all that was received of an account before a moment (ms) is counted.

        Waits a little for it.
        """
        deadline = time.monotonic() + timeout_s
        while (mark := self.counted_until(account)) is None or mark < moment:
            if time.monotonic() > deadline:
                return False
            self._wanted.set()
            await asyncio.sleep(POLL_S)
        return True

    def sources(self, account: str) -> list[str]:
        """The source topics that hold an account's events."""
        if self.sample is None:
            return []
        wanted = (GATEWAY_EVENTS, RESENT, f"{NATIVE_PREFIX}{account}")
        return [topic for topic in wanted if topic in self.sample.sources]

    def packed_until(self, account: str) -> int | None:
        """All that was received of an account before this (ms) is packed; None: unknown."""
        return _least([self.watermarks.packed(topic) for topic in self.sources(account)])

    def counted_until(self, account: str) -> int | None:
        """All that was received of an account before this (ms) is counted; None: unknown."""
        return _least([self.watermarks.counted(topic) for topic in self.sources(account)])

    def _take_in(self, sample: Sample) -> None:
        self.watermarks.take_in(sample)
        self.sample, self.trouble = sample, None
        self._looked.set()
        KNOWN.set(1 if self.store_trouble is None else 0)
        for topic in sample.sources:
            LAG_OFFSETS.labels("packing", topic).set(sample.records_waiting(topic))
            stages = {"packing": self.watermarks.packed(topic)}
            stages["counting"] = self.watermarks.counted(topic)
            for stage, mark in stages.items():
                if mark is not None:
                    LAG_SECONDS.labels(stage, topic).set((sample.at - mark.at) / 1000)
        LAG_OFFSETS.labels("counting", self._blocks).set(sample.blocks_waiting())


def _least(marks: list[Mark | None]) -> int | None:
    known = [mark.at for mark in marks if mark is not None]
    return min(known) if known and len(known) == len(marks) else None


class _Positions:
    """Reads positions of the source topics, the packer's group, the blocks and the store."""

    def __init__(self, settings: Settings, counted: "_Counted") -> None:
        self._settings = settings
        self._counted = counted
        self._topics: dict[str, list[int]] = {}
        self._blocks = block_topic(settings.block_epoch)

    async def __aenter__(self) -> Self:
        servers = self._settings.kafka
        self._admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=servers, isolation_level="read_committed", enable_auto_commit=False
        )
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._admin.start()
                await self._consumer.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for end in (self._consumer.stop, self._admin.close):
            with contextlib.suppress(*KAFKA_AWAY):
                async with asyncio.timeout(1):
                    await end()

    async def sample(self) -> Sample:
        """Every position, in an order in which each is no older than what it is compared with."""
        async with asyncio.timeout(ANSWER_S):
            at = int(time.time() * 1000)
            await self._list_topics()
            sources = [topic for topic in self._topics if topic != self._blocks]
            ends = await self._ends(sources)
            committed = await self._admin.list_consumer_group_offsets(PACKER_GROUP)
            blocks = await self._ends([self._blocks])
        packed: dict[str, dict[int, int]] = {}
        bookmarks: dict[Log, Bookmark] = {}
        for tp, place in committed.items():
            packed.setdefault(tp.topic, {})[tp.partition] = place.offset
            if (bookmark := Bookmark.from_text(place.metadata)) is not None:
                bookmarks[Log(tp.topic, bookmark.epoch, tp.partition)] = bookmark
        counted = await self._counted.now()
        return Sample(at, ends, packed, blocks.get(self._blocks, {}), counted, bookmarks)

    async def _list_topics(self) -> None:
        """Learn which topics there are: one may have been made a moment ago."""
        self._topics = {
            each["topic"]: [part["partition"] for part in each["partitions"]]
            for each in await self._admin.describe_topics()
            if each["topic"] in (GATEWAY_EVENTS, RESENT, self._blocks)
            or each["topic"].startswith(NATIVE_PREFIX)
        }

    async def _ends(self, topics: list[str]) -> Mapping[str, Ends]:
        """By topic and partition, the offset that comes next."""
        tps = [TopicPartition(t, part) for t in topics for part in self._topics.get(t, [])]
        found: dict[str, dict[int, int]] = {}
        for tp, end in (await self._consumer.end_offsets(tps)).items() if tps else ():
            found.setdefault(tp.topic, {})[tp.partition] = end
        return found


class _Counted:
    """What the store has counted.

    While it is away what it said last stands: what it has counted since is not much, and what
    waits in the log grows. `trouble` says so.
    """

    def __init__(self, store: Store, epoch: int) -> None:
        self._store = store
        self._epoch = epoch
        self._last: Ends | None = None
        self._asking: asyncio.Future[Ends] | None = None
        self.trouble: str | None = None

    async def now(self) -> Ends:
        """By partition, the block that comes next. Raises what STORE_AWAY names before the first.

        One question at a time: of a store that hangs nothing more is asked, and it is waited for
        only once.
        """
        if self._asking is None:
            self._asking = asyncio.ensure_future(asyncio.to_thread(self._ask))
        asking = self._asking
        try:
            wait_s = 0 if self.trouble and self._last is not None else STORE_ANSWER_S
            done, _ = await asyncio.wait([asking], timeout=wait_s)
            if not done:
                raise ServiceUnavailable("The store does not answer")
            self._asking = None
            self._last, self.trouble = asking.result(), None
        except STORE_AWAY as error:
            if self.trouble is None:
                log.warning("what is counted is unknown: %s", error)
            self.trouble = str(error)
            if self._last is None:
                raise
        return self._last

    def _ask(self) -> Ends:
        with self._store.reading() as client:
            rows = client.query(query("blocks_counted"), {"epoch": self._epoch}).result_rows
        return {int(partition): int(offset) + 1 for partition, offset in rows}
