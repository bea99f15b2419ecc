"""/v1/plans, /v1/prices, /v1/entitlements."""

import httpx
import pytest

from tests.console.selling import Shop, flat, tiered
from tests.postgres import BOTH_DATABASES

pytestmark = BOTH_DATABASES


@pytest.fixture
def shop(client: httpx.AsyncClient) -> Shop:
    return Shop(client)


async def test_a_plan_is_made_found_changed_and_archived(shop: Shop) -> None:
    plan = await shop.post("plans", name="Pro", lookup_key="pro", metadata={"tier": "2"})
    assert plan["prices"] == plan["entitlements"] == []
    assert await shop.get(f"plans/{plan['id']}") == await shop.get("plans/lookup/pro") == plan
    taken = await shop.refused("plans", 409, name="Other", lookup_key="pro")
    assert taken["details"] == {"field": "lookup_key", "plan_id": plan["id"]}

    place = f"/v1/plans/{plan['id']}"
    changed = await shop.client.put(place, json={**plan, "name": "Pro 2", "lookup_key": None})
    assert (changed.status_code, changed.json()["name"]) == (200, "Pro 2")
    assert "lookup_key" not in changed.json()
    assert (await shop.client.get("/v1/plans/lookup/pro")).status_code == 404
    gone = await shop.client.delete(place)
    assert (gone.status_code, gone.json()["status"]) == (200, "archived")
    assert (await shop.get("plans"))["items"] == []
    found = await shop.post("plans/search", 200, plan_ids=[plan["id"]], status="all")
    assert found["pagination"] == {"total": 1, "limit": 50, "offset": 0}
    history = await shop.get(f"plans/{plan['id']}/history")
    assert [change["after"]["name"] for change in history["items"]] == ["Pro", "Pro 2", "Pro 2"]
    assert [change["before"] is None for change in history["items"]] == [True, False, False]
    assert len({change["actor"] for change in history["items"]}) == 1


async def test_prices_of_all_four_kinds_are_kept_exactly(shop: Shop) -> None:
    feature = await shop.feature()
    plan = await shop.plan()
    package = {"billing_model": "PACKAGE", "transform_quantity": {"divide_by": 100}}
    made = [
        await shop.post("prices", **flat(plan, feature, amount="0.050")),
        await shop.post("prices", **flat(plan, feature, currency="eur", **package)),
        await shop.post("prices", **tiered(plan, feature, "VOLUME", currency="gbp")),
        await shop.post("prices", **tiered(plan, feature, "SLAB", currency="jpy")),
    ]
    assert [price["amount"] for price in made] == ["0.05", "0.05", "0", "0"]
    assert made[1]["transform_quantity"] == {"divide_by": 100, "round": "up"}
    assert made[3]["tiers"] == [
        {"up_to": 1000, "unit_amount": "0.1", "flat_amount": "5"},
        {"up_to": None, "unit_amount": "0.000000000000000001", "flat_amount": "0"},
    ]
    assert made[0]["currency"] == "usd"
    assert made[0]["meter"]["id"] == feature["meter_id"]
    assert made[0]["display_name"] == feature["name"]
    shown = await shop.get(f"plans/{plan['id']}")
    assert [price["id"] for price in shown["prices"]] == [price["id"] for price in made]
    for query in ({"meter_ids": [feature["meter_id"]]}, {"entity_ids": [plan["id"]]}):
        found = await shop.post("prices/search", 200, **query)
        assert found["pagination"]["total"] == 4
    assert (await shop.get("prices", billing_periods="MONTHLY"))["pagination"]["total"] == 4
    assert (await shop.get("prices", billing_periods="DAILY,WEEKLY"))["items"] == []
    found = await shop.get("prices", currency="EUR", plan_ids=plan["id"])
    assert [price["id"] for price in found["items"]] == [made[1]["id"]]


