"""/v1/subscriptions, and what hangs on them: entitlements of customers, and what bills a use."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from console.app import routes
from console.routing import Resource
from schemas.catalog import Scope
from tests.console.selling import Shop, flat, on
from tests.postgres import BOTH_DATABASES

pytestmark = BOTH_DATABASES

Connect = Callable[[str | None], httpx.AsyncClient]


@pytest.fixture
def shop(client: httpx.AsyncClient) -> Shop:
    return Shop(client)


def ago(**time: float) -> str:
    return (datetime.now(UTC) - timedelta(**time)).isoformat()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_a_subscription_shows_its_plan_its_period_and_what_bills_it(shop: Shop) -> None:
    first, second = await shop.feature(), await shop.feature()
    plan = await shop.plan(first, second)
    await shop.post("prices", **flat(plan, first, currency="eur"))
    customer = await shop.customer(timezone="Europe/Berlin")
    start = ago(days=1)
    wish = on(customer, plan, start_date=start, metadata={"sales": "eve"}, lookup_key="deal 7")
    made = await shop.post("subscriptions", **wish)
    assert (made["subscription_status"], made["status"]) == ("active", "published")
    assert made["timezone"] == "Europe/Berlin"
    assert made["billing_cycle"] == "anniversary"
    assert made["start_date"] == made["billing_anchor"] == made["current_period_start"]
    assert at(made["start_date"]) == at(start).replace(
        microsecond=at(start).microsecond // 1000 * 1000
    )
    length = at(made["current_period_end"]) - at(made["current_period_start"])
    assert timedelta(days=28) - timedelta(hours=1) <= length <= timedelta(days=31, hours=1)
    assert [item["feature_id"] for item in made["line_items"]] == [first["id"], second["id"]]
    assert made["line_items"][0]["price"]["currency"] == "usd"
    assert made["plan"]["name"] == "Pro"
    assert made["customer"] == customer
    assert await shop.get(f"subscriptions/{made['id']}") == made
    assert await shop.get("subscriptions/lookup/deal 7") == made
    external = f"customers/external/{customer['external_id']}/subscriptions"
    for place in (external, f"customers/{customer['id']}/subscriptions", "subscriptions"):
        assert (await shop.get(place))["items"] == [made]
    changed = await shop.client.put(
        f"/v1/subscriptions/{made['id']}", json={**made, "metadata": {"sales": "bob"}}
    )
    assert (changed.status_code, changed.json()["metadata"]) == (200, {"sales": "bob"})
    other = await shop.client.put(f"/v1/subscriptions/{made['id']}", json={"currency": "eur"})
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (400, "/currency")


async def test_subscriptions_are_found_by_what_they_are(shop: Shop) -> None:
    feature = await shop.feature()
    plan = await shop.plan(feature)
    customer, other = await shop.customer(), await shop.customer()
    past = await shop.subscription(
        customer, plan, start_date="2020-01-01T00:00:00Z", end_date="2021-01-01T00:00:00Z"
    )
    now = await shop.subscription(customer, plan, start_date="2022-01-01T00:00:00Z")
    theirs = await shop.subscription(other, plan)

    async def ids(**query: Any) -> set[str]:
        found = await shop.post("subscriptions/search", 200, **query)
        return {item["id"] for item in found["items"]}

    assert await ids() == {past["id"], now["id"], theirs["id"]}
    assert await ids(customer_id=customer["id"]) == {past["id"], now["id"]}
    assert await ids(external_customer_id=other["external_id"]) == {theirs["id"]}
    assert await ids(subscription_status=["cancelled"]) == {past["id"]}
    assert await ids(subscription_status=["active"]) == {now["id"], theirs["id"]}
    assert await ids(subscription_status=["active", "cancelled"], plan_id=plan["id"]) == await ids()
    assert await ids(active_at="2020-12-31T23:59:59.999Z") == {past["id"]}
    assert await ids(active_at="2021-01-01T00:00:00Z") == set()
    assert await ids(active_at="2022-01-01T00:00:00Z") == {now["id"]}
    listed = await shop.get("subscriptions", subscription_status="cancelled")
    assert [item["id"] for item in listed["items"]] == [past["id"]]
    assert (await shop.get("subscriptions", billing_period="DAILY"))["items"] == []
    assert await ids(plan_id="plan_x") == await ids(customer_ids=["x"]) == set()
    assert (past["subscription_status"], past["current_period_end"]) == (
        "cancelled",
        "2021-01-01T00:00:00.000Z",
    )
    assert theirs["current_period_start"] == theirs["start_date"]


async def test_what_says_nothing_is_accepted(shop: Shop) -> None:
    nothing = {
        "trial_period_days": 0,
        "coupons": [],
        "phases": None,
        "line_item_coupons": {},
        "proration_behavior": "none",
        "end_date": "",
        "enable_true_up": False,
        "subscription_status": "active",
        "billing_cycle": "",
    }
    plan = await shop.plan(await shop.feature())
    await shop.subscription(await shop.customer(), plan, **nothing)


async def test_customer_and_plan_have_to_be_there_and_the_plan_sold_on_these_terms(
    shop: Shop,
) -> None:
    plan = await shop.plan(await shop.feature())
    customer = await shop.customer()
    nobody = on({"id": None}, plan, external_customer_id="nobody")
    unknown = await shop.refused("subscriptions", 404, **nobody)
    assert unknown["error"] == "Customer with external_customer_id 'nobody' not found"
    await shop.refused("subscriptions", 404, **on({"id": "cust_x"}, plan))
    await shop.refused("subscriptions", 404, **on(customer, {"id": "plan_x"}))
    two = on(customer, plan, external_customer_id="another")
    assert (await shop.refused("subscriptions", 400, **two))["errors"][0]["code"] == "not_allowed"
    for terms in ({"currency": "eur"}, {"billing_period": "DAILY"}, {"billing_period_count": 2}):
        refused = await shop.refused("subscriptions", 400, **on(customer, plan, **terms))
        assert refused["errors"][0]["code"] == "not_sold"
        assert "it has usd per 1 MONTHLY" in refused["error"]
    over = on(customer, plan, end_date="2030-01-15T10:00:00Z")
    refused = await shop.refused("subscriptions", 400, **over)
    assert refused["errors"][0]["pointer"] == "/end_date"
    empty = await shop.refused("subscriptions", 400, **on(customer, await shop.plan()))
    assert "no price at all" in empty["error"]
    await shop.client.delete(f"/v1/customers/{customer['id']}")
    archived = await shop.refused("subscriptions", 400, **on(customer, plan))
    assert archived["errors"][0]["pointer"] == "/customer_id"
    await shop.client.delete(f"/v1/plans/{plan['id']}")
    archived = await shop.refused("subscriptions", 400, **on(await shop.customer(), plan))
    assert archived["errors"][0]["pointer"] == "/plan_id"


async def test_a_customer_has_a_feature_from_one_subscription_at_a_time(shop: Shop) -> None:
    feature, extra = await shop.feature(), await shop.feature()
    plan, other = await shop.plan(feature), await shop.plan(feature, extra)
    more = await shop.plan(extra)
    customer = await shop.customer()
    first = await shop.subscription(customer, plan, end_date="2031-01-15T10:00:00Z")
    taken = await shop.refused(
        "subscriptions", 409, **on(customer, other, start_date="2031-01-15T09:59:59.999Z")
    )
    assert taken["details"] == {"subscription_id": first["id"], "feature_ids": [feature["id"]]}
    assert first["id"] in taken["error"]
    await shop.subscription(customer, more, end_date="2031-01-15T10:00:00Z")  # another feature
    await shop.subscription(await shop.customer(), plan)  # another customer
    then = await shop.subscription(customer, other, start_date="2031-01-15T10:00:00Z")

    back = {"cancellation_type": "scheduled_date", "cancel_at": "2031-02-01T00:00:00Z"}
    refused = await shop.refused(f"subscriptions/{first['id']}/cancel", 400, **back)
    assert "it ends earlier" in refused["error"]
    priced = await shop.refused("prices", 409, **flat(more, feature))
    assert priced["details"]["feature_ids"] == [feature["id"]]
    assert (await shop.refused("prices", 409, **flat(plan, extra)))["details"]["feature_ids"]
    change = {"target_plan_id": other["id"]}
    refused = await shop.refused(f"subscriptions/{first['id']}/change/execute", 409, **change)
    assert refused["details"]["feature_ids"] == [extra["id"]]
    sooner = {"cancellation_type": "scheduled_date", "cancel_at": "2031-01-20T00:00:00Z"}
    await shop.post(f"subscriptions/{then['id']}/cancel", 200, **sooner)
    await shop.subscription(customer, plan, start_date="2031-01-20T00:00:00Z")
    later = {"cancellation_type": "scheduled_date", "cancel_at": "2031-01-21T00:00:00Z"}
    await shop.refused(f"subscriptions/{then['id']}/cancel", 409, **later)


async def test_it_is_cancelled_at_a_date_at_the_end_of_the_period_or_at_once(shop: Shop) -> None:
    plan = await shop.plan(await shop.feature())
    made = await shop.subscription(await shop.customer(), plan, start_date=ago(days=40))
    place = f"subscriptions/{made['id']}"
    end = await shop.post(f"{place}/cancel", 200, cancellation_type="end_of_period")
    assert end["effective_date"] == made["current_period_end"]
    assert (end["status"], end["subscription_id"]) == ("active", made["id"])
    date = (datetime.now(UTC) + timedelta(days=90)).isoformat()
    dated = await shop.post(
        f"{place}/cancel", 200, cancellation_type="scheduled_date", cancel_at=date, reason="moved"
    )
    assert (dated["reason"], dated["cancellation_type"]) == ("moved", "scheduled_date")
    past = {"cancellation_type": "scheduled_date", "cancel_at": "2020-01-01T00:00:00Z"}
    refused = await shop.refused(f"{place}/cancel", 400, **past)
    assert refused["errors"][0]["pointer"] == "/cancel_at"
    at_once = await shop.post(f"{place}/cancel", 200, cancellation_type="immediate")
    assert (at_once["status"], at_once["effective_date"]) == ("cancelled", at_once["processed_at"])
    shown = await shop.get(place)
    assert shown["subscription_status"] == "cancelled"
    assert shown["cancel_at"] == shown["current_period_end"] == at_once["effective_date"]
    assert "cancel_reason" not in shown
    again = await shop.refused(f"{place}/cancel", 400, cancellation_type="immediate")
    assert "ended at" in again["error"]
    changed = await shop.refused(f"{place}/change/execute", 400, target_plan_id=plan["id"])
    assert "ended at" in changed["error"]
    history = (await shop.get(f"{place}/history"))["items"]
    assert [each["after"].get("cancellation_type") for each in history] == [
        None,
        "end_of_period",
        "scheduled_date",
        "immediate",
    ]
    assert history[2]["before"] == history[1]["after"]
    assert history[2]["after"]["cancel_reason"] == "moved"


async def test_one_that_has_not_started_is_cancelled_as_if_it_never_was(shop: Shop) -> None:
    feature = await shop.feature()
    plan, customer = await shop.plan(feature), await shop.customer()
    made = await shop.subscription(customer, plan)
    gone = await shop.post(f"subscriptions/{made['id']}/cancel", 200, cancellation_type="immediate")
    assert gone["effective_date"] == made["start_date"]
    shown = await shop.get(f"subscriptions/{made['id']}")
    assert "current_period_start" not in shown
    assert (await shop.get(f"subscriptions/{made['id']}/entitlements"))["features"] == []
    await shop.subscription(customer, plan)  # the feature is free again


async def test_a_plan_change_cuts_the_period_and_can_be_undone_before_it_comes(shop: Shop) -> None:
    feature = await shop.feature()
    plan, target = await shop.plan(feature), await shop.plan(feature, amount="0.01")
    made = await shop.subscription(await shop.customer(), plan)
    place = f"subscriptions/{made['id']}"
    moment = "2030-02-20T12:00:00.000Z"
    wish = {
        "target_plan_id": target["id"],
        "effective_date": moment,
        "billing_cadence": "RECURRING",
        "billing_period": "MONTHLY",
        "billing_cycle": "anniversary",
        "proration_behavior": "none",
        "metadata": {"why": "growth"},
    }
    preview = await shop.post(f"{place}/change/preview", 200, **wish)
    assert preview["periods"] == [
        {
            "plan_id": plan["id"],
            "period_start": "2030-02-15T10:00:00.000Z",
            "period_end": moment,
        },
        {
            "plan_id": target["id"],
            "period_start": moment,
            "period_end": "2030-03-15T10:00:00.000Z",
        },
    ]
    assert preview["current_plan"]["id"] == plan["id"]
    assert preview["target_plan"]["id"] == target["id"]
    assert preview["new_billing_cycle"]["period_start"] == moment
    assert preview["new_billing_cycle"]["billing_anchor"] == made["billing_anchor"]
    assert await shop.get(place) == made

    done = await shop.post(f"{place}/change/execute", 200, **wish)
    assert (done["is_scheduled"], done["effective_date"]) == (True, moment)
    assert done["old_subscription"]["plan_id"] == plan["id"]
    assert done["new_subscription"]["plan_id"] == target["id"]
    assert done["new_subscription"]["current_period_start"] == moment
    shown = await shop.get(place)
    assert shown["plan_id"] == plan["id"]
    assert [phase["plan_id"] for phase in shown["phases"]] == [plan["id"], target["id"]]
    twice = await shop.refused(f"{place}/change/execute", 400, **wish)
    assert "already" in twice["error"]

    undo = {"target_plan_id": plan["id"], "effective_date": moment}
    await shop.post(f"{place}/change/execute", 200, **undo)
    assert (await shop.get(place))["phases"] == made["phases"]
    history = (await shop.get(f"{place}/history"))["items"]
    assert [len(each["after"]["phases"]) for each in history] == [1, 2, 1]


async def test_a_plan_change_at_once_bills_by_the_new_plan(shop: Shop) -> None:
    feature = await shop.feature()
    plan, target = await shop.plan(feature), await shop.plan(feature, amount="0.01")
    made = await shop.subscription(await shop.customer(), plan, start_date=ago(days=3))
    done = await shop.post(
        f"subscriptions/{made['id']}/change/execute", 200, target_plan_id=target["id"]
    )
    shown = await shop.get(f"subscriptions/{made['id']}")
    assert not done["is_scheduled"]
    assert shown["plan_id"] == target["id"]
    assert shown["current_period_start"] == done["effective_date"]
    assert shown["current_period_end"] == made["current_period_end"]
    assert [item["price"]["amount"] for item in shown["line_items"]] == ["0.01"]
    later = await shop.post(
        f"subscriptions/{made['id']}/change/execute",
        200,
        target_plan_id=plan["id"],
        change_at="end_of_period",
    )
    assert later["effective_date"] == made["current_period_end"]


async def test_wrong_plan_changes_are_refused(shop: Shop) -> None:
    feature = await shop.feature()
    plan, target = await shop.plan(feature), await shop.plan(feature)
    yearly = await shop.plan(feature, billing_period="ANNUAL")
    archived = await shop.plan(feature)
    await shop.client.delete(f"/v1/plans/{archived['id']}")
    made = await shop.subscription(
        await shop.customer(),
        plan,
        start_date="2020-01-01T00:00:00Z",
        end_date="2100-01-01T00:00:00Z",
    )
    place = f"subscriptions/{made['id']}/change"
    for wish, pointer in (
        ({}, "/target_plan_id"),
        ({"target_plan_id": plan["id"]}, "/target_plan_id"),
        ({"target_plan_id": yearly["id"]}, "/target_plan_id"),
        ({"target_plan_id": archived["id"]}, "/target_plan_id"),
        ({"effective_date": "2020-06-01T00:00:00Z"}, "/effective_date"),
        ({"effective_date": "2100-01-01T00:00:00Z"}, "/effective_date"),
        ({"effective_date": "2030-01-01T00:00:00Z", "change_at": "immediate"}, "/change_at"),
        ({"change_at": "someday"}, "/change_at"),
        ({"billing_period": "ANNUAL"}, "/billing_period"),
        ({"billing_period_count": 2}, "/billing_period_count"),
        ({"billing_cycle": "calendar"}, "/billing_cycle"),
        ({"proration_behavior": "create_prorations"}, "/proration_behavior"),
    ):
        body = {"target_plan_id": target["id"]} | wish if wish else {}
        for step in ("preview", "execute"):
            refused = await shop.refused(f"{place}/{step}", 400, **body)
            assert refused["errors"][0]["pointer"] == pointer, wish
    await shop.refused(f"{place}/execute", 404, target_plan_id="plan_x")
    assert await shop.get(f"subscriptions/{made['id']}") == made


async def test_what_a_customer_has_for_free_comes_from_its_plans(shop: Shop) -> None:
    feature, other = await shop.feature(), await shop.feature()
    plan, more = await shop.plan(feature), await shop.plan(other)
    limits = {
        "metered": {"plan_id": plan["id"], "feature_id": feature["id"], "usage_limit": 10},
        "open": {"plan_id": more["id"], "feature_id": other["id"]},
        "unused": {"plan_id": more["id"], "feature_id": feature["id"], "usage_limit": 99},
    }
    for wish in limits.values():
        await shop.post("entitlements", **wish, feature_type="metered")
    customer = await shop.customer()
    assert (await shop.get(f"customers/{customer['id']}/entitlements"))["features"] == []
    second = await shop.subscription(customer, more, start_date=ago(days=1))
    first = await shop.subscription(customer, plan, start_date=ago(days=1))
    found = await shop.get(f"customers/{customer['id']}/entitlements")
    by_feature = {each["feature"]["id"]: each for each in found["features"]}
    assert by_feature[feature["id"]]["entitlement"] == {"is_enabled": True, "usage_limit": 10}
    sources = by_feature[feature["id"]]["sources"]
    assert [each["subscription_id"] for each in sources] == [first["id"], second["id"]]
    assert by_feature[other["id"]]["entitlement"] == {"is_enabled": True}
    external = f"customers/external/{customer['external_id']}/entitlements"
    assert await shop.get(external) == found
    one = await shop.get(external, feature_ids=other["id"], subscription_ids=second["id"])
    assert [each["feature"]["id"] for each in one["features"]] == [other["id"]]
    its = await shop.get(f"subscriptions/{first['id']}/entitlements")
    assert (its["plan_id"], len(its["features"])) == (plan["id"], 1)


async def test_the_console_says_where_a_use_is_billed_or_why_nowhere(shop: Shop) -> None:
    feature, other = await shop.feature(), await shop.feature()
    customer = await shop.customer()

    async def ask(when: str, what: Any = feature) -> Any:
        query = {"feature_id": what["id"], "at": when}
        return await shop.get(f"customers/{customer['id']}/billing", **query)

    when = "2030-03-01T00:00:00.000Z"
    nowhere = await ask(when)
    assert (nowhere["billed"], nowhere["reason"]) == (False, "feature_in_no_plan")
    plan, target = await shop.plan(feature), await shop.plan(feature, other)
    assert (await ask(when))["reason"] == "no_subscription"
    made = await shop.subscription(customer, plan, end_date="2031-01-01T00:00:00Z")
    limit = await shop.post("entitlements", plan_id=plan["id"], feature_id=feature["id"],
                            feature_type="metered", usage_limit=5)  # fmt: skip
    found = await ask(when)
    assert found["billed"]
    assert found["subscription"]["id"] == made["id"]
    assert found["price"]["plan_id"] == found["plan"]["id"] == plan["id"]
    assert found["entitlement"]["id"] == limit["id"]
    assert found["period_start"] == "2030-02-15T10:00:00.000Z"
    assert found["period_end"] == "2030-03-15T10:00:00.000Z"
    assert (await ask("2030-01-15T09:59:59.999Z"))["reason"] == "not_started"
    assert (await ask("2031-01-01T00:00:00Z"))["reason"] == "ended"
    absent = await ask(when, other)
    assert (absent["reason"], absent["subscription"]["id"]) == ("not_in_plan", made["id"])
    assert plan["id"] in absent["message"]
    change = {"target_plan_id": target["id"], "effective_date": when}
    await shop.post(f"subscriptions/{made['id']}/change/execute", 200, **change)
    assert (await ask(when, other))["price"]["plan_id"] == target["id"]
    assert (await ask("2030-02-28T23:59:59.999Z"))["price"]["plan_id"] == plan["id"]
    missing = await shop.client.get(f"/v1/customers/{customer['id']}/billing")
    assert missing.json()["errors"][0]["pointer"] == "/feature_id"


def resources(word: str) -> Iterable[tuple[str, str, Any]]:
    """Every method of the routes under a word: path, name and the method."""
    for resource in routes():
        if isinstance(resource, Resource) and f"/v1/{word}" in resource.path:
            for name, method in resource.methods_of.items():
                yield resource.path, name, method


def shape(value: Any) -> Any:
    """The names of a JSON value's fields, all the way down."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else None


