"""What is stored is checked against itself on a real engine: damage shows, and heals."""

import threading
import time
from collections.abc import Callable

import pyarrow as pa
import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import connect
from schemas.block import Block
from schemas.position import position
from stream_workers.store import HOLD, Store
from tests.stream_workers.test_folding import block_of, block_of_resent
from tests.stream_workers.worlds import (
    HORIZON_MS,
    NOW,
    Counted,
    make_catalog,
    make_event,
    make_feature,
)
from tests.verification.conftest import BLOCKS, KINDS, count
from verification.ledger import flaws
from verification.once import repeated
from verification.repair import Unrepairable, repair
from verification.states import Scope, differences, sample

pytestmark = pytest.mark.clickhouse
ALL = Scope(1, 0)
KEY = "account, feature_id, external_customer_id, span, group_key"
Damage = Callable[[Client], object]


def run(*statements: str) -> Damage:
    def damage(client: Client) -> None:
        for text in statements:
            client.command(
                text.replace("KEY", KEY),
                settings={"mutations_sync": 2, "insert_deduplicate": 0},
            )

    return damage


def added(column: str, value: str, kind: str) -> Damage:
    """One more row of states, with something in one column, for a key that is there."""
    statement = (
        "INSERT INTO usage_states (KEY, COLUMN) SELECT KEY, VALUE FROM usage_states"
        " WHERE feature_id = 'feat_KIND' LIMIT 1"
    )
    for place, text in (("COLUMN", column), ("VALUE", value), ("KIND", kind)):
        statement = statement.replace(place, text)
    return run(statement)


DAMAGES: dict[str, Damage] = {
    "a state is lost": run("DELETE FROM usage_states WHERE feature_id = 'feat_SUM'"),
    "a state is there twice": run(
        "INSERT INTO usage_states SELECT * FROM usage_states"
        " WHERE feature_id = 'feat_COUNT' LIMIT 1"
    ),
    "a state of nothing": run(
        "INSERT INTO usage_states (KEY, event_count)"
        " VALUES ('acme', 'feat_SUM', 'nobody', '2025-01-01 00:00:00', '', 1)"
    ),
    "a sum": added("value_sum", "toDecimal256('0.000000000000000001', 18)", "SUM"),
    "a sum by time": added("value_time_sum", "toDecimal256(1, 18)", "WEIGHTED_SUM"),
    "a maximum": added("value_max", "toDecimal128(1000, 18)", "MAX"),
    "a latest": added(
        "latest", "(now64(3), now64(3), 0, 0, 0, false, toDecimal128(1, 18), '')", "LATEST"
    ),
    "a distinct value": run(
        "INSERT INTO usage_states (KEY, uniques) SELECT KEY, arrayReduce('uniqExactState',"
        " [toNullable('never sent')]) FROM usage_states WHERE feature_id = 'feat_COUNT_UNIQUE'"
        " LIMIT 1"
    ),
}


def test_what_is_whole_is_found_whole(client: Client) -> None:
    assert differences(client, ALL) == []
    assert flaws(client) == []
    assert repeated(client, 1, 0, HORIZON_MS) == []
    stored = client.query("SELECT uniqExact(feature_id) FROM usage_states").result_rows
    assert stored == [(len(KINDS) + 1,)]  # markers have an empty one


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_to_the_states_shows_and_is_repaired(client: Client, name: str) -> None:
    DAMAGES[name](client)
    found = differences(client, ALL)
    assert found
    assert flaws(client) == []
    repair(client, found, [])
    assert differences(client, ALL) == []


def test_a_set_of_values_that_is_another_of_the_same_size_shows(client: Client) -> None:
    run(
        "DELETE FROM usage_states WHERE feature_id = 'feat_COUNT_UNIQUE'",
        "INSERT INTO usage_states (KEY, event_count, uniques) SELECT KEY, count(),"
        " uniqExactState(toNullable(if(text = least, 'never sent', text))) FROM"
        " (SELECT account, feature_id, external_customer_id, toStartOfHour(timestamp) AS span,"
        " group_key, text, min(text) OVER (PARTITION BY external_customer_id, span) AS least"
        " FROM events WHERE feature_id = 'feat_COUNT_UNIQUE' AND verdict = 'counted')"
        " GROUP BY KEY",
    )(client)
    found = differences(client, ALL)
    assert found
    assert all(each.stored == each.made for each in found)


def test_shards_find_together_what_one_finds_and_a_sample_is_a_part(client: Client) -> None:
    run("DELETE FROM usage_states WHERE feature_id = 'feat_SUM'")(client)
    whole = differences(client, ALL)
    parts = [differences(client, Scope(3, shard)) for shard in range(3)]
    assert sorted(each for part in parts for each in part) == sorted(whole)
    assert 0 < len(sample(client, 2).customers) <= 2
    assert differences(client, sample(client, 100)) == whole


def test_blocks_that_are_stored_meanwhile_are_no_difference(client: Client, store_url: str) -> None:
    run("DELETE FROM usage_states WHERE feature_id = 'feat_MAX'")(client)
    counter = Counted(
        make_catalog(*(make_feature(kind, "v", event_name=kind) for kind in KINDS)), 7
    )
    stop = threading.Event()

    def work() -> None:
        mine = connect(store_url)
        while not stop.is_set():
            count(mine, counter, 1)
        mine.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        looks = [differences(client, ALL) for _ in range(12)]
    finally:
        stop.set()
        thread.join()
    assert counter.next_offset > 3
    assert all(looks)
    assert {each.key.feature_id for look in looks for each in look} == {"feat_MAX"}
    assert flaws(client) == []


