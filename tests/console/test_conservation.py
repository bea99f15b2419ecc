"""Conservation on a real engine: nothing is missing until something is taken away."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import Inserts
from console.conservation import BLOCKS_BACK, Conservation, gap_events, gap_rows
from console.store import Store
from console.watermarks import Sample
from schemas.balance import NOTHING, Balance
from schemas.block import Block, ipc
from schemas.bookmark import Bookmark
from schemas.census import rows_due
from schemas.position import Log
from schemas.topics import GATEWAY_EVENTS
from stream_workers.coverage import Coverage
from stream_workers.dedupe import Place
from stream_workers.folding import fold
from tests.stream_workers.worlds import (
    HORIZON_MS,
    NOW,
    Remembered,
    cut,
    make_catalog,
    make_event,
    make_feature,
    make_record,
    pool_of,
)

pytestmark = pytest.mark.clickhouse
PARTITIONS = 2
NATIVE = Log("events.acme", 0, 0)
GATEWAY = Log(GATEWAY_EVENTS, 0, 3)
Lose = Callable[[Block], Block]


@dataclass
class Counting:
    """A block partition: what it covers, its balance, its claims."""

    offset: int = 0
    coverage: Coverage = field(default_factory=dict)
    balance: Balance = NOTHING
    claims: Remembered = field(default_factory=Remembered)


@dataclass
class Pipeline:
    """Packer and counter in one, step by step; `lose` takes something out of each block."""

    inserts: Inserts
    epoch: int = 0
    lose: Lose = lambda block: block
    partitions: list[Counting] = field(default_factory=list)
    starts: dict[tuple[int, Log], int] = field(default_factory=dict)
    bookmarks: dict[Log, Bookmark] = field(default_factory=dict)
    offsets: dict[Log, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.partitions = [Counting() for _ in range(PARTITIONS)]

    async def send(self, log: Log, *events: dict[str, Any] | bytes) -> None:
        """One record, packed, committed and counted."""
        offset = self.offsets[log] = self.offsets.get(log, -1) + 1
        value: Any = events[0] if isinstance(events[0], bytes) else events
        record = make_record(offset, value, log=log)
        pool = pool_of([record])
        before = self.bookmarks.get(log, Bookmark(0, 0, 0, 0, events=0)).events
        assert before is not None
        due = rows_due(log.topic, [record], len(pool))
        self.bookmarks[log] = Bookmark(0, offset, NOW, 0, before + due)
        for number, block in cut(pool, PARTITIONS, self.starts):
            await self._count(self.partitions[number], number, self.lose(block))

    async def _count(self, counting: Counting, number: int, block: Block) -> None:
        folded = fold(
            counting.coverage,
            block,
            Place(self.epoch, number, counting.offset, NOW + counting.offset),
            counting.claims.look_up,
            make_catalog(make_feature()),
            owner=0,
            horizon_ms=HORIZON_MS,
            balance=counting.balance,
        )
        await self.inserts.insert("events", ipc(folded.rows), token=uuid4().hex)
        counting.claims.keep(folded.claims)
        counting.coverage, counting.balance = folded.coverage, folded.balance
        counting.offset += 1

    def sample(self) -> Sample:
        """Positions as the broker and the store would tell them."""
        ends = {number: each.offset for number, each in enumerate(self.partitions)}
        return Sample(NOW, {}, {}, ends, ends, dict(self.bookmarks))


@pytest.fixture
async def pipeline(store: Client, store_url: str) -> AsyncIterator[Pipeline]:
    """Twenty records of every kind on two source logs, all counted."""
    inserts = Inserts(store_url)
    pipeline = Pipeline(inserts)
    for number in range(10):
        await pipeline.send(NATIVE, make_event(f"a{number}"), make_event(f"b{number}"))
        await pipeline.send(GATEWAY, make_event("again"), {"event_name": ""}, make_event())
    await pipeline.send(NATIVE, b"no JSON")
    await pipeline.send(GATEWAY, make_event("odd", event_name="unheard.of"))
    yield pipeline
    await inserts.close()


@pytest.fixture
def reading(store_url: str) -> Iterator[Store]:
    store = Store(store_url)
    yield store
    store.close()


def test_where_nothing_was_ever_counted_nothing_is_missing(store: Client) -> None:
    assert gap_rows(store) == 0
    assert gap_events(store, Sample(NOW, {}, {}, {}, {}), 0) == {}


def test_at_rest_the_gap_is_nothing(pipeline: Pipeline, store: Client) -> None:
    assert gap_events(store, pipeline.sample(), 0) == {"events.acme": 0, GATEWAY_EVENTS: 0}
    assert gap_rows(store) == 0
    read = {log.topic: bookmark.events for log, bookmark in pipeline.bookmarks.items()}
    assert read == {"events.acme": 21, GATEWAY_EVENTS: 31}


async def test_an_event_that_the_packer_drops_is_missing(pipeline: Pipeline, store: Client) -> None:
    def first_event(block: Block) -> Block:
        return msgspec.structs.replace(block, events=ipc(block.table().slice(1)))

    pipeline.lose = first_event
    await pipeline.send(NATIVE, make_event("lost"))
    pipeline.lose = lambda block: block
    await pipeline.send(NATIVE, make_event("kept"), make_event("kept too"))
    assert gap_events(store, pipeline.sample(), 0) == {"events.acme": 1, GATEWAY_EVENTS: 0}
    assert gap_rows(store) == 0


async def test_a_dead_letter_that_is_dropped_is_missing(pipeline: Pipeline, store: Client) -> None:
    pipeline.lose = lambda block: msgspec.structs.replace(block, dead_letters=[])
    await pipeline.send(GATEWAY, b"garbage")
    assert gap_events(store, pipeline.sample(), 0) == {"events.acme": 0, GATEWAY_EVENTS: 1}


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("DELETE FROM events WHERE event_id = 'a3'", 1),
        ("DELETE FROM events WHERE verdict = 'dead_letter'", 11),
    ],
)
def test_a_row_that_is_gone_from_the_store_is_missing(
    pipeline: Pipeline, store: Client, command: str, missing: int
) -> None:
    store.command(command)
    assert gap_rows(store) == missing
    assert gap_events(store, pipeline.sample(), 0) == {"events.acme": 0, GATEWAY_EVENTS: 0}


def test_a_row_that_nobody_counted_is_one_too_many(pipeline: Pipeline, store: Client) -> None:
    store.command("INSERT INTO events SELECT * FROM events WHERE event_id = 'a3'")
    assert gap_rows(store) == -1


async def test_what_is_counted_beyond_the_commit_is_no_surplus(
    pipeline: Pipeline, store: Client
) -> None:
    """While events come in, the counter is ahead of a commit that was looked at before."""
    committed = pipeline.sample().bookmarks
    for number in range(BLOCKS_BACK // 2):
        await pipeline.send(NATIVE, make_event(f"more{number}"))
        found = gap_events(store, pipeline.sample()._replace(bookmarks=committed), 0)
        assert found == {"events.acme": 0, GATEWAY_EVENTS: 0}


async def test_a_new_layout_of_blocks_goes_on_from_the_old_one(
    pipeline: Pipeline, store: Client
) -> None:
    again = Pipeline(pipeline.inserts, epoch=1)
    again.offsets, again.bookmarks = pipeline.offsets, pipeline.bookmarks
    again.starts = pipeline.starts
    await again.send(NATIVE, make_event("later"), make_event("and later"))
    assert gap_events(store, again.sample(), 1) == {"events.acme": 0, GATEWAY_EVENTS: 0}
    assert gap_rows(store) == 0


async def test_what_an_earlier_version_did_not_count_is_not_known(
    pipeline: Pipeline, store: Client
) -> None:
    bookmark = msgspec.structs.replace(pipeline.bookmarks[NATIVE], events=None)
    pipeline.bookmarks[NATIVE] = bookmark
    assert gap_events(store, pipeline.sample(), 0) == {"events.acme": None, GATEWAY_EVENTS: 0}


async def test_only_a_gap_that_lasts_is_shown(pipeline: Pipeline, reading: Store) -> None:
    right = pipeline.sample()
    bookmark = pipeline.bookmarks[NATIVE]
    pipeline.bookmarks[NATIVE] = msgspec.structs.replace(bookmark, events=25)
    wrong = pipeline.sample()
    conservation = Conservation(reading, 0)
    shown = []
    for sample in (right, wrong, right, wrong, wrong):
        conservation.compare(sample)
        assert conservation.gaps is not None
        shown.append(conservation.gaps.events["events.acme"])
    assert shown == [0, 0, 0, 0, 4]


def test_a_sample_is_compared_once_its_blocks_are_counted(reading: Store) -> None:
    conservation = Conservation(reading, 0)
    packed = Sample(1, {}, {}, {0: 5}, {0: 3})
    assert conservation.due(packed) is None
    assert conservation.due(Sample(2, {}, {}, {0: 9}, {0: 4})) is None
    assert conservation.due(Sample(3, {}, {}, {0: 9}, {0: 5})) == packed
    assert conservation.due(Sample(4, {}, {}, {0: 9}, {0: 9})) is None