async def sell_everything(shop: Shop) -> dict[str, str]:
    """One entity of each kind; the ids by the first part of their paths."""
    feature = await shop.feature()
    plan = await shop.plan(feature)
    price = (await shop.get("prices"))["items"][0]
    wish = {"plan_id": plan["id"], "feature_id": feature["id"], "feature_type": "metered"}
    entitlement = await shop.post("entitlements", **wish, usage_limit=3)
    customer = await shop.customer()
    subscription = await shop.subscription(customer, plan, start_date=ago(days=1))
    return {
        "plans": plan["id"],
        "prices": price["id"],
        "entitlements": entitlement["id"],
        "customers": customer["id"],
        "subscriptions": subscription["id"],
        "features": feature["id"],
        "target": (await shop.plan(feature))["id"],
    }


BODIES: dict[str, Any] = {
    "cancel": {"cancellation_type": "end_of_period"},
    "preview": {"target_plan_id": "plan_x"},
    "execute": {"target_plan_id": "plan_x"},
}


@pytest.mark.parametrize("word", ["plans", "prices", "entitlements", "subscriptions", "customers"])
async def test_another_accounts_ids_are_404_on_every_route(
    shop: Shop, connect: Connect, key_of: Callable[[str, list[Scope]], str], word: str
) -> None:
    ids = await sell_everything(shop)
    stranger = connect(key_of("stranger", list(Scope)))
    for path, name, _ in resources(word):
        if not path.startswith(f"/v1/{word}/{{id}}") or path.endswith("/usage"):
            continue
        body = BODIES.get(path.rpartition("/")[2], {"name": "theirs"} if name == "PUT" else None)
        place = path.replace("{id}", ids[word])
        answer = await stranger.request(name, place, json=body)
        assert answer.status_code == 404, (name, place, answer.text)
        assert ids[word] in answer.json()["error"]
    listed = await stranger.get(f"/v1/{word}")
    assert listed.json()["items"] == []


