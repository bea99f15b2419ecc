"""Lost claims are read back while their partition counts, and nobody can tell from the rows."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import OperationalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from clickhouse.client import Inserts
from schemas.block import Block, encode
from stream_workers import partition as partition_module
from stream_workers import store as store_module
from stream_workers.claim_store import ClaimStore
from stream_workers.claims import Claims, Keys, is_there, listed, no_claims
from stream_workers.partition import Partition
from stream_workers.refill import ClaimsFailed, Refill
from stream_workers.store import Store
from tests.stream_workers.test_folding import block_of, block_of_resent
from tests.stream_workers.test_partition import FakeStore, claimed, owned
from tests.stream_workers.worlds import (
    HORIZON_MS,
    NOW,
    Counted,
    Row,
    found_in,
    make_catalog,
    make_event,
    make_feature,
)

CATALOG = make_catalog(make_feature())
ALL = 1_000_000


class Gate:
    """Lets so many chunks of claims through; it opens wholly in the end."""

    def __init__(self) -> None:
        self.permits = Semaphore(0)

    def through(self, chunks: Iterator[Any]) -> Iterator[Any]:
        for chunk in chunks:
            self.permits.acquire()
            yield chunk


class SlowFake(Gate, FakeStore):
    """Rows of a fake store, whose claims come when they are let."""

    def __init__(self, store: FakeStore) -> None:
        Gate.__init__(self)
        FakeStore.__init__(self)
        self.rows, self.owner = store.rows, store.owner

    def claims(self, *span: int) -> Iterator[Any]:
        yield from self.through(super().claims(*span))


class SlowStore(Gate, Store):
    """The store, whose claims come one by one when they are let."""

    def __init__(self, client: Client) -> None:
        Gate.__init__(self)
        Store.__init__(self, client, 0)

    def claims(self, *span: int) -> Iterator[Any]:  # type: ignore[override]
        chunks = super().claims(*span)
        yield from self.through(
            chunk.take(np.array([row])) for chunk in chunks for row in range(len(chunk))
        )


@contextmanager
def refilling(folder: Path, store: Any, inserts: Any) -> Iterator[Partition]:
    """A worker that has taken the partition over, and reads claims back when it is let."""
    with owned(folder, store, inserts) as partition:
        try:
            yield partition
        finally:
            partition.close()
            store.permits.release(ALL)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 - in another thread
            await asyncio.sleep(0.001)


async def refill_ends(partition: Partition, store: Gate) -> None:
    store.permits.release(ALL)
    await until(lambda: _refill(partition).done)


def _refill(partition: Partition) -> Refill:
    assert partition._refill is not None
    return partition._refill


def block(*ids: str, offset: int) -> Block:
    return block_of(*map(make_event, ids), offset=offset)


async def count(partition: Partition, made: Block) -> dict[str, int]:
    return dict(await partition.count(partition.next_offset, NOW, encode(made)))


def metric(name: str) -> float:
    value = REGISTRY.get_sample_value(name)
    assert value is not None
    return value


def decided(rows: list[Row]) -> list[tuple[Any, ...]]:
    """What the claims had a say in."""
    names = ("block_offset", "block_index", "event_id", "verdict", "first_offset", "first_index")
    return sorted(tuple(row[name] for name in names) for row in rows)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    monkeypatch.setattr(partition_module, "RETRY_S", (0.0,))
    return FakeStore()


async def stored(folder: Path, store: Any, inserts: Any, blocks: list[Block]) -> None:
    """Count blocks on a worker whose disk is then lost."""
    with owned(folder, store, inserts) as partition:
        for each in blocks:
            await count(partition, each)
    shutil.rmtree(folder / "claims")


async def test_a_partition_counts_at_once_and_knows_ids_that_are_not_read_back_yet(
    store: FakeStore, tmp_path: Path
) -> None:
    await stored(tmp_path, store, store, [block("a", "b", offset=0), block("c", offset=1)])
    slow = SlowFake(store)
    read_back, waiting = (
        metric("counter_claims_read_back_total"), metric("counter_refilling_partitions"),
    )  # fmt: skip
    with refilling(tmp_path, slow, slow) as partition:
        tally = await count(partition, block("b", "new", "c", offset=2))
        assert tally == {"duplicate": 2, "counted": 1}
        assert await count(partition, block("new", "a", offset=3)) == {"duplicate": 2}
        assert (claimed(partition), partition.next_offset) == (-1, 4)
        assert metric("counter_refilling_partitions") == waiting + 1
        await refill_ends(partition, slow)
        assert claimed(partition) == 3
        assert metric("counter_refilling_partitions") == waiting
        assert metric("counter_claims_read_back_total") == read_back + 3
        assert await count(partition, block("new", "a", "d", offset=4)) == {
            "duplicate": 2, "counted": 1,
        }  # fmt: skip
        assert claimed(partition) == 4


async def test_who_dies_while_reading_back_goes_on_reading(
    store: FakeStore, tmp_path: Path
) -> None:
    """Blocks counted meanwhile are on disk; that doesn't make the older ones complete."""
    await stored(tmp_path, store, store, [block(f"id{n}", offset=n) for n in range(6)])
    slow = SlowFake(store)
    with refilling(tmp_path, slow, slow) as partition:
        slow.permits.release(3)  # a page of two blocks, and half of the next
        await until(lambda: claimed(partition) == 1)
        assert await count(partition, block("new", "id5", offset=6)) == {
            "counted": 1, "duplicate": 1,
        }  # fmt: skip
    for again in range(2):
        slow = SlowFake(store)
        with refilling(tmp_path, slow, slow) as partition:
            assert claimed(partition) == 1
            ids = [f"id{n}" for n in range(6)]
            tally = await count(partition, block("new", *ids, offset=7 + again))
            assert tally == {"duplicate": 7}


