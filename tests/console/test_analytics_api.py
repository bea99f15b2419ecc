"""/v1/events/analytics: usage and what it costs, in windows and groups, against invoices."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest
from clickhouse_connect.driver import Client

from console.settings import Settings
from tests.console.selling import Shop, flat, tiered
from tests.console.stored import store_rows

pytestmark = pytest.mark.clickhouse

MARCH = {"start_time": "2030-03-01T00:00:00Z", "end_time": "2030-04-01T00:00:00Z"}


@pytest.fixture
def settings(settings_with_store: Settings) -> Settings:
    return settings_with_store


@pytest.fixture
def shop(client: httpx.AsyncClient) -> Shop:
    return Shop(client)


def use(store: Client, feature: Any, customer: Any, *used: tuple[str, str, str, str]) -> None:
    """Store events: a moment, a value, a source, a region."""
    rows = [
        {
            "event_name": feature["meter"]["event_name"],
            "external_customer_id": customer["external_id"],
            "event_id": uuid4().hex,
            "timestamp": datetime.fromisoformat(moment),
            "ingested_at": datetime.fromisoformat(moment),
            "feature_id": feature["id"],
            "aggregation": feature["meter"]["aggregation"]["type"],
            "value": Decimal(value),
            "source": source,
            "properties": f'{{"credits":{value},"region":"{region}"}}',
        }
        for moment, value, source, region in used
    ]
    store_rows(store, 1, *rows)


async def sold(shop: Shop, *features: Any, price: Any = flat, **terms: Any) -> Any:
    """A customer on a plan from 1 January 2030 on, billed by calendar months."""
    plan = await shop.post("plans", name="Pro")
    for feature in features:
        wish = price(plan, feature, "SLAB") if price is tiered else price(plan, feature, **terms)
        await shop.post("prices", **wish)
    customer = await shop.customer()
    start = {"start_date": "2030-01-01T00:00:00Z", "billing_cycle": "calendar"}
    subscription = await shop.subscription(customer, plan, **start)
    return customer, plan, subscription


async def ask(shop: Shop, customer: Any, **more: Any) -> Any:
    body = {"external_customer_id": customer["external_id"], **MARCH, **more}
    return await shop.post("events/analytics", 200, **body)


async def test_a_features_usage_and_cost_are_those_of_the_preview(
    shop: Shop, store: Client
) -> None:
    feature, unused = await shop.feature(), await shop.feature("COUNT")
    customer, plan, subscription = await sold(shop, feature, unused, price=tiered)
    use(store, feature, customer, ("2030-03-02T00:00Z", "400.5", "api", "EU"))
    use(store, feature, customer, ("2030-03-20T12:00Z", "800", "cron", "US"))
    use(store, feature, customer, ("2030-04-01T00:00Z", "9", "api", "EU"))
    answer = await ask(shop, customer)
    [item] = answer["items"]
    assert item == {
        "feature_id": feature["id"],
        "meter_id": feature["meter_id"],
        "name": "Credits",
        "event_name": feature["meter"]["event_name"],
        "aggregation_type": "SUM",
        "total_usage": "1200.5",
        "total_cost": "105.000000000000000201",
        "event_count": 2,
        "currency": "usd",
        "price_id": item["price_id"],
        "plan_id": plan["id"],
        "subscription_id": subscription["id"],
        "points": [],
    }
    assert (answer["total_cost"], answer["currency"]) == ("105.000000000000000201", "usd")
    preview = await shop.post(
        "invoices/preview", 200, subscription_id=subscription["id"],
        period_start=MARCH["start_time"], period_end=MARCH["end_time"],
    )  # fmt: skip
    assert [line["quantity"] for line in preview["line_items"]] == [item["total_usage"], "0"]
    assert Decimal(preview["total"]) == round(Decimal(answer["total_cost"]), 2)
    both = await ask(shop, customer, feature_ids=[unused["id"], feature["id"]])
    assert {each["feature_id"]: each["total_usage"] for each in both["items"]} == {
        feature["id"]: "1200.5", unused["id"]: "0",
    }  # fmt: skip


async def test_a_windows_cost_is_what_it_adds_to_its_period(shop: Shop, store: Client) -> None:
    feature = await shop.feature()
    customer, plan, _ = await sold(shop, feature)
    entitlement = {"plan_id": plan["id"], "feature_id": feature["id"], "feature_type": "metered"}
    await shop.post("entitlements", **entitlement, usage_limit=100)
    use(store, feature, customer, ("2030-02-27T00:00Z", "90", "", ""),
        ("2030-03-01T00:00Z", "70", "", ""), ("2030-03-08T00:00Z", "50", "", ""))  # fmt: skip
    answer = await ask(
        shop, customer, window_size="WEEK", start_time="2030-02-25T00:00:00Z",
        end_time="2030-03-11T00:00:00Z",
    )  # fmt: skip
    [item] = answer["items"]
    assert item["window_size"] == "WEEK"
    assert item["points"] == [  # 90 and 70 are free, of 50 only 30: the limit is each month's
        {"timestamp": "2030-02-25T00:00:00Z", "usage": "160", "cost": "0", "event_count": 2},
        {"timestamp": "2030-03-04T00:00:00Z", "usage": "50", "cost": "1", "event_count": 1},
    ]
    assert (item["total_usage"], item["total_cost"]) == ("210", "1")


async def test_a_group_costs_its_share_of_the_whole(shop: Shop, store: Client) -> None:
    feature = await shop.feature()
    customer, _, _ = await sold(shop, feature, amount="0.5")
    use(store, feature, customer, ("2030-03-02T00:00Z", "1", "api", "EU"))
    use(store, feature, customer, ("2030-03-03T00:00Z", "2", "cron", "EU"))
    use(store, feature, customer, ("2030-03-04T00:00Z", "5", "api", "US"))
    by_source = await ask(shop, customer, group_by=["source", "feature_id"])
    keys = ("source", "total_usage", "total_cost", "event_count")
    assert [[each[key] for key in keys] for each in by_source["items"]] == [
        ["api", "6", "3", 2], ["cron", "2", "1", 1],
    ]  # fmt: skip
    assert by_source["total_cost"] == "4"
    by_region = await ask(shop, customer, group_by=["properties.region"], sources=["api"])
    assert [[each["properties"], each["total_cost"]] for each in by_region["items"]] == [
        [{"region": "EU"}, "0.5"], [{"region": "US"}, "2.5"],
    ]  # fmt: skip
    filtered = await ask(shop, customer, property_filters={"region": ["EU"]}, window_size="MONTH")
    [item] = filtered["items"]
    assert (item["total_usage"], item["total_cost"], filtered["total_cost"]) == ("3", "1.5", "1.5")
    assert [(each["usage"], each["cost"]) for each in item["points"]] == [("3", "1.5")]


async def test_a_share_that_can_not_be_told_is_null(shop: Shop, store: Client) -> None:
    feature = await shop.feature("MAX")
    customer, _, _ = await sold(shop, feature)
    use(store, feature, customer, ("2030-03-02T00:00Z", "4", "api", ""),
        ("2030-03-03T00:00Z", "2", "cron", ""))  # fmt: skip
    answer = await ask(shop, customer, group_by=["source"])
    assert [(each["total_usage"], each["total_cost"]) for each in answer["items"]] == [
        ("4", None), ("2", None),
    ]  # fmt: skip
    assert (answer["total_cost"], answer["currency"]) == (None, "usd")


async def test_usage_that_nothing_bills_has_no_cost(shop: Shop, store: Client) -> None:
    feature = await shop.feature("COUNT")
    customer = {"external_id": "nobody-created-it"}
    use(store, feature, customer, ("2030-03-02T00:00Z", "0", "", ""))
    answer = await ask(shop, customer)
    assert (answer["total_cost"], answer["currency"]) == (None, None)
    [item] = answer["items"]
    assert (item["total_usage"], item["total_cost"]) == ("1", None)
    assert "price_id" not in item


async def test_two_currencies_are_not_added_up(shop: Shop, store: Client) -> None:
    one, other = await shop.feature("COUNT"), await shop.feature("COUNT")
    customer, _, _ = await sold(shop, one)
    euros = await shop.plan(other, currency="EUR")
    start = {"start_date": "2030-01-01T00:00:00Z", "currency": "eur"}
    await shop.subscription(customer, euros, **start)
    for feature in (one, other):
        use(store, feature, customer, ("2030-03-02T00:00Z", "0", "", ""))
    answer = await ask(shop, customer)
    assert (answer["total_cost"], answer["currency"]) == (None, None)
    assert sorted((each["currency"], each["total_cost"]) for each in answer["items"]) == [
        ("eur", "0.05"), ("usd", "0.05"),
    ]  # fmt: skip


async def test_items_show_whole_what_is_asked_for(shop: Shop, store: Client) -> None:
    feature = await shop.feature("COUNT")
    customer, plan, _ = await sold(shop, feature)
    use(store, feature, customer, ("2030-03-02T00:00Z", "0", "", ""))
    answer = await ask(shop, customer, expand=["feature", "meter", "price", "plan"])
    [item] = answer["items"]
    assert item["feature"]["id"] == feature["id"]
    assert item["meter"]["id"] == feature["meter_id"]
    assert item["price"]["amount"] == "0.05"
    assert item["plan"]["name"] == plan["name"]


async def test_another_accounts_features_are_not_there(
    shop: Shop, store: Client, connect: Any, key_of: Any
) -> None:
    feature = await shop.feature("COUNT")
    customer, _, _ = await sold(shop, feature)
    use(store, feature, customer, ("2030-03-02T00:00Z", "0", "", ""))
    stranger = Shop(connect(key_of("other", ["read"])))
    assert (await ask(stranger, customer))["items"] == []
    body = {"external_customer_id": customer["external_id"], "feature_ids": [feature["id"]]}
    await stranger.refused("events/analytics", 404, **body)


@pytest.mark.parametrize(
    ("more", "pointer", "error"),
    [
        ({"external_customer_id": None}, "/external_customer_id", "Missing required field"),
        ({"group_by": ["region"]}, "/group_by/0", 'write "source", or'),
        ({"group_by": ["source", "source"]}, "/group_by", "twice"),
        ({"expand": ["addon"]}, "/expand/0", "is unknown: use"),
        ({"include_children": True}, "/include_children", "leave it out"),
        ({"breakdown_bucket": True}, "/breakdown_bucket", "leave it out"),
        ({"property_filters": {"a": []}}, "/property_filters/a", "at least 1"),
        ({"filters": {"a": ["b"]}}, "/filters", "remove it"),
    ],
)
async def test_what_is_not_supported_is_refused_with_its_place(
    client: httpx.AsyncClient, more: dict[str, Any], pointer: str, error: str
) -> None:
    body = {"external_customer_id": "c1"} | more
    answer = await client.post("/v1/events/analytics", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert error in answer.json()["error"]


async def test_more_points_than_anyone_reads_are_refused(shop: Shop, store: Client) -> None:
    features = [await shop.feature("COUNT") for _ in range(14)]
    body = {"window_size": "HOUR", "feature_ids": [each["id"] for each in features]}
    error = await shop.refused(
        "events/analytics", 400, external_customer_id="c1", **MARCH, **body
    )  # fmt: skip
    assert "more than 10000 points" in error["error"]