async def test_what_decides_an_amount_never_changes(shop: Shop) -> None:
    feature = await shop.feature()
    plan = await shop.plan()
    price = await shop.post("prices", **tiered(plan, feature, "SLAB", lookup_key="k"))
    place = f"/v1/prices/{price['id']}"
    again = await shop.client.put(place, json={**price, "display_name": "Credit"})
    assert (again.status_code, again.json()["display_name"]) == (200, "Credit")
    written_otherwise = [
        {"up_to": 1000, "unit_amount": "0.1000", "flat_amount": "5.0"},
        {"unit_amount": "1e-18"},
    ]
    for field, same, other in (
        ("amount", "0.00", "0.01"),
        ("tiers", written_otherwise, [{"unit_amount": "1"}]),
        ("tier_mode", "SLAB", "VOLUME"),
        ("billing_model", "TIERED", "FLAT_FEE"),
        ("currency", "USD", "eur"),
        ("meter_id", feature["meter_id"], "meter_x"),
        ("transform_quantity", None, {"divide_by": 2}),
    ):
        assert (await shop.client.put(place, json={field: same})).status_code == 200, field
        refused = await shop.client.put(place, json={field: other})
        assert refused.status_code == 400, field
        assert refused.json()["errors"][0]["pointer"] == f"/{field}"
        assert "archive the price and create another" in refused.json()["error"]
    assert (await shop.get("prices/lookup/k"))["id"] == price["id"]


async def test_a_price_is_archived_and_another_takes_its_place(shop: Shop) -> None:
    feature = await shop.feature()
    plan = await shop.plan()
    price = await shop.post("prices", **flat(plan, feature))
    taken = await shop.refused("prices", 409, **flat(plan, feature, amount="1"))
    assert price["id"] in taken["message"]
    await shop.post("prices", **flat(plan, feature, billing_period_count=3))
    place = f"/v1/prices/{price['id']}"
    later = await shop.client.request("DELETE", place, json={"end_date": "2030-01-01T00:00:00Z"})
    assert (later.status_code, later.json()["errors"][0]["pointer"]) == (400, "/end_date")
    gone = await shop.client.request("DELETE", place, json={})
    assert (gone.status_code, gone.json()["status"]) == (200, "archived")
    await shop.post("prices", **flat(plan, feature, amount="1"))
    back = await shop.client.put(place, json={"status": "published"})
    assert back.status_code == 409


async def test_a_wrong_price_is_refused_with_place_and_cure(shop: Shop) -> None:
    wish = tiered({"id": "plan_1"}, {"meter_id": "meter_1"}, "SLAB", tiers=[{"up_to": 1.5}])
    refused = await shop.refused("prices", 400, **wish)
    pointers = [error["pointer"] for error in refused["errors"]]
    assert pointers == ["/tiers/0/up_to", "/tiers/0/unit_amount"]
    assert "has to be a whole number" in refused["error"]


async def test_what_says_nothing_is_accepted(shop: Shop) -> None:
    nothing = {
        "trial_period_days": 0,
        "filter_values": {},
        "tiers": [],
        "tier_mode": "",
        "transform_quantity": None,
        "group_id": "",
        "min_quantity": None,
        "lookup_key": "",
        "price_unit_config": None,
    }
    feature = await shop.feature()
    await shop.post("prices", **flat(await shop.plan(), feature, **nothing))


async def test_a_price_names_the_meter_of_an_active_feature_and_an_active_plan(shop: Shop) -> None:
    feature = await shop.feature()
    plan = await shop.plan()
    alone = await shop.post("meters", event_name="alone", aggregation={"type": "COUNT"})
    unknown = await shop.refused("prices", 404, **flat(plan, feature, meter_id="meter_x"))
    assert unknown["error"] == "Meter 'meter_x' not found"
    assert (await shop.refused("prices", 404, **flat({"id": "plan_x"}, feature)))["code"]
    lonely = await shop.refused("prices", 400, **flat(plan, {"meter_id": alone["id"]}))
    assert lonely["errors"][0]["pointer"] == "/meter_id"
    assert "has no feature" in lonely["error"]
    await shop.client.delete(f"/v1/features/{feature['id']}")
    archived = await shop.refused("prices", 400, **flat(plan, feature))
    assert "is archived" in archived["error"]
    await shop.client.delete(f"/v1/plans/{plan['id']}")
    archived = await shop.refused("prices", 400, **flat(plan, await shop.feature()))
    assert archived["errors"][0]["pointer"] == "/plan_id"


