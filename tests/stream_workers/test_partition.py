"""One block partition with a store of our own: what is written when, and what happens in doubt."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickhouse.client import InsertFailed
from schemas.block import Block, encode
from schemas.position import Point
from stream_workers import partition as module
from stream_workers.claims import Claim, Claims, Keys, no_claims, resent_key
from stream_workers.group_commit import GroupCommit
from stream_workers.partition import Partition, Parts
from stream_workers.settings import WorkerSettings
from stream_workers.store import NotOwner, Progress
from tests.stream_workers.worlds import (
    NOW,
    claim,
    cut,
    found_in,
    make_catalog,
    make_event,
    make_feature,
    make_record,
    point,
    pool_of,
)


class FakeStore:
    """Keeps inserted rows; `faults` says what goes wrong with the next inserts."""

    identity = "fake"

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.faults: list[Callable[[list[dict[str, Any]]], None]] = []
        self.inserted: list[str] = []
        self.tokens: list[str] = []
        self.owner = 0

    def acquire(self, partition: int, held: int | None = None) -> int:
        assert held in (None, self.owner)
        self.owner += 1
        return self.owner

    def mark(self, partition: int, what: str = "") -> str:
        return f"block-0-{partition}-{what}"

    def mend(self, partition: int, owner: int) -> Progress:
        markers = [row for row in self.rows if row["verdict"] == "marker"]
        return Progress(max((row["block_offset"] for row in markers), default=-1), {}, NOW)

    def page_end(self, partition: int, after: int, upto: int, since: int) -> int:
        return min(after + 2, upto)

    def claims(self, partition: int, after: int, upto: int, since: int) -> Iterator[Claims]:
        for row in reversed(self.rows):  # in any order
            if row["verdict"] in ("duplicate", "dead_letter", "marker"):
                continue
            if after < row["block_offset"] <= upto:
                time = int(row["block_time"].timestamp() * 1000)
                yield Claims.of([(key_of(row), Claim(point(row), time, 0))])

    def claims_of(self, ids: pa.RecordBatch, *span: int) -> Claims:
        asked = {(row["account"], row["event_id"]) for row in ids.to_pylist()}
        rows = [row for row in self.rows if (row["account"], row["event_id"]) in asked]
        asked_for = FakeStore()
        asked_for.rows = rows
        return Claims.joined([no_claims(), *FakeStore.claims(asked_for, *span)])

    async def insert(self, table: str, stream: bytes, *, token: str, query_id: str) -> None:
        self.inserted.append(query_id)
        self.tokens.append(token)
        with pa.ipc.open_stream(stream) as reader:
            rows = reader.read_all().to_pylist()
        if self.faults:
            self.faults.pop(0)(rows)
        self.rows += rows


def key_of(row: dict[str, Any]) -> bytes:
    """What a row claims, as claims.sql has it."""
    key = sha256(f"{row['account']}\0{row['event_id']}".encode()).digest()[:16]
    if row["superseded_offset"] < 0:
        return key
    place = (row["superseded_epoch"], row["superseded_offset"], row["superseded_index"])
    return resent_key(key, Point(*place))


class FakeFollower:
    def __init__(self) -> None:
        self.snapshot = make_catalog(make_feature())


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    monkeypatch.setattr(module, "RETRY_S", (0.0,))
    return FakeStore()


@contextmanager
def owned(folder: Path, store: Any, inserts: Any) -> Iterator[Partition]:
    """The partition, owned by a worker with its claims in a folder."""
    threads = core, refills, merges = [ThreadPoolExecutor(1) for _ in range(3)]
    with ExitStack() as ending:
        for thread in threads:
            ending.enter_context(thread)
        follower: Any = FakeFollower()
        settings = WorkerSettings(data_dir=folder)
        commits = GroupCommit(inserts)
        made = Partition(0, Parts(settings, store, commits, follower, core, refills, merges))
        made.prepare()
        made.open()
        yield made
        made.close()


@pytest.fixture
def partition(store: FakeStore, tmp_path: Path) -> Iterator[Partition]:
    with owned(tmp_path, store, store) as made:
        assert made.next_offset == 0
        yield made


def block(*ids: str, offset: int = 0) -> bytes:
    [(_, made)] = cut(pool_of([make_record(offset, [make_event(each) for each in ids])]))
    assert isinstance(made, Block)
    return encode(made)


def claimed(partition: Partition) -> int:
    assert partition._claims is not None
    return partition._claims.reached


def refuse(code: int | None) -> Callable[[list[dict[str, Any]]], None]:
    def fault(rows: list[dict[str, Any]]) -> None:
        raise InsertFailed(code, "refused")

    return fault


async def test_blocks_are_counted_one_after_the_other(
    partition: Partition, store: FakeStore
) -> None:
    assert dict(await partition.count(0, NOW, block("a", "b"))) == {"counted": 2}
    assert dict(await partition.count(1, NOW, block("b", "c", offset=1))) == {
        "duplicate": 1, "counted": 1,
    }  # fmt: skip
    assert (partition.next_offset, claimed(partition)) == (2, 1)


async def test_a_refused_insert_that_is_not_in_is_sent_again_by_a_new_owner_number(
    partition: Partition, store: FakeStore
) -> None:
    store.faults = [refuse(241), refuse(None)]
    await partition.count(0, NOW, block("a"))
    assert len(store.inserted) == 3 and len(set(store.inserted)) == 3
    assert len(set(store.tokens)) == 3  # a token may be there without its part
    assert [(row["verdict"], row["owner"]) for row in store.rows] == [("counted", 3), ("marker", 3)]


async def test_an_insert_without_an_answer_that_landed_is_not_sent_again(
    partition: Partition, store: FakeStore
) -> None:
    def lands(rows: list[dict[str, Any]]) -> None:
        store.rows += rows
        raise InsertFailed(None, "the connection broke")

    store.faults = [lands]
    await partition.count(0, NOW, block("a"))
    assert len(store.inserted) == 1
    assert (partition.next_offset, claimed(partition)) == (1, 0)


async def test_a_fenced_worker_stops_and_leaves_no_claim(
    partition: Partition, store: FakeStore
) -> None:
    """Claims before rows would be of decisions that nobody stored."""
    store.faults = [refuse(469)]
    with pytest.raises(NotOwner):
        await partition.count(0, NOW, block("a"))
    assert (partition.next_offset, claimed(partition)) == (0, -1)


async def test_a_worker_whose_partition_was_counted_on_by_another_stops(
    partition: Partition, store: FakeStore
) -> None:
    """It was stopped while it took over, and took over from its successor when it went on."""

    def counted_on(rows: list[dict[str, Any]]) -> None:
        store.rows += [row | {"block_offset": 1} for row in rows]
        raise InsertFailed(None, "the connection broke")

    store.faults = [counted_on]
    with pytest.raises(NotOwner):
        await partition.count(0, NOW, block("a"))
    assert (len(store.inserted), claimed(partition)) == (1, -1)


def test_claims_that_are_ahead_of_the_store_are_forgotten(store: FakeStore, tmp_path: Path) -> None:
    """The store came back as an older copy: what was decided since is decided again."""
    with owned(tmp_path, store, store) as partition:
        assert partition._claims is not None
        partition._claims.write(0, NOW, Claims.of([(b"0" * 16, claim(0))]))
    with owned(tmp_path, store, store) as partition:
        assert partition._claims is not None
        found = partition._claims.look_up(Keys.of(b"0" * 16), NOW)
        assert (claimed(partition), found_in(found)) == (-1, [None])


async def test_what_no_packer_wrote_is_a_dead_letter_and_counting_goes_on(
    partition: Partition, store: FakeStore
) -> None:
    assert dict(await partition.count(0, NOW, b"rubbish")) == {"dead_letter": 1}
    assert dict(await partition.count(1, NOW, block("a"))) == {"counted": 1}
    letter = store.rows[0]
    assert (letter["log_topic"], letter["log_offset"], letter["properties"]) == (
        "event-blocks", 0, b"rubbish",
    )  # fmt: skip
