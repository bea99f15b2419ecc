"""The product's page "Troubleshooting Event Ingestion": each cause is provoked; the API shows it.

Every test has the number of its entry on that page.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from catalog.keys import new_key
from tests.e2e.running import Tallylog, client, until

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def account(tallylog: Tallylog) -> Iterator[Tallylog]:
    """An account of its own, with the feature and the customer of the page."""
    with tallylog.as_account(f"trouble-{uuid4().hex[:8]}") as own:
        post(own, "features", name="Model usage", meter=MODEL_USAGE)
        post(own, "customers", external_id="cust_123")
        yield own


MODEL_USAGE = {"event_name": "model.usage", "aggregation": {"type": "SUM", "field": "credits"}}


def post(account: Tallylog, path: str, status: int = 201, /, **body: Any) -> Answer:
    answer = account.http.post(f"/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    told: Answer = answer.json()
    return told


def get(account: Tallylog, path: str, status: int = 200, /, **params: Any) -> Answer:
    answer = account.http.get(f"/v1/{path}", params=params)
    assert answer.status_code == status, answer.text
    told: Answer = answer.json()
    return told


def event(**changed: Any) -> Answer:
    sent = {"event_name": "model.usage", "external_customer_id": "cust_123"}
    return sent | {"event_id": uuid4().hex, "properties": {"credits": 2}} | changed


def life(account: Tallylog, sent: Answer) -> Answer:
    """Send an event, and what the debugger says once it has a verdict."""
    post(account, "events", 202, **sent)
    until(lambda: get(account, f"events/{sent['event_id']}")["status"] != "processing", True)
    return get(account, f"events/{sent['event_id']}")


def failure(told: Answer) -> tuple[str, str]:
    """The step that failed first, and its code."""
    point = told["debug_tracker"]["failure_point"]
    return point["failure_point_type"], point["error"]["code"]


def warnings(told: Answer) -> list[str]:
    return [each["code"] for each in told["warnings"]]


def checks(told: Answer) -> dict[str, Answer]:
    return {each["check"]: each for each in told["checklist"]}


def sold(account: Tallylog, *before: Answer, **free: Any) -> tuple[Answer, Answer, Answer]:
    """A feature on a plan, a customer on that plan: (feature, plan, subscription).

    What is `before` changes an event each that is counted before the customer is on the plan.
    """
    name = f"sold.{uuid4().hex[:8]}"
    meter = MODEL_USAGE | {"event_name": name}
    feature = post(account, "features", name=name, meter=meter)
    plan = post(account, "plans", name="Pro")
    post(account, "prices", **price(plan, feature))
    if free:
        named = {"plan_id": plan["id"], "feature_id": feature["id"], "feature_type": "metered"}
        post(account, "entitlements", **named, **free)
    customer = post(account, "customers", external_id=name)
    for changed in before:
        life(account, of(feature, **changed))
    subscription = subscribe(account, customer, plan)
    return feature, plan, subscription


def price(plan: Answer, feature: Answer) -> Answer:
    return {
        "amount": "0.05", "currency": "USD", "entity_type": "PLAN", "entity_id": plan["id"],
        "type": "USAGE", "price_unit_type": "FIAT", "billing_period": "MONTHLY",
        "billing_model": "FLAT_FEE", "invoice_cadence": "ARREAR", "meter_id": feature["meter_id"],
    }  # fmt: skip


def subscribe(account: Tallylog, customer: Answer, plan: Answer) -> Answer:
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = (month - timedelta(days=1)).replace(day=1)
    return post(
        account, "subscriptions", customer_id=customer["id"], plan_id=plan["id"], currency="USD",
        billing_period="MONTHLY", start_date=start.isoformat(),
    )  # fmt: skip


def of(feature: Answer, **changed: Any) -> Answer:
    """An event of a feature that was sold to the customer of its own name."""
    name = feature["meter"]["event_name"]
    return event(event_name=name, external_customer_id=name, **changed)


def test_1a_an_event_name_in_another_case_is_named_with_the_right_one(account: Tallylog) -> None:
    told = life(account, event(event_name="Model.Usage"))
    assert (told["status"], told["verdict"]) == ("failed", "unknown_event_name")
    assert failure(told) == ("meter_lookup", "unknown_event_name")
    assert "Is it 'model.usage'?" in told["cure"]
    listed = get(account, "events", verdict="unknown_event_name")["events"]
    assert told["event"] in listed


def test_1b_a_customer_that_does_not_exist_is_named_and_counts_once_created(
    account: Tallylog,
) -> None:
    told = life(account, event(external_customer_id="cust_nobody"))
    assert (told["verdict"], warnings(told)[0]) == ("counted", "unknown_customer")
    assert failure(told) == ("customer_lookup", "unknown_customer")
    post(account, "customers", external_id="cust_nobody")
    again = get(account, f"events/{told['event']['id']}")
    assert again["debug_tracker"]["customer_lookup"]["status"] == "found"


def test_1c_a_feature_that_is_archived_says_so_and_counts_once_it_is_back(
    account: Tallylog,
) -> None:
    name = f"archived.{uuid4().hex[:8]}"
    feature = post(account, "features", name=name, meter=MODEL_USAGE | {"event_name": name})
    assert account.http.delete(f"/v1/features/{feature['id']}").status_code == 200
    sent = event(event_name=name)
    told = life(account, sent)
    assert (told["status"], told["verdict"]) == ("failed", "feature_archived")
    assert "unarchive it" in told["cure"]
    assert told["feature"]["status"] == "archived"
    url = f"/v1/features/{feature['id']}"
    assert account.http.put(url, json={"status": "published"}).status_code == 200
    until(lambda: get(account, f"events/{sent['event_id']}")["verdict"], "counted")
    told = get(account, f"events/{sent['event_id']}")
    assert [row["verdict"] for row in told["history"]] == ["feature_archived"]
    assert [step["step"] for step in told["timeline"]] == [
        "received", "feature_archived", "counted",
    ]  # fmt: skip


def test_2a_and_2c_a_property_that_is_missing_is_named(account: Tallylog) -> None:
    for sent in (event(properties={"tokens": 2}), event(properties={})):
        told = life(account, sent)
        assert (told["status"], told["verdict"]) == ("failed", "missing_property")
        assert told["detail"] == "credits is missing"
        assert "exact, case-sensitive name" in told["cure"]


def test_2b_a_text_where_a_number_belongs_is_named_and_a_numeric_one_warned_of(
    account: Tallylog,
) -> None:
    told = life(account, event(properties={"credits": "two"}))
    assert (told["verdict"], told["detail"]) == ("wrong_type", 'credits is "two"')
    told = life(account, event(properties={"credits": "2"}))
    assert (told["status"], told["verdict"]) == ("processed", "counted")
    assert warnings(told)[0] == "numeric_string"
    assert told["processed_events"][0]["qty_total"] == "2"


def test_3a_a_feature_in_no_plan_is_said_to_be_in_none(account: Tallylog) -> None:
    told = life(account, event())
    assert (told["verdict"], told["billing"]["billed"]) == ("counted", False)
    assert failure(told) == ("price_lookup", "feature_in_no_plan")
    assert "no_active_subscription" in warnings(told)


def test_3b_a_customer_without_a_subscription_is_said_to_have_none(account: Tallylog) -> None:
    feature, plan, subscription = sold(account)
    told = life(account, of(feature) | {"external_customer_id": "cust_123"})
    assert failure(told) == ("subscription_line_item_lookup", "no_subscription")
    told = life(account, of(feature))
    assert "failure_point" not in told["debug_tracker"]
    assert told["billing"]["subscription"]["id"] == subscription["id"]
    assert told["processed_events"][0]["subscription_id"] == subscription["id"]
    other = post(account, "features", name="Other", meter=MODEL_USAGE | {"event_name": "other"})
    post(account, "prices", **price(post(account, "plans", name="Other"), other))
    sent = of(feature) | {"event_name": "other"}
    told = life(account, sent)
    assert failure(told) == ("price_lookup", "not_in_plan")
    assert plan["id"] in told["billing"]["message"]


def test_an_event_that_does_not_count_is_not_said_to_be_billed(account: Tallylog) -> None:
    feature, _, _ = sold(account)
    told = life(account, of(feature, properties={"credits": "two"}))
    assert (told["verdict"], told["billing"]) == ("wrong_type", None)
    steps = told["debug_tracker"]
    assert steps["price_lookup"]["status"] == "unprocessed"
    assert steps["subscription_line_item_lookup"]["status"] == "unprocessed"


def test_3c_usage_below_the_free_tier_costs_nothing_and_shows_why(account: Tallylog) -> None:
    feature, _, subscription = sold(account, usage_limit=10, is_enabled=True)
    life(account, of(feature, properties={"credits": 4}))
    preview = post(account, "invoices/preview", 200, subscription_id=subscription["id"])
    [line] = preview["line_items"]
    free = line["adjusted_entitlement_quantity"]
    assert (Decimal(line["amount"]), Decimal(free)) == (Decimal(0), Decimal(4))
    life(account, of(feature, properties={"credits": 8}))
    preview = post(account, "invoices/preview", 200, subscription_id=subscription["id"])
    assert Decimal(preview["total"]) == Decimal("0.10")


def test_3d_an_event_of_another_billing_period_shows_which(account: Tallylog) -> None:
    feature, _, _ = sold(account)
    now = datetime.now(UTC)
    before = now.replace(day=1) - timedelta(days=1)
    told = life(account, of(feature, timestamp=before.isoformat()))
    billing = told["billing"]
    assert billing["period_start"] <= told["event"]["timestamp"] < billing["period_end"]
    assert billing["period_end"] <= now.isoformat()
    told = life(account, of(feature, timestamp=(now - timedelta(days=400)).isoformat()))
    assert failure(told) == ("subscription_line_item_lookup", "not_started")


def test_3d_an_event_shows_the_invoice_line_that_it_is_in_once_its_period_is_closed(
    account: Tallylog,
) -> None:
    last_month = (datetime.now(UTC).replace(day=1) - timedelta(days=1)).isoformat()
    early = {"event_id": uuid4().hex, "timestamp": last_month}
    feature, _, subscription = sold(account, early)

    def closed() -> list[Answer]:
        found = get(account, "invoices", subscription_id=subscription["id"])["items"]
        return [each for each in found if each["line_items"]]

    until(lambda: len(closed()), 1)
    [invoice] = closed()
    [line] = invoice["line_items"]
    assert get(account, f"events/{early['event_id']}")["invoice"] == {
        "invoice_id": invoice["id"],
        "invoice_number": invoice["invoice_number"],
        "line_id": line["id"],
        "adjustment": False,
    }
    told = life(account, of(feature, timestamp=last_month))
    assert (told["billing"]["billed"], told["invoice"]) == (True, None)
    assert life(account, of(feature))["invoice"] is None


def test_5a_what_a_cumulative_feature_counted_before_the_subscription_shows_its_first_invoice(
    account: Tallylog,
) -> None:
    name = f"level.{uuid4().hex[:8]}"
    meter = MODEL_USAGE | {"event_name": name, "reset_usage": "NEVER"}
    feature = post(account, "features", name=name, meter=meter)
    plan = post(account, "plans", name="Pro")
    post(account, "prices", **price(plan, feature))
    customer = post(account, "customers", external_id=name)
    before = (datetime.now(UTC) - timedelta(days=100)).isoformat()
    told = life(account, of(feature, timestamp=before))
    assert failure(told) == ("subscription_line_item_lookup", "no_subscription")
    subscription = subscribe(account, customer, plan)
    url = f"events/{told['event']['id']}"
    until(lambda: get(account, url)["invoice"] is not None, True)
    told = get(account, url)
    [invoice] = get(account, "invoices", subscription_id=subscription["id"], order="asc")["items"]
    assert (told["billing"]["billed"], warnings(told)) == (True, [])
    assert told["billing"]["period_start"] == invoice["period_start"]
    assert told["invoice"]["line_id"] == invoice["line_items"][0]["id"]


def test_4a_a_bad_request_names_the_field_before_and_after_it_is_sent(account: Tallylog) -> None:
    sent = {"external_customer_id": "cust_123"}
    assert post(account, "events", 400, **sent)["error"] == "Missing required field: event_name"
    told = checks(post(account, "events/debug", 200, event=sent))
    assert told["required_fields"]["passed"] is False
    assert told["required_fields"]["detail"] == "Missing required field: event_name"
    told = checks(post(account, "events/debug", 200, event=event(timestamp="yesterday")))
    assert "write ISO 8601" in told["required_fields"]["detail"]


def test_4b_a_key_that_is_wrong_revoked_or_without_its_scope_is_told_apart(
    account: Tallylog,
) -> None:
    with client(account.base_url, "wrong") as http:
        assert http.post("/v1/events", json=event()).status_code == 401
    made = post(account, "secrets/api/keys", name="reader", scopes=["read"])
    with client(account.base_url, made["api_key"]) as http:
        answer = http.post("/v1/events", json=event())
        assert (answer.status_code, answer.json()["details"]["scope"]) == (403, "ingest")
        line = checks(http.post("/v1/events/debug", json={"event": event()}).json())["api_key"]
        assert line["passed"] is True and "'reader' lacks the scope 'ingest'" in line["detail"]
        url = f"/v1/secrets/api/keys/{made['secret']['id']}"
        assert account.http.delete(url).status_code == 204
        until(lambda: http.get("/v1/events").status_code, 401)
    line = checks(post(account, "events/debug", 200, event=event()))["api_key"]
    assert "'reader' was revoked" in line["detail"]


def test_4c_too_many_requests_are_told_when_to_come_back_and_that_bulk_is_cheaper(
    account: Tallylog,
) -> None:
    made = post(account, "secrets/api/keys", name="slow", requests_per_minute=3)
    with client(account.base_url, made["api_key"]) as http:
        sent = [http.post("/v1/events", json=event()).status_code for _ in range(4)]
        assert sent == [202, 202, 202, 429]
        answer = http.post("/v1/events", json=event())
        assert answer.json()["error"] == "Rate limit exceeded"
        assert "/v1/events/bulk" in answer.json()["message"]
        assert 1 <= int(answer.headers["Retry-After"]) <= 61
        assert answer.headers["X-RateLimit-Limit"] == "3"
        bulk = http.post("/v1/events/bulk", json={"events": [event()] * 100})
        assert bulk.status_code == 202
        url = f"/v1/secrets/api/keys/{made['secret']['id']}"
        assert account.http.put(url, json={"requests_per_minute": 0}).status_code == 200
        until(lambda: http.post("/v1/events", json=event()).status_code, 202)


def test_no_key_is_in_any_log(account: Tallylog) -> None:
    guess = new_key()
    for path in (f"events?x-api-key={account.api_key}", f"events?api_key={account.api_key}"):
        with client(account.base_url, guess) as http:
            assert http.get(f"/v1/{path}").status_code == 401  # the URL opens nothing
    get(account, "events")
    post(account, "events", 400)
    logs = [log.read_bytes() for log in Path(account.data_dir, "logs").glob("*.log")]
    assert any(logs)
    for key in (account.api_key, guess):
        assert not any(key.encode() in log for log in logs)


def test_5a_a_usage_reset_is_shown_and_every_change_of_it_kept(account: Tallylog) -> None:
    name = f"reset.{uuid4().hex[:8]}"
    feature = post(account, "features", name=name, meter=MODEL_USAGE | {"event_name": name})
    url = f"/v1/features/{feature['id']}"
    wish = {"meter": {"reset_usage": "NEVER"}}
    assert account.http.put(url, json=wish).status_code == 200
    told = life(account, event(event_name=name))
    assert told["feature"]["meter"]["reset_usage"] == "NEVER"
    history = get(account, f"features/{feature['id']}/history")["items"]
    resets = {each["after"]["meter"]["reset_usage"] for each in history}
    assert resets == {"BILLING_PERIOD", "NEVER"}


def test_5b_what_changed_a_subscription_is_in_its_history(account: Tallylog) -> None:
    _, _, subscription = sold(account)
    path = f"subscriptions/{subscription['id']}"
    post(account, f"{path}/cancel", 200, cancellation_type="immediate")
    history = get(account, f"{path}/history")["items"]
    assert len(history) == 2
    assert {"after", "before", "at", "actor", "version"} <= set(history[0])


def test_6_duplicates_point_at_the_first_and_the_first_at_them(account: Tallylog) -> None:
    sent = event()
    first = life(account, sent)
    post(account, "events", 202, **sent)
    post(account, "events", 202, **sent | {"properties": {"credits": 3}})

    def repeats() -> int:
        count: int = get(account, f"events/{sent['event_id']}")["duplicates"]["count"]
        return count

    until(repeats, 2)
    told = get(account, f"events/{sent['event_id']}")
    assert (told["verdict"], told["position"]) == ("counted", first["position"])
    rows = told["duplicates"]["items"]
    assert [row["warnings"] for row in rows] == [[], ["content_differs"]]
    listed = get(account, "events", event_id=sent["event_id"], verdict="duplicate")
    assert listed["total_count"] == 2
    other = life(account, event(event_id=sent["event_id"], external_customer_id="cust_other"))
    assert other["duplicates"]["count"] >= 2
    theirs = get(account, "events/lookup", id=sent["event_id"], external_customer_id="cust_other")
    assert (theirs["verdict"], theirs["status"]) == ("duplicate", "processed")


def missing(account: Tallylog, path: str, **query: Any) -> Answer:
    """The 404 of an event: it comes once all that was received before the question is counted."""
    asked: list[httpx.Response] = []

    def status() -> int:
        asked.append(account.http.get(f"/v1/{path}", params=query))
        return asked[-1].status_code

    until(status, 404)
    told: Answer = asked[-1].json()
    return told


def test_an_id_that_never_came_is_404_with_the_checklist(account: Tallylog) -> None:
    hints = {"event_name": "Model.Usage", "external_customer_id": "cust_nowhere"}
    told = missing(account, "events/lookup", id="never-sent", properties='{"x":1}', **hints)
    found = {each["check"]: each["passed"] for each in told["details"]["checklist"]}
    assert found == {
        "feature": False, "event_name": False, "customer": False, "api_key": True,
        "endpoint": True, "required_fields": True, "aggregation_field": None,
        "subscription": None,
    }  # fmt: skip
    assert "model.usage" in checks(told["details"])["event_name"]["detail"]
    assert missing(account, "events/never-sent")["details"]["dead_letters"] == []
    bad = get(account, "events/lookup", 400, id="x", properties="{")
    assert [each["pointer"] for each in bad["errors"]] == ["/properties"]


def test_an_event_that_would_count_passes_the_whole_checklist(account: Tallylog) -> None:
    feature, _, _ = sold(account)
    told = post(account, "events/debug", 200, event=of(feature))
    assert [each["passed"] for each in told["checklist"]] == [True] * 8
    assert told["received"] is False


def test_no_account_sees_anothers_event(account: Tallylog, tallylog: Tallylog) -> None:
    told = life(account, event())
    path = f"events/{told['event']['id']}"
    answer = tallylog.http.get(f"/v1/{path}")
    assert answer.status_code == 404
    assert get(account, path)["status"] == "processed"