async def test_several_are_made_at_once_or_none(shop: Shop) -> None:
    first, second = await shop.feature(), await shop.feature()
    plan = await shop.plan()
    wishes = [flat(plan, first), flat(plan, second)]
    twice = await shop.refused("prices/bulk", 409, items=[*wishes, wishes[0]])
    assert twice["code"] == "already_exists"
    assert (await shop.get("prices"))["pagination"]["total"] == 0
    made = await shop.post("prices/bulk", items=wishes)
    assert [price["feature_id"] for price in made["items"]] == [first["id"], second["id"]]
    wrong = await shop.refused("prices/bulk", 400, items=[wishes[0], {**wishes[1], "amount": "x"}])
    assert wrong["errors"][0]["pointer"] == "/items/1/amount"
    assert (await shop.refused("prices/bulk", 400, items=[]))["errors"][0]["pointer"] == "/items"
    limits = [{"plan_id": plan["id"], "feature_id": each["id"], "feature_type": "metered"}
              for each in (first, second)]  # fmt: skip
    both = await shop.post("entitlements/bulk", items=limits)
    assert [each["feature_id"] for each in both["items"]] == [first["id"], second["id"]]


async def test_an_entitlement_is_made_found_changed_and_archived(shop: Shop) -> None:
    feature = await shop.feature()
    plan = await shop.plan(feature)
    wish = {"plan_id": plan["id"], "feature_id": feature["id"], "feature_type": "metered"}
    made = await shop.post("entitlements", **wish, usage_limit=100, usage_reset_period="DAILY")
    assert made["feature"]["id"] == feature["id"]
    assert (made["usage_limit"], made["is_enabled"]) == (100, True)
    taken = await shop.refused("entitlements", 409, **wish)
    assert taken["details"]["entitlement_id"] == made["id"]
    listed = await shop.get(f"plans/{plan['id']}/entitlements")
    assert listed["items"] == [made]
    assert (await shop.get(f"plans/{plan['id']}"))["entitlements"][0]["id"] == made["id"]
    for query in ({"plan_ids": [plan["id"]]}, {"feature_ids": [feature["id"]], "is_enabled": True}):
        found = await shop.post("entitlements/search", 200, **query)
        assert found["items"] == [made]
    assert (await shop.get("entitlements", is_enabled="false"))["items"] == []

    place = f"/v1/entitlements/{made['id']}"
    same = await shop.client.put(place, json=made)
    assert same.json() == made
    unlimited = await shop.client.put(place, json={"usage_limit": None, "is_enabled": False})
    assert (unlimited.json()["usage_limit"], unlimited.json()["is_enabled"]) == (None, False)
    other = await shop.client.put(place, json={"feature_id": "feat_x"})
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (400, "/feature_id")
    assert (await shop.client.delete(place)).json()["status"] == "archived"
    await shop.post("entitlements", **wish)
    history = await shop.get(f"entitlements/{made['id']}/history")
    assert [each["after"]["usage_limit"] for each in history["items"]] == [100, None, None]


async def test_only_what_adds_up_has_limits_that_outlast_a_period(shop: Shop) -> None:
    adds, peaks = await shop.feature("SUM"), await shop.feature("MAX")
    plan = await shop.plan(adds, peaks)
    wish = {"plan_id": plan["id"], "feature_type": "metered", "usage_limit": 5}
    limit = await shop.post(
        "entitlements", **wish, feature_id=adds["id"], usage_reset_period="NEVER"
    )
    assert limit["usage_reset_period"] == "NEVER"
    for reset in ("NEVER", "QUARTERLY"):
        refused = await shop.refused(
            "entitlements", 400, **wish, feature_id=peaks["id"], usage_reset_period=reset
        )
        assert refused["errors"][0]["pointer"] == "/usage_reset_period"
    made = await shop.post(
        "entitlements", **wish, feature_id=peaks["id"], usage_reset_period="MONTHLY"
    )
    longer = {"usage_reset_period": "ANNUAL"}
    refused = (await shop.client.put(f"/v1/entitlements/{made['id']}", json=longer)).json()
    assert refused["errors"][0]["pointer"] == "/usage_reset_period"
    weekly = await shop.refused("prices", 400, **flat(plan, peaks, billing_period="WEEKLY"))
    assert weekly["errors"][0]["pointer"] == "/billing_period"
    await shop.post("prices", **flat(plan, peaks, billing_period="WEEKLY", billing_period_count=5))
