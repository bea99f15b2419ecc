"""The store on a real engine: fence, read-back of half-landed blocks, claims."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import InsertFailed, Inserts
from stream_workers import store as module
from stream_workers.claim_store import ClaimStore
from stream_workers.claims import Keys, listed
from stream_workers.store import IDS, Store, StoreBehind
from tests.stream_workers.test_folding import block_of, block_of_resent
from tests.stream_workers.worlds import (
    HORIZON_MS,
    NOW,
    Counted,
    make_catalog,
    make_event,
    make_feature,
)

pytestmark = pytest.mark.clickhouse
STATES = (
    "SELECT feature_id, external_customer_id, sum(event_count), sum(value_sum), max(upto)"
    " FROM usage_states GROUP BY feature_id, external_customer_id ORDER BY 1, 2"
)


@pytest.fixture
def store(client: Client) -> Store:
    return Store(client, 0)


def stream(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue().to_pybytes())


async def put(inserts: Inserts, rows: pa.RecordBatch) -> None:
    await inserts.insert("events", stream(rows), token=uuid4().hex, query_id=uuid4().hex)


def blocks(count: int, owner: int) -> list[pa.RecordBatch]:
    """The rows of some blocks of three events each, with a duplicate and a dead letter."""
    counter = Counted(make_catalog(make_feature("SUM", "v")))
    return [
        counter.fold(
            block_of(
                make_event(f"id{offset}", properties={"v": 1.5}),
                make_event(f"more{offset}", properties={"v": 2}),
                make_event("again", properties={"v": 100}),
                {"event_name": ""},
                offset=offset,
            ),
            owner=owner,
        ).rows
        for offset in range(count)
    ]


async def test_a_new_owner_shuts_the_old_one_out(store: Store, inserts: Inserts) -> None:
    old = store.acquire(0)
    first, second = blocks(2, old)
    await put(inserts, first)
    new = store.acquire(0)
    assert new > old
    with pytest.raises(InsertFailed) as refused:
        await put(inserts, second)
    assert refused.value.code == 469
    assert store.progress(0).offset == 0
    await put(inserts, blocks(2, new)[1])
    assert (store.progress(0).offset, store.states_upto(0)) == (1, 1)


async def test_of_two_owners_at_once_only_the_one_noted_last_may_write(
    client: Client, store: Store, inserts: Inserts
) -> None:
    """One was stopped between choosing its number and noting it; its successor's is greater."""
    successor = store.acquire(0)
    first, second = blocks(2, successor)
    await put(inserts, first)
    zombie = successor - 1
    client.insert("owners", [[0, zombie]], column_names=["slot", "owner"])
    with pytest.raises(InsertFailed) as refused:
        await put(inserts, second)
    assert refused.value.code == 469
    await put(inserts, blocks(2, zombie)[1])
    assert (store.progress(0).offset, store.states_upto(0)) == (1, 1)


def test_owners_that_choose_at_once_choose_different_numbers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the last number is ahead of the clock, and all ones where theirs is random."""
    last = (int(time.time() * 1000) + 5000 << 20) + (1 << 20) - 1
    chosen: list[int] = []
    monkeypatch.setattr(store, "_owner_of", lambda _: last)
    monkeypatch.setattr(store, "_set_owner", lambda _, owner: chosen.append(owner))
    for _ in range(8):
        store.acquire(0)
    assert len(set(chosen)) == 8 and min(chosen) > last


async def test_the_owner_of_another_partition_is_not_concerned(
    store: Store, inserts: Inserts
) -> None:
    old = store.acquire(0)
    store.acquire(1)
    await put(inserts, blocks(1, old)[0])
    assert store.progress(0).offset == 0


async def test_blocks_that_landed_in_events_alone_are_filled_into_the_states(
    client: Client, store: Store, inserts: Inserts
) -> None:
    owner = store.acquire(0)
    rows = blocks(4, owner)
    for each in rows:
        await put(inserts, each)
    whole = client.query(STATES).result_rows
    client.command("TRUNCATE TABLE events")
    client.command("TRUNCATE TABLE usage_states")
    await put(inserts, rows[0])
    client.command("DETACH TABLE usage_states_mv")
    try:
        for each in rows[1:]:
            await put(inserts, each)
    finally:
        client.command("ATTACH TABLE usage_states_mv")
    assert (store.progress(0).offset, store.states_upto(0)) == (3, 0)
    successor = store.acquire(0)
    assert store.mend(0, successor).offset == 3
    assert store.states_upto(0) == 3
    assert client.query(STATES).result_rows == whole
    assert store.mend(0, successor).offset == 3  # nothing is left to do
    assert client.query(STATES).result_rows == whole


async def test_the_next_owner_waits_for_a_filling_as_for_an_insert(
    client: Client, store: Store, inserts: Inserts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows them by the beginnings of their query ids."""
    owner = store.acquire(0)
    client.command("DETACH TABLE usage_states_mv")
    try:
        await put(inserts, blocks(1, owner)[0])
    finally:
        client.command("ATTACH TABLE usage_states_mv")
    seen: list[int] = []
    real = client.command

    def slowly(sql: str, **options: Any) -> Any:
        stretched = sql.replace("WHERE verdict IN", "WHERE sleepEachRow(0.2) = 0 AND verdict IN")
        assert stretched != sql
        with ThreadPoolExecutor(1) as thread:
            filling = thread.submit(real, stretched, **options)
            while not filling.done():
                seen.append(store._is_inserting(0))
                time.sleep(0.02)
            return filling.result()

    monkeypatch.setattr(client, "command", slowly)
    store.mend(0, owner)
    assert any(seen) and not store._is_inserting(0)
    assert store.states_upto(0) == 0


