"""The store on a real engine: fence, read-back of half-landed blocks, claims."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import InsertFailed, Inserts, connect
from clickhouse.migrator import apply, read_migrations
from stream_workers.claim_store import ClaimStore
from stream_workers.store import Store, StoreBehind
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


@pytest.fixture(scope="module")
def url(clickhouse_url: str) -> Iterator[str]:
    """A migrated database of the run's ClickHouse."""
    database = f"workers_{uuid4().hex}"
    client = connect(clickhouse_url, database="")
    apply(client, database, read_migrations())
    yield f"{clickhouse_url.rpartition('/')[0]}/{database}"
    client.command(f"DROP DATABASE {database} SYNC")
    client.close()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = connect(url)
    for table in ("events", "usage_states"):
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()


@pytest.fixture
def store(client: Client) -> Store:
    return Store(client, 0)


@pytest.fixture
async def inserts(url: str) -> AsyncIterator[Inserts]:
    inserts = Inserts(url)
    yield inserts
    await inserts.close()


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
    keys = list(counter.claims)
    assert list(claims.look_up(keys, NOW)) == [counter.claims[key] for key in keys]
    assert len(keys) == 4
    claims.close()
