"""The rows of an id, as the debugger reads them: few at once, many sorted by the store."""

import httpx
import pytest
from clickhouse_connect.driver import Client

from console.debugger import ROWS_MAX, rows_of
from console.settings import Settings
from tests.console.stored import Row, store_rows

pytestmark = pytest.mark.clickhouse
Place = tuple[str, int, int]


@pytest.fixture
def settings(settings_with_store: Settings) -> Settings:
    return settings_with_store


def duplicates(count: int, **more: str) -> list[Row]:
    return [{"event_id": "e1", "verdict": "duplicate", **more} for _ in range(count)]


def seen(client: Client, customer: str | None = None) -> tuple[set[int], list[Place]]:
    """How many rows there are said to be, and where each that came stands."""
    rows = rows_of(client, "default", "e1", customer)
    places = [(row.verdict, row.block_offset, row.block_index) for row in rows]
    return {row.rows_of_id for row in rows}, places


def test_rows_come_with_those_that_claimed_the_id_first(store: Client) -> None:
    first = {"event_id": "e1", "verdict": "unknown_event_name"}
    store_rows(store, 1, {"event_id": "e2"}, first, *duplicates(1))
    store_rows(store, 2, *duplicates(2), {"event_id": "e1", "account": "other"})
    store_rows(store, 3, {"event_id": "e1"})
    claimed = [("counted", 3, 0), ("unknown_event_name", 1, 1)]
    repeats = [("duplicate", 1, 2), ("duplicate", 2, 0), ("duplicate", 2, 1)]
    assert seen(store) == ({5}, claimed + repeats)


def test_rows_of_one_customer(store: Client) -> None:
    store_rows(store, 1, {"event_id": "e1"}, *duplicates(1, external_customer_id="cust_2"))
    assert seen(store) == ({2}, [("counted", 1, 0), ("duplicate", 1, 1)])
    assert seen(store, "cust_2") == ({1}, [("duplicate", 1, 1)])
    assert seen(store, "cust_3") == (set(), [])


@pytest.mark.parametrize("repeats", [ROWS_MAX - 1, ROWS_MAX, ROWS_MAX + 1])
def test_of_many_rows_the_first_come_and_all_are_counted(store: Client, repeats: int) -> None:
    store_rows(store, 2, *duplicates(repeats - 60), {"event_id": "e1"})
    store_rows(store, 1, *duplicates(60))
    first = [("duplicate", 1, index) for index in range(60)]
    later = [("duplicate", 2, index) for index in range(repeats - 60)]
    expected = [("counted", 2, repeats - 60), *first, *later]
    assert seen(store) == ({repeats + 1}, expected[:ROWS_MAX])


async def test_a_life_counts_duplicates_beyond_those_shown(
    client: httpx.AsyncClient, store: Client
) -> None:
    store_rows(store, 1, {"event_id": "e1"}, *duplicates(150))
    told = (await client.get("/v1/events/e1")).json()["duplicates"]
    assert (told["count"], len(told["items"])) == (150, ROWS_MAX - 1)