async def test_a_zombie_cannot_fill_states(client: Client, store: Store, inserts: Inserts) -> None:
    old = store.acquire(0)
    client.command("DETACH TABLE usage_states_mv")
    try:
        await put(inserts, blocks(1, old)[0])
    finally:
        client.command("ATTACH TABLE usage_states_mv")
    store.acquire(0)
    with pytest.raises(Exception, match="owner_is_current"):
        store.mend(0, old)
    assert store.states_upto(0) == -1


async def test_states_ahead_of_events_are_an_operators_business(
    client: Client, store: Store, inserts: Inserts
) -> None:
    await put(inserts, blocks(1, store.acquire(0))[0])
    client.command("TRUNCATE TABLE events")
    with pytest.raises(StoreBehind, match="states reach 0"):
        store.mend(0, store.acquire(0))


async def test_claims_read_back_are_what_the_packer_and_the_counter_made(
    store: Store, inserts: Inserts, tmp_path: Path
) -> None:
    """Keys and contents are computed twice, in Python and in SQL: of any text and time."""
    counter = Counted(make_catalog(make_feature("SUM", "v"), since=2))
    owner = store.acquire(0)
    odd: list[dict[str, Any]] = [
        make_event("a", properties={"v": 1}),
        make_event("é\u2028\t'\\", source="ü", timestamp="2025-01-01T00:00:00.123Z"),
        make_event("b", external_customer_id="ключ", event_name="other"),
        make_event("t", timestamp="1970-01-01T00:00:00Z", properties={}),
        make_event("a", properties={"v": 2}),
    ]
    await put(inserts, counter.fold(block_of(*odd), owner=owner).rows)
    late = counter.events()[0]
    resent = block_of_resent(late, version=2)
    await put(inserts, counter.fold(resent, NOW + 5, owner=owner).rows)
    assert store.progress(0).time == NOW + 5
    claims = ClaimStore(tmp_path / "claims", identity="x", horizon_ms=HORIZON_MS)
    for chunk in store.claims(0, -1, 1, NOW - HORIZON_MS):
        claims.add(chunk)
    found = claims.look_up(Keys.of(b"".join(counter.claims)), NOW)
    assert listed(found) == list(counter.claims.values())
    assert len(found) == 5  # those of four ids, and that of the row that is superseded
    claims.close()
    asked = ids(*((row["account"], row["event_id"]) for row in counter.events()))
    of_ids = store.claims_of(asked, 0, -1, 1, NOW - HORIZON_MS).latest()
    assert dict(of_ids.pairs()) == counter.claims


def ids(*pairs: tuple[str, str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"account": account, "event_id": event_id} for account, event_id in pairs], schema=IDS
    )


async def test_claims_are_looked_up_between_two_offsets_since_a_time_and_by_account(
    store: Store, inserts: Inserts
) -> None:
    for rows in blocks(4, store.acquire(0)):
        await put(inserts, rows)
    asked = ids(*(("acme", f"id{n}") for n in range(4)))

    def found(after: int, upto: int, since: int) -> list[int]:
        claims = store.claims_of(asked, 0, after, upto, since).latest().table
        return sorted(claim.point.offset for claim in listed(claims))

    assert found(-1, 3, NOW) == [0, 1, 2, 3]
    assert found(0, 2, NOW) == [1, 2]
    assert found(-1, 3, NOW + 1) == []
    assert len(store.claims_of(ids(("acme", "absent")), 0, -1, 3, NOW)) == 0
    assert len(store.claims_of(ids(("other", "id0")), 0, -1, 3, NOW)) == 0
    assert len(store.claims_of(asked, 1, -1, 3, NOW)) == 0


async def test_forty_thousand_ids_are_looked_up_at_once(store: Store, inserts: Inserts) -> None:
    """The largest block; each id as long as it may be."""
    for rows in blocks(2, store.acquire(0)):
        await put(inserts, rows)
    asked = ids(*(("acme", f"{n:0255d}") for n in range(40_000)), ("acme", "again"))
    [claim] = listed(store.claims_of(asked, 0, -1, 1, NOW).latest().table)
    assert claim.point == (0, 0, 2)


async def test_a_page_of_claims_ends_with_the_block_that_fills_it(
    store: Store, inserts: Inserts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rows in blocks(4, store.acquire(0)):  # claims: 3, 2, 2, 2
        await put(inserts, rows)
    ends = []
    for rows in (1, 3, 4, 8, 9):
        monkeypatch.setattr(module, "PAGE_ROWS", rows)
        ends.append((store.page_end(0, -1, 3, NOW), store.page_end(0, 1, 3, NOW)))
    assert ends == [(0, 2), (1, 3), (1, 3), (3, 3), (3, 3)]