async def test_what_was_sent_again_meanwhile_is_known(store: FakeStore, tmp_path: Path) -> None:
    """A re-sent event claims its row; a second one for the same row leaves no trace."""
    await stored(tmp_path, store, store, [block("a", "b", offset=0)])
    resent = block_of_resent(store.rows[0], offset=0)
    once_more = block_of_resent(store.rows[0], offset=1)
    slow = SlowFake(store)
    with refilling(tmp_path, slow, slow) as partition:
        assert await count(partition, resent) == {"counted": 1}
        await refill_ends(partition, slow)
        assert await count(partition, once_more) == {}
        assert await count(partition, block("a", offset=1)) == {"duplicate": 1}
        assert store.rows[-2]["first_offset"] == 0


async def test_what_a_stale_disk_has_may_have_been_sent_again_elsewhere(
    store: FakeStore, tmp_path: Path
) -> None:
    """The row is on disk, and yet the store has to be asked whether it is superseded."""
    with owned(tmp_path, store, store) as partition:
        await count(partition, block("a", "b", offset=0))
    resent = block_of_resent(store.rows[0], offset=0)
    once_more = block_of_resent(store.rows[0], offset=1)
    with owned(tmp_path / "other", store, store) as partition:
        assert await count(partition, resent) == {"counted": 1}
    slow = SlowFake(store)
    with refilling(tmp_path, slow, slow) as partition:
        assert await count(partition, once_more) == {}
        await refill_ends(partition, slow)
        assert await count(partition, block_of_resent(store.rows[0], offset=2)) == {}


async def test_without_an_answer_nothing_is_decided(store: FakeStore, tmp_path: Path) -> None:
    await stored(tmp_path, store, store, [block("a", offset=0)])
    slow = SlowFake(store)
    asked = 0

    def away(*_: Any) -> Claims:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise OperationalError("the store is away")
        return SlowFake.claims_of(slow, *_)

    slow.claims_of = away  # type: ignore[method-assign, assignment]
    with refilling(tmp_path, slow, slow) as partition:
        assert await count(partition, block("a", offset=1)) == {"duplicate": 1}
        assert asked == 3