def test_the_ledger_tells_a_block_that_is_missing(client: Client) -> None:
    run("DELETE FROM events WHERE block_partition = 1 AND block_offset = 2")(client)
    [hole, *rows] = flaws(client)
    assert (hole.kind, hole.block_partition) == ("blocks_missing", 1)
    assert hole.detail == "blocks 2 to 2 are not stored"
    assert {flaw.kind for flaw in rows} == {"rows_differ"}
    with pytest.raises(Unrepairable, match="blocks 2 to 2"):
        repair(client, differences(client, ALL), flaws(client))


def test_the_ledger_tells_a_row_that_is_missing_and_in_which_block(client: Client) -> None:
    run("DELETE FROM events WHERE block_partition = 0 AND block_offset = 1 AND block_index = 3")(
        client
    )
    told, block = flaws(client)
    assert "its marker says" in told.detail
    assert block.detail.startswith("block 1 has ")
    with pytest.raises(Unrepairable, match="rows are missing or too many"):
        repair(client, [], flaws(client))


def test_the_ledger_tells_a_block_that_is_stored_twice(client: Client) -> None:
    run("INSERT INTO events SELECT * FROM events WHERE block_partition = 0 AND block_offset = 0")(
        client
    )
    assert {"block_twice", "rows_differ"} == {flaw.kind for flaw in flaws(client)}
    again = repeated(client, 2, 0, HORIZON_MS) + repeated(client, 2, 1, HORIZON_MS)
    counted = client.query(
        "SELECT uniqExact(event_id) FROM events WHERE block_partition = 0 AND block_offset = 0"
        " AND verdict = 'counted'"
    ).result_rows[0][0]
    assert (len(again), again[0].times) == (counted, 2)


def test_an_id_may_count_again_after_the_horizon(client: Client) -> None:
    run(
        "ALTER TABLE events DROP CONSTRAINT owner_is_current",
        "INSERT INTO events SELECT * REPLACE (block_time + toIntervalMillisecond(HORIZON)"
        " AS block_time, log_offset + 1000 AS log_offset) FROM events"
        " WHERE verdict = 'counted' LIMIT 1".replace("HORIZON", str(HORIZON_MS)),
    )(client)
    assert repeated(client, 1, 0, HORIZON_MS) == []
    assert len(repeated(client, 1, 0, HORIZON_MS + 1)) == 1


def test_what_is_sent_again_is_as_old_as_the_row_that_it_supersedes(client: Client) -> None:
    """Two events of one id, each long after the other, whose feature came after both."""
    client.command("TRUNCATE TABLE events")
    counter = Counted(make_catalog(make_feature(), since=2))
    owner = Store(client, 0).acquire(0)

    def store(block: Block, time: int) -> None:
        rows = counter.fold(block, time, owner).rows
        client.insert_arrow("events", pa.Table.from_batches([rows]))

    for number in range(2):
        late = block_of(make_event("a"), offset=number)
        store(late, NOW + number * (HORIZON_MS + 1))
    for number, row in enumerate(counter.events()):
        store(block_of_resent(row, offset=number, version=2), NOW + 2 * HORIZON_MS)
    assert counter.verdicts()[2:] == ["counted"] * 2
    assert repeated(client, 1, 0, HORIZON_MS) == []
    [again] = repeated(client, 1, 0, HORIZON_MS + 2)
    assert (again.event_id, again.times, again.customers) == ("a", 2, ["cust"])


def test_the_ledger_tells_what_was_never_taken_from_a_source(client: Client) -> None:
    counter = Counted(
        make_catalog(*(make_feature(kind, "v", event_name=kind) for kind in KINDS)), 3
    )
    count(client, counter, 2)
    assert flaws(client) == []
    [log] = counter.coverage
    counter.coverage = {log: ((position(5), position(6)),)}
    count(client, counter, 1)
    assert [flaw.kind for flaw in flaws(client)] == ["source_gap"]


def test_while_it_is_repaired_no_counter_takes_a_partition_over(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_workers.store.HELD_POLL_S", 0.01)
    store = Store(client, 0)
    held = store.hold(0)
    taken = threading.Event()

    def take() -> None:
        store.acquire(0)
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.2)
    store.release(0, held)
    assert taken.wait(5)
    thread.join()
    assert store.progress(0).offset == BLOCKS - 1


def test_a_repair_that_died_or_whose_clock_is_fast_keeps_nobody_away_for_long(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_workers.store.HOLD_S", 0.3)
    store = Store(client, 0)
    store.hold(0)
    started = time.monotonic()
    store.acquire(0)
    assert 0.2 <= time.monotonic() - started < 5
    an_hour_ahead = int((time.time() + 3600) * 1000) << 20 | HOLD
    client.insert("owners", [[0, an_hour_ahead]], column_names=["slot", "owner"])
    started = time.monotonic()
    store.acquire(0)
    assert 0.2 <= time.monotonic() - started < 5
