"""The checklist: each line passes, fails with a cure, or says which hint it needs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from console.checklist import Facts, KeySeen, checklist, near_names
from schemas.catalog import Scope, Status
from tests.stream_workers.worlds import make_feature

NOW = datetime(2025, 8, 22, 12, tzinfo=UTC)
GOOD_KEY = KeySeen("main", frozenset(Scope), None, None)
SENT = b'{"event_name":"model.usage","external_customer_id":"c","properties":{"credits":2}}'
FEATURE = make_feature("SUM", "credits", event_name="model.usage")
ALL_GOOD: dict[str, Any] = {
    "body": SENT,
    "now": NOW,
    "features": [FEATURE],
    "customer": "active",
    "keys": [GOOD_KEY],
    "last_received": (NOW, "gateway-events"),
    "billing": "",
}


def lines(
    name: str | None = "model.usage", whose: str | None = "c", **changed: Any
) -> dict[str, tuple[bool | None, str]]:
    found = checklist(Facts(**(ALL_GOOD | changed)), name, whose)
    return {each["check"]: (each["passed"], each["detail"]) for each in found}


def failed(found: dict[str, tuple[bool | None, str]]) -> list[str]:
    return [check for check, (passed, _) in found.items() if passed is False]


def test_an_event_with_nothing_wrong_passes_every_line() -> None:
    found = lines()
    assert [passed for passed, _ in found.values()] == [True] * 8


def test_without_hints_each_line_says_which_it_needs() -> None:
    found = lines(None, None, body=None, customer=None, billing=None)
    assert failed(found) == []
    for check in ("feature", "event_name", "customer", "required_fields"):
        passed, detail = found[check]
        assert passed is None and ("say which" in detail or "/v1/events/debug" in detail)


def test_a_name_in_another_case_is_named() -> None:
    found = lines("Model.Usage")
    assert failed(found) == ["feature", "event_name"]
    assert "is it 'model.usage'?" in found["event_name"][1]
    assert "Event name 'Model.Usage' not found" in found["feature"][1]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("model.usage", ["Model.Usage", "model.usages"]),
        ("modelusage", ["Model.Usage", "model.usages"]),
        ("zzz", []),
    ],
)
def test_near_names_are_those_in_another_case_first(name: str, near: list[str]) -> None:
    assert near_names(name, ["model.usages", "Model.Usage", "api.calls"]) == near


def test_an_archived_feature_fails_the_first_line_only() -> None:
    archived = make_feature("COUNT", event_name="model.usage", status=Status.ARCHIVED)
    found = lines(features=[archived])
    assert failed(found) == ["feature"]
    assert "unarchive it" in found["feature"][1]


@pytest.mark.parametrize(("status", "cure"), [("unknown", "create it"), ("archived", "published")])
def test_a_customer_that_is_not_there_fails(status: str, cure: str) -> None:
    found = lines(customer=status)
    assert failed(found) == ["customer"]
    assert cure in found["customer"][1]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (KeySeen("k", frozenset(Scope), None, NOW), "was revoked"),
        (KeySeen("k", frozenset(Scope), NOW - timedelta(days=1), None), "expired at"),
        (KeySeen("k", frozenset({Scope.READ}), None, None), "lacks the scope 'ingest'"),
    ],
)
def test_keys_that_cannot_send_are_named(key: KeySeen, why: str) -> None:
    assert why in lines(keys=[key])["api_key"][1]
    assert failed(lines(keys=[key])) == ["api_key"]
    passed, detail = lines(keys=[GOOD_KEY, key])["api_key"]
    assert passed is True and why in detail


def test_an_account_that_sends_nothing_is_told_where_to() -> None:
    passed, detail = lines(last_received=None)["endpoint"]
    assert passed is None and "POST /v1/events" in detail


def test_a_payload_without_its_required_fields_fails_with_their_names() -> None:
    found = lines(body=b'{"external_customer_id":"c"}')
    assert found["required_fields"] == (False, "Missing required field: event_name")


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ('{"tokens":2}', "credits is missing"),
        ('{"credits":"two"}', 'credits is "two"'),
        ("{}", "credits is missing"),
    ],
)
def test_a_payload_that_would_not_count_says_why(properties: str, why: str) -> None:
    body = SENT.replace(b'{"credits":2}', properties.encode())
    found = lines(body=body)
    assert failed(found) == ["aggregation_field"]
    assert found["aggregation_field"][1].startswith(why)


def test_a_number_in_a_text_counts_with_a_warning() -> None:
    body = SENT.replace(b'"credits":2', b'"credits":"2"')
    passed, detail = lines(body=body)["aggregation_field"]
    assert passed is True and "numeric_string" in detail


def test_no_subscription_fails_the_last_line() -> None:
    assert lines(billing="no plan has it")["subscription"] == (False, "no plan has it")