async def test_what_another_account_sells_can_not_be_bought(
    shop: Shop, connect: Connect, key_of: Callable[[str, list[Scope]], str]
) -> None:
    ids = await sell_everything(shop)
    stranger = Shop(connect(key_of("stranger", list(Scope))))
    feature, customer = await stranger.feature(), await stranger.customer()
    plan = await stranger.plan(feature)
    theirs = {"id": ids["plans"]}
    meter = (await shop.get("features"))["items"][0]["meter_id"]
    await stranger.refused("prices", 404, **flat(theirs, feature))
    await stranger.refused("prices", 404, **flat(plan, {"meter_id": meter}))
    limit = {"feature_type": "metered", "plan_id": plan["id"], "feature_id": ids["features"]}
    await stranger.refused("entitlements", 404, **limit)
    limit = {"feature_type": "metered", "plan_id": theirs["id"], "feature_id": feature["id"]}
    await stranger.refused("entitlements", 404, **limit)
    await stranger.refused("subscriptions", 404, **on(customer, theirs))
    await stranger.refused("subscriptions", 404, **on({"id": ids["customers"]}, plan))
    mine = await stranger.subscription(customer, plan)
    change = f"subscriptions/{mine['id']}/change/execute"
    await stranger.refused(change, 404, target_plan_id=theirs["id"])
    billing = f"/v1/customers/{customer['id']}/billing"
    answer = await stranger.client.get(billing, params={"feature_id": ids["features"]})
    assert answer.status_code == 404


