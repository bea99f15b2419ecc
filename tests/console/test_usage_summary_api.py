"""/v1/customers/usage: what a customer used of its free limits, and when they come back."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from clickhouse_connect.driver import Client

from console.settings import Settings
from tests.console.selling import Shop
from tests.console.stored import store_rows

pytestmark = pytest.mark.clickhouse

NOW = datetime.now(UTC).replace(microsecond=0)
START = NOW - timedelta(hours=1)


@pytest.fixture
def settings(settings_with_store: Settings) -> Settings:
    return settings_with_store


@pytest.fixture
def shop(client: httpx.AsyncClient) -> Shop:
    return Shop(client)


def use(store: Client, feature: Any, customer: Any, value: str, at: datetime = NOW) -> None:
    row = {
        "event_name": feature["meter"]["event_name"],
        "external_customer_id": customer["external_id"],
        "timestamp": at,
        "feature_id": feature["id"],
        "aggregation": feature["meter"]["aggregation"]["type"],
        "value": Decimal(value),
    }
    store_rows(store, 1, row)


async def free(shop: Shop, plan: Any, feature: Any, **limit: Any) -> None:
    wish = {"plan_id": plan["id"], "feature_id": feature["id"], "feature_type": "metered"}
    await shop.post("entitlements", **wish, **limit)


async def on_plan(shop: Shop, plan: Any) -> tuple[Any, Any]:
    customer = await shop.customer()
    return customer, await shop.subscription(customer, plan, start_date=START.isoformat())


def numbers(feature: Any) -> tuple[Any, ...]:
    keys = ("total_limit", "is_unlimited", "is_enabled", "current_usage", "usage_percent")
    return tuple(feature.get(key) for key in keys)


async def test_each_feature_shows_how_much_of_its_limit_is_used(shop: Shop, store: Client) -> None:
    some, all_free, none, plain = [await shop.feature() for _ in range(4)]
    plan = await shop.plan(some, all_free, none, plain)
    await free(shop, plan, some, usage_limit=300)
    await free(shop, plan, all_free)
    await free(shop, plan, none, usage_limit=300, is_enabled=False)
    customer, subscription = await on_plan(shop, plan)
    for feature in (some, all_free, none, plain):
        use(store, feature, customer, "1.5")
        use(store, feature, customer, "7", START - timedelta(days=1))
    answer = await shop.get(f"customers/{customer['id']}/usage")
    assert answer["customer_id"] == customer["id"]
    found = {each["feature"]["id"]: numbers(each) for each in answer["features"]}
    assert found == {
        some["id"]: (300, False, True, "1.5", "0.50"),
        all_free["id"]: (None, True, True, "1.5", "0"),
        none["id"]: (0, False, False, "1.5", "100"),
        plain["id"]: (0, False, False, "1.5", "100"),
    }
    period = answer["period"]
    assert period["period"] == "MONTHLY"
    assert period["start_time"] == subscription["current_period_start"]
    assert period["end_time"] == subscription["current_period_end"]
    resets = {each["next_usage_reset_at"] for each in answer["features"]}
    assert resets == {period["end_time"]}


async def test_all_ways_to_name_a_customer_give_one_answer(shop: Shop, store: Client) -> None:
    feature = await shop.feature("COUNT")
    customer, _ = await on_plan(shop, await shop.plan(feature))
    use(store, feature, customer, "0")
    answer = await shop.get(f"customers/{customer['id']}/usage")
    assert [each["current_usage"] for each in answer["features"]] == ["1"]
    external = customer["external_id"]
    assert await shop.get(f"customers/external/{external}/usage") == answer
    assert await shop.get("customers/usage", customer_id=customer["id"]) == answer
    assert await shop.get("customers/usage", customer_lookup_key=external) == answer


async def test_a_shorter_limit_counts_its_own_window_and_one_granted_once_never_resets(
    shop: Shop, store: Client
) -> None:
    daily, once = await shop.feature(), await shop.feature()
    plan = await shop.plan(daily, once)
    await free(shop, plan, daily, usage_limit=8, usage_reset_period="DAILY")
    await free(shop, plan, once, usage_limit=8, usage_reset_period="NEVER")
    customer = await shop.customer()
    start = NOW - timedelta(days=3)
    await shop.subscription(customer, plan, start_date=start.isoformat())
    for feature in (daily, once):
        use(store, feature, customer, "2")
        use(store, feature, customer, "4", NOW - timedelta(days=2))
    answer = await shop.get(f"customers/{customer['id']}/usage")
    found = {each["feature"]["id"]: each for each in answer["features"]}
    assert numbers(found[daily["id"]]) == (8, False, True, "2", "25.00")
    midnight = NOW.replace(hour=0, minute=0, second=0) + timedelta(days=1)
    reset = datetime.fromisoformat(found[daily["id"]]["next_usage_reset_at"])
    assert reset == midnight
    assert numbers(found[once["id"]]) == (8, False, True, "6", "75.00")
    assert "next_usage_reset_at" not in found[once["id"]]


async def test_features_and_subscriptions_narrow_the_summary(shop: Shop, store: Client) -> None:
    one, other = await shop.feature(), await shop.feature()
    customer, _ = await on_plan(shop, await shop.plan(one, other))
    path = f"customers/{customer['id']}/usage"
    answer = await shop.get(path, feature_ids=one["id"])
    assert [each["feature"]["id"] for each in answer["features"]] == [one["id"]]
    answer = await shop.get(path, feature_ids=f"{one['id']},{other['id']}")
    assert len(answer["features"]) == 2
    answer = await shop.get(path, feature_lookup_keys="nobody-has-it")
    assert answer["features"] == []
    answer = await shop.get(path, subscription_ids="subs_other")
    assert answer == {"customer_id": customer["id"], "features": []}


async def test_a_customer_without_a_subscription_has_nothing(shop: Shop, store: Client) -> None:
    customer = await shop.customer()
    answer = await shop.get(f"customers/{customer['id']}/usage")
    assert answer == {"customer_id": customer["id"], "features": []}


async def test_nobody_another_accounts_customer_and_no_name_are_refused(
    shop: Shop, store: Client, connect: Any, key_of: Any
) -> None:
    customer = await shop.customer()
    stranger = connect(key_of("other", ["read"]))
    for path in (f"{customer['id']}/usage", f"external/{customer['external_id']}/usage"):
        assert (await stranger.get(f"/v1/customers/{path}")).status_code == 404
    nameless = await shop.client.get("/v1/customers/usage")
    assert nameless.status_code == 400
    assert "customer_lookup_key" in nameless.json()["error"]
    unknown = await shop.client.get("/v1/customers/usage?customer_id=cust_x")
    assert unknown.status_code == 404
