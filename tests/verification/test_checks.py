"""All the checks together, and mending: until nothing is found, and however long it takes."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import connect
from clickhouse.queries import query
from stream_workers.store import NotOwner, Store
from tests.stream_workers.worlds import HORIZON_MS
from tests.verification.conftest import BLOCKS
from verification import ledger, repair, states
from verification.checks import Checks, Found
from verification.ledger import flaws, flaws_of_markers
from verification.states import Scope, differences, sample

pytestmark = pytest.mark.clickhouse


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MENDED_S", 0.1)
    monkeypatch.setattr("stream_workers.store.HELD_POLL_S", 0.01)


@pytest.fixture
def checks(client: Client) -> Checks:
    return Checks(client, HORIZON_MS, 0, lambda scopes, _: scopes)


def no_markers(client: Client) -> None:
    client.command("DELETE FROM usage_states WHERE feature_id = ''")


def last_block_in_events_alone(client: Client) -> None:
    """As an engine leaves it that dies between the two tables of an INSERT."""
    client.command("TRUNCATE TABLE usage_states")
    store = Store(client, 0)
    for partition, upto in ((0, BLOCKS - 1), (1, BLOCKS - 2)):
        store.fill(partition, -1, upto, store.acquire(partition))


@pytest.mark.parametrize("damage", [no_markers, last_block_in_events_alone])
def test_blocks_that_the_states_lack_are_found_and_mended(
    client: Client, checks: Checks, damage: Callable[[Client], None]
) -> None:
    damage(client)
    found = checks.look()
    behind = {flaw.block_partition for flaw in found.ledger if flaw.kind == "states_behind"}
    assert behind == ({1} if damage is last_block_in_events_alone else {0, 1})
    assert found.ledger == flaws_of_markers(client)
    mended = checks.mend(found)
    assert mended.well and mended.repaired >= len(behind)
    assert mended.unrepaired is None


def test_an_insert_that_is_under_way_is_no_flaw(
    client: Client, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_block_in_events_alone(client)
    monkeypatch.setattr(ledger, "MENDED_S", 0.0)
    monkeypatch.setattr(ledger, "INSERTED_S", 20.0)
    store = Store(client, 0)
    insert = store.mark(1, "3-1")
    mine = connect(store_url)
    settings = {
        "query_id": insert,
        "max_block_size": 1,
        "function_sleep_max_microseconds_per_block": 0,
    }
    slow = threading.Thread(
        target=mine.query,
        args=("SELECT count() FROM numbers(3) WHERE NOT ignore(sleepEachRow(0.5))",),
        kwargs={"settings": settings},
    )
    slow.start()
    while not store._is_inserting(1):
        time.sleep(0.01)
    filling = threading.Timer(0.5, lambda: store.mend(1, store._owner_of(1)))
    filling.start()
    assert flaws(client) == []
    slow.join()
    filling.join()
    mine.close()


def test_states_of_blocks_that_are_not_stored_are_a_flaw_that_nothing_mends(
    client: Client, checks: Checks
) -> None:
    client.command(
        "DELETE FROM events WHERE block_partition = 0 AND block_offset = {last:UInt64}",
        {"last": BLOCKS - 1},
    )
    found = checks.look()
    assert [flaw.kind for flaw in found.ledger] == ["states_ahead"]
    assert found.states
    mended = checks.mend(found)
    assert mended == found._replace(unrepaired=mended.unrepaired)
    assert "which are not stored" in (mended.unrepaired or "")


def test_it_mends_until_a_look_finds_nothing(
    client: Client, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "ROWS_MAX", 40)
    client.command("DELETE FROM usage_states WHERE feature_id != ''")
    found = checks.look()
    assert len(found.states) == 40
    mended = checks.mend(found)
    assert mended.well and mended.repaired > 40


def test_what_differs_although_it_was_mended_is_said_once(
    client: Client, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.command("DELETE FROM usage_states WHERE feature_id = 'feat_SUM'")
    monkeypatch.setattr(repair, "_rebuild", lambda *_: None)
    found = checks.look()
    mended = checks.mend(found)
    assert mended.states == found.states
    assert mended.repaired == len(found.states)


def test_a_delete_that_takes_longer_than_a_hold_is_waited_for(
    client: Client, checks: Checks, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_workers.store.HOLD_S", 3.0)  # a slow machine gets so far in it
    client.command("DELETE FROM usage_states WHERE feature_id = 'feat_SUM'")
    found = checks.look()
    client.command("SYSTEM STOP MERGES usage_states")  # deletes with them
    mended: list[Found] = []
    mending = threading.Thread(target=lambda: mended.append(checks.mend(found)))
    mine = connect(store_url)
    owners: list[int] = []
    counter = threading.Thread(target=lambda: owners.append(Store(mine, 0).acquire(0)))
    try:
        mending.start()
        until(lambda: deleting(client) > 0)
        counter.start()
        time.sleep(7.5)
        assert (mended, owners) == ([], [])
    finally:
        client.command("SYSTEM START MERGES usage_states")
        mending.join()
        if counter.ident is not None:
            counter.join()
        mine.close()
    assert mended[0].well and mended[0].unrepaired is None
    assert Store(client, 0)._owner_of(0) == owners[0]


def test_a_repair_that_slept_through_its_hold_deletes_nothing(
    client: Client, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_workers.store.HOLD_S", 0.3)
    client.command("INSERT INTO usage_states SELECT * FROM usage_states WHERE feature_id != ''")
    found = checks.look()
    rebuild = repair._rebuild

    def late(*arguments: Any) -> None:
        time.sleep(0.4)
        rebuild(*arguments)

    monkeypatch.setattr(repair, "_rebuild", late)
    refused = checks.mend(found)
    assert "held for too long" in (refused.unrepaired or "")
    assert checks.look() == found


def test_each_partition_is_released_though_another_was_taken(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(client, 0)

    def take(*_: object) -> None:
        store._set_owner(1, 7)

    monkeypatch.setattr(repair, "_rebuild", take)
    client.command("DELETE FROM usage_states WHERE feature_id = 'feat_SUM'")
    with pytest.raises(NotOwner, match="block partition 1"):
        repair.repair(client, differences(client, Scope(1, 0)), [])
    started = time.monotonic()
    store.acquire(0)
    assert time.monotonic() - started < 5


def test_a_delete_that_the_engine_cannot_do_is_said(client: Client, checks: Checks) -> None:
    client.command("INSERT INTO usage_states SELECT * FROM usage_states WHERE feature_id != ''")
    found = checks.look()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repair, "query", broken)
        refused = checks.mend(found)
    assert "doesn't delete states" in (refused.unrepaired or "")
    client.command("KILL MUTATION WHERE table = 'usage_states'")
    assert checks.mend(found).well


def broken(name: str) -> str:
    """A condition that the engine accepts, and fails to compute."""
    return query(name) + (" AND throwIf(1) = 0" if name == "verify_keys" else "")


def test_customers_without_any_states_are_in_the_sample(client: Client) -> None:
    client.command("DELETE FROM usage_states WHERE feature_id != ''")
    chosen = sample(client, 100)
    assert len(chosen.customers) == 3
    assert len(differences(client, chosen)) == len(differences(client, Scope(1, 0)))


def deleting(client: Client) -> int:
    return int(
        client.query(
            "SELECT count() FROM system.mutations WHERE table = 'usage_states' AND NOT is_done"
        ).result_rows[0][0]
    )


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