async def test_the_answers_are_what_the_routes_say_they_give(shop: Shop) -> None:
    ids = await sell_everything(shop)
    bodies = BODIES | {
        "preview": {"target_plan_id": ids["target"]},
        "execute": {"target_plan_id": ids["target"]},
        "search": {},
    }
    seen = 0
    for word in ("plans", "prices", "entitlements", "subscriptions", "customers", "features"):
        for path, name, method in resources(word):
            last = path.rpartition("/")[2]
            if name == "DELETE" or last in ("usage", "sweep") or "{lookup_key}" in path:
                continue
            body = bodies.get(last, {} if name == "PUT" and "{id}" in path else None)
            if name != "GET" and body is None:
                continue
            customer = await shop.get(f"customers/{ids['customers']}")
            place = path.replace("{id}", ids[word])
            place = place.replace("{external_id:path}", customer["external_id"])
            query = {"feature_id": ids["features"]} if last == "billing" else {}
            answer = await shop.client.request(name, place, json=body, params=query)
            assert answer.status_code == method.status, (name, place, answer.text)
            adapter: TypeAdapter[Any] = TypeAdapter(method.gives)
            known = adapter.dump_python(adapter.validate_json(answer.content))
            assert shape(known) == shape(answer.json()), (name, place)
            seen += 1
    assert seen > 30
