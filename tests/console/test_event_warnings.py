"""Warnings as they stand now: in lists, in the debugger, as filters, wherever events are shown."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from clickhouse_connect.driver import Client

import console.event_pages
from catalog import customers, features
from catalog.attribution import attribute
from catalog.database import Catalog
from catalog.unbilled import Use, unbilled
from console.settings import Settings
from schemas.customers import CustomerSearch
from tests.console.selling import Shop
from tests.console.stored import Row, store_rows

pytestmark = pytest.mark.clickhouse
UNBILLED = "no_active_subscription"
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def settings(settings_with_store: Settings) -> Settings:
    return settings_with_store


@pytest.fixture
def shop(client: httpx.AsyncClient) -> Shop:
    return Shop(client)


async def listed(client: httpx.AsyncClient, **wish: Any) -> dict[str, list[str]]:
    """The events of a list, in its order, with their warnings."""
    answer = await client.post("/v1/events/query", json={"order": "asc"} | wish)
    assert answer.status_code == 200, answer.text
    return {each["id"]: each["warnings"] for each in answer.json()["events"]}


async def sold(shop: Shop) -> tuple[Any, Any, Any]:
    """A feature on a plan, and a customer that subscribed to it two days ago."""
    feature = await shop.feature("COUNT")
    plan, customer = await shop.plan(feature), await shop.customer()
    start = (NOW - timedelta(days=2)).isoformat()
    subscription = await shop.subscription(customer, plan, start_date=start)
    return feature, customer, subscription


def used(number: int, customer: str, feature: Any, days: float, **more: Any) -> Row:
    at = NOW - timedelta(days=days) + timedelta(seconds=number)
    row = {"event_id": f"e{number}", "external_customer_id": customer, "timestamp": at}
    return row | {"ingested_at": at, "feature_id": feature["id"], **more}


async def test_lists_filters_and_the_debugger_say_the_same(
    client: httpx.AsyncClient, store: Client, shop: Shop
) -> None:
    feature, customer, _ = await sold(shop)
    own, stranger = customer["external_id"], "stranger"
    other = await shop.feature("COUNT")
    store_rows(
        store,
        1,
        used(1, own, feature, 5),
        used(2, own, feature, 1, warnings="numeric_string,rounded"),
        used(3, stranger, feature, 1, warnings="unknown_customer"),
        used(4, own, other, 1),
        used(5, own, {"id": ""}, 1, verdict="unknown_event_name"),
    )
    everything = {
        "e1": [UNBILLED],
        "e2": ["numeric_string", "rounded"],
        "e3": ["unknown_customer", UNBILLED],
        "e4": [UNBILLED],
        "e5": [],
    }
    assert await listed(client) == everything
    for event_id, warnings in everything.items():
        life = (await client.get(f"/v1/events/{event_id}")).json()
        assert [each["code"] for each in life["warnings"]] == warnings
        assert life["event"]["warnings"] == warnings
    assert list(await listed(client, warning=[UNBILLED])) == ["e1", "e3", "e4"]
    assert list(await listed(client, warning=["rounded"])) == ["e2"]
    assert list(await listed(client, warning=["rounded", UNBILLED])) == ["e1", "e2", "e3", "e4"]
    assert list(await listed(client, warning=[UNBILLED], event_id="e2")) == []
    answer = await client.get("/v1/events", params={"warning": "rounded,unknown_customer"})
    assert answer.json()["total_count"] == 2


async def test_a_subscription_that_is_backdated_or_cancelled_changes_what_is_said(
    client: httpx.AsyncClient, store: Client, shop: Shop
) -> None:
    feature, customer = await shop.feature("COUNT"), await shop.customer()
    name = customer["external_id"]
    store_rows(store, 1, used(1, name, feature, 0.5), used(2, name, feature, -0.5))
    both = {"e1": [UNBILLED], "e2": [UNBILLED]}
    assert await listed(client, warning=[UNBILLED]) == both
    start = (NOW - timedelta(days=1)).isoformat()
    subscription = await shop.subscription(customer, await shop.plan(feature), start_date=start)
    assert await listed(client, warning=[UNBILLED]) == {}
    path = f"subscriptions/{subscription['id']}/cancel"
    await shop.post(path, 200, cancellation_type="immediate")
    assert await listed(client, warning=[UNBILLED]) == {"e2": [UNBILLED]}
    assert await listed(client) == {"e1": [], "e2": [UNBILLED]}


async def test_pages_of_what_nothing_bills_hold_all_of_it_once(
    client: httpx.AsyncClient, store: Client, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.event_pages, "SCAN_ROWS", 7)
    feature, customer, _ = await sold(shop)
    names = [customer["external_id"], "stranger"]
    store_rows(store, 1, *(used(n, names[n % 3 == 0], feature, 1) for n in range(40)))
    seen: list[str] = []
    wish: dict[str, Any] = {"warning": [UNBILLED], "page_size": 3, "order": "asc"}
    while True:
        page = (await client.post("/v1/events/query", json=wish)).json()
        assert page["total_count"] is None
        seen += [each["id"] for each in page["events"]]
        if not page["has_more"]:
            break
        wish["iter_last_key"] = page["iter_last_key"]
    assert seen == [f"e{n}" for n in range(0, 40, 3)]


async def test_what_a_level_counts_is_billed_from_the_first_period_that_something_bills(
    client: httpx.AsyncClient, store: Client, shop: Shop
) -> None:
    feature = await shop.feature("COUNT", reset_usage="NEVER")
    customer = await shop.customer()
    name = customer["external_id"]
    store_rows(store, 1, used(1, name, feature, 5), used(2, name, feature, -1))
    start = (NOW - timedelta(days=2)).isoformat()
    subscription = await shop.subscription(customer, await shop.plan(feature), start_date=start)
    assert await listed(client) == {"e1": [], "e2": []}
    life = (await client.get("/v1/events/e1")).json()
    assert "failure_point" not in life["debug_tracker"]
    billing = life["billing"]
    assert billing["billed"] and billing["period_start"] == subscription["current_period_start"]
    path = f"subscriptions/{subscription['id']}/cancel"
    await shop.post(path, 200, cancellation_type="immediate")
    assert await listed(client) == {"e1": [], "e2": [UNBILLED]}


async def test_many_at_once_are_told_as_one_by_one(
    client: httpx.AsyncClient, store: Client, shop: Shop, settings: Settings
) -> None:
    feature, customer, subscription = await sold(shop)
    other = await shop.feature("COUNT")
    level = await shop.feature("COUNT", reset_usage="NEVER")
    plan = await shop.plan(other, level)
    await shop.post(
        f"subscriptions/{subscription['id']}/change/execute",
        200,
        target_plan_id=plan["id"],
        effective_date=(NOW - timedelta(hours=12)).isoformat(),
    )
    names = [customer["external_id"], (await shop.customer())["external_id"]]
    uses = [
        Use(name, each["id"], NOW - timedelta(hours=hours))
        for name in names
        for each in (feature, other, level)
        for hours in (-1, 0, 6, 12, 13, 47, 48, 49)
    ]
    catalog = Catalog(settings.catalog)
    with catalog.reading() as session:

        def alone(use: Use) -> bool:
            wanted = CustomerSearch(external_id=use.customer)
            [row] = customers.search(session, "default", wanted).items
            feature = features.get(session, "default", use.feature_id)
            return attribute(session, row, feature, use.at).reason is not None

        told = unbilled(session, "default", uses)
        assert told == [alone(use) for use in uses]
        assert set(told) == {True, False}
    catalog.close()


@pytest.mark.parametrize(
    "path", ["/v1/events?warning=nonsense", "/v1/events/stream?warning=nonsense"]
)
async def test_an_unknown_warning_is_400_with_those_that_are_known(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path)
    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert error["pointer"].startswith("/warning") and UNBILLED in error["detail"]


@pytest.mark.parametrize("path", ["/v1/events/verdicts", "/v1/events/dead-letters"])
async def test_what_has_no_warnings_refuses_to_be_narrowed_by_one(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path, params={"warning": UNBILLED})
    assert answer.status_code == 400
    assert [each["pointer"] for each in answer.json()["errors"]] == ["/warning"]