async def test_a_page_that_breaks_off_is_read_again(
    store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_workers.refill.RETRY_S", 0.0)
    await stored(tmp_path, store, store, [block("a", "b", offset=0)])
    slow = SlowFake(store)
    faults: list[Exception] = [pa.ArrowInvalid("cut short"), OperationalError("away")]

    def breaks_off(*span: int) -> Iterator[Any]:
        for chunk in SlowFake.claims(slow, *span):
            yield chunk
            if faults:
                raise faults.pop()

    slow.claims = breaks_off  # type: ignore[method-assign]
    with refilling(tmp_path, slow, slow) as partition:
        await refill_ends(partition, slow)
        assert not faults
        assert await count(partition, block("a", "b", "c", offset=1)) == {
            "duplicate": 2, "counted": 1,
        }  # fmt: skip


async def test_a_fault_of_the_disk_ends_counting(
    store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no silence of the store's: what was half written must not be written on."""
    await stored(tmp_path, store, store, [block("a", offset=0)])
    slow = SlowFake(store)
    slow.permits.release(ALL)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ClaimStore, "add", full)
    with (
        refilling(tmp_path, slow, slow) as partition,
        pytest.raises(ClaimsFailed, match="No space left"),
    ):
        for _ in range(1000):
            await count(partition, block("b", offset=1))


async def test_another_fault_ends_counting(store: FakeStore, tmp_path: Path) -> None:
    await stored(tmp_path, store, store, [block("a", offset=0)])
    slow = SlowFake(store)

    def broken(*_: int) -> int:
        raise ZeroDivisionError

    slow.page_end = broken  # type: ignore[method-assign, assignment]
    with refilling(tmp_path, slow, slow) as partition, pytest.raises(ZeroDivisionError):
        for _ in range(1000):
            await count(partition, block("b", offset=1))


async def test_a_partition_is_let_go_in_the_middle_and_nothing_touches_its_claims_any_more(
    store: FakeStore, tmp_path: Path
) -> None:
    await stored(tmp_path, store, store, [block(f"id{n}", offset=n) for n in range(3)])
    slow = SlowFake(store)
    with refilling(tmp_path, slow, slow) as partition:
        refill, started = _refill(partition), time.monotonic()
        partition.close()
        assert time.monotonic() - started < 5
        assert not refill._reading.done()  # it waits for claims, and finds out when they come
        folder = tmp_path / "claims" / "0" / "0-0"
        claims = ClaimStore(folder, identity="fake", horizon_ms=HORIZON_MS)
        slow.permits.release(ALL)
        refill._reading.result(10)
        found = found_in(claims.look_up(Keys.of(b"0" * 16), NOW))
        assert (claims.reached, found) == (-1, [None])
        claims.close()


async def test_a_partition_that_waits_for_its_turn_to_read_is_let_go_too(
    store: FakeStore, tmp_path: Path
) -> None:
    waiting = metric("counter_refilling_partitions")
    slow = SlowFake(store)
    claims = ClaimStore(tmp_path / "claims", identity="fake", horizon_ms=HORIZON_MS)
    any_store: Any = slow
    with ThreadPoolExecutor(1) as core, ThreadPoolExecutor(1) as refills:
        refills.submit(slow.permits.acquire)
        refill = Refill(0, claims, 5, 0, any_store, core)
        refill.start(refills)
        assert metric("counter_refilling_partitions") == waiting + 1
        refill.stop()
        assert metric("counter_refilling_partitions") == waiting
        slow.permits.release()
    claims.close()


def draw_block(data: st.DataObject, oracle: Counted) -> Callable[[], Block]:
    """A block of few ids, so that many come back; or of stored events that are sent again."""
    offset = oracle.next_offset
    accepted = [row for row in oracle.events() if row["verdict"] == "counted"]
    if accepted and data.draw(st.integers(0, 3), "resent") == 0:
        some = data.draw(st.lists(st.sampled_from(accepted), min_size=1, max_size=3))
        return lambda: block_of_resent(*some, offset=offset)
    numbers = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4), "ids")
    return lambda: block(*(f"id{number}" for number in numbers), offset=offset)


@settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_workers_with_lost_stale_and_half_read_claims_decide_as_one_that_never_lost_any(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    oracle, store = Counted(CATALOG), FakeStore()
    folders = [tmp_path_factory.mktemp("worker") for _ in range(2)]
    for _ in range(data.draw(st.integers(1, 7), "owners")):
        folder = data.draw(st.sampled_from(folders), "folder")
        if data.draw(st.integers(0, 3), "lost") == 0:
            shutil.rmtree(folder / "claims", ignore_errors=True)
        slow = SlowFake(store)
        with refilling(folder, slow, slow) as partition:
            for _ in range(data.draw(st.integers(0, 4), "blocks")):
                slow.permits.release(data.draw(st.integers(1, 6), "chunks"))
                if data.draw(st.booleans(), "wait"):
                    await asyncio.sleep(0.005)
                made = draw_block(data, oracle)()
                oracle.fold(made, NOW)
                await count(partition, made)
        store.owner = slow.owner
    assert decided(store.rows) == decided(oracle.rows)
    for folder in folders:
        check_disk(folder, store)


def check_disk(folder: Path, store: FakeStore) -> None:
    """What the claims on disk say they have, they have."""
    if not (folder / "claims" / "0" / "0-0").exists():
        return
    claims = ClaimStore(folder / "claims/0/0-0", identity="fake", horizon_ms=HORIZON_MS)
    stored = Claims.joined([no_claims(), *FakeStore.claims(store, 0, -1, claims.reached, 0)])
    assert is_there(claims.look_up(stored.keys, NOW)).all()
    claims.close()


@pytest.mark.clickhouse
async def test_with_all_claims_lost_a_block_is_counted_before_they_are_read_back(
    client: Client, inserts: Inserts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real engine, in pages: duplicates of old and new ids, re-sent events, a second death."""
    monkeypatch.setattr(store_module, "PAGE_ROWS", 500)
    oracle = Counted(CATALOG)
    old = [block(*(f"id{n}-{k}" for k in range(200)), "again", offset=n) for n in range(10)]
    for each in old:
        oracle.fold(each, NOW)
    await stored(tmp_path, Store(client, 0), inserts, old)

    resent = [row for row in oracle.rows if row["event_id"] in ("id2-7", "id8-7")]
    later = [
        block(*(f"id{n}-{n}" for n in range(10)), "again", "new", offset=10),
        block_of_resent(*resent, offset=0),
        block("new", "id2-7", "id9-1", "newer", offset=11),
        block_of_resent(*resent, offset=1),
        block("newer", "id0-0", "id8-7", "newest", offset=12),
    ]
    for each in later:
        oracle.fold(each, NOW)
    slow = SlowStore(client)
    with refilling(tmp_path, slow, inserts) as partition:
        assert await count(partition, later[0]) == {"duplicate": 11, "counted": 1}
        assert claimed(partition) == -1
        slow.permits.release(800)
        await until(lambda: claimed(partition) >= 0)
        await count(partition, later[1])
        await count(partition, later[2])
        assert claimed(partition) == 2
    slow = SlowStore(client)
    with refilling(tmp_path, slow, inserts) as partition:
        assert claimed(partition) == 2
        await count(partition, later[3])
        await refill_ends(partition, slow)
        assert claimed(partition) == 13
        await count(partition, later[4])
    rows = list(client.query("SELECT * FROM events").named_results())
    assert decided(rows) == decided(oracle.rows)
    disk = ClaimStore(tmp_path / "claims/0/0-0", identity=slow.identity, horizon_ms=HORIZON_MS)
    found = disk.look_up(Keys.of(b"".join(oracle.claims)), NOW)
    assert listed(found) == list(oracle.claims.values())
    disk.close()
