"""What a dead letter becomes when it is replayed: which events, with which ids, or why none."""

import json
from typing import Any

import pytest

from console.replaying import Letter, Refused, events_of, text_of, with_customers
from schemas.limits import EVENTS_MAX
from schemas.position import Log, Point, position
from schemas.reading import read_json

LOG = Log("events.acme", 0, 3)
RECEIVED = 1_763_700_000_000
ONE = {"event_id": "e1", "event_name": "calls", "external_customer_id": "c"}


def letter(content: Any, place: int = 2) -> Letter:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Letter(f"events.acme-0-3-17-{place}", "code", RECEIVED, LOG, 17, place, body)


def nobody(customer_id: str) -> None:
    """No customer of ours."""


def test_an_event_keeps_its_position_and_receipt() -> None:
    [event] = events_of("acme", letter(ONE | {"properties": {"n": 1}, "source": "s"}), None, nobody)
    assert (event.account, event.event_id, event.event_name) == ("acme", "e1", "calls")
    assert (event.home, event.home_position) == (LOG, position(17, 2))
    assert (event.timestamp, event.timestamp_given, event.ingested_at) == (
        RECEIVED,
        False,
        RECEIVED,
    )
    assert (event.properties, event.source) == ('{"n": 1}', "s")
    assert event.superseded == Point(0, -1, 0)


def test_a_timestamp_that_was_given_stays() -> None:
    sent = ONE | {"timestamp": "2025-08-22T07:05:49.441Z"}
    [event] = events_of("acme", letter(sent), None, nobody)
    assert (event.timestamp, event.timestamp_given) == (1_755_846_349_441, True)


def test_an_event_without_an_id_gets_the_one_of_its_position_each_time() -> None:
    sent = {"event_name": "calls", "external_customer_id": "c"}
    ids = [events_of("acme", letter(b"{"), json.dumps(sent), nobody)[0].event_id for _ in range(2)]
    assert ids == ["events.acme-0-3-17-2"] * 2


def test_several_events_in_place_of_a_record_have_ids_no_event_of_the_record_could_have() -> None:
    sent = [ONE, {"event_name": "calls", "external_customer_id": "c"}]
    events = events_of("acme", letter(b"[{", 0), json.dumps(sent), nobody)
    assert [event.event_id for event in events] == ["e1", "events.acme-0-3-17-0-1"]
    assert [event.home_position for event in events] == [position(17, 0), position(17, 1)]


def test_a_customer_id_is_resolved() -> None:
    sent = {"event_name": "calls", "customer_id": "cust_1"}
    [event] = events_of("acme", letter(sent), None, lambda customer_id: f"ext of {customer_id}")
    assert event.external_customer_id == "ext of cust_1"


def test_customers_that_nobody_has_are_filled_in() -> None:
    sent = letter({"event_name": "calls", "customer_id": 'a"b', "properties": {"n": 1}})
    content = with_customers(sent, {'a"b': "acme inc"})
    assert content is not None
    [event] = events_of("acme", sent, content, nobody)
    assert (event.external_customer_id, event.properties) == ("acme inc", '{"n": 1}')
    assert with_customers(sent, {"other": "x"}) is None
    assert with_customers(sent, {}) is None
    assert with_customers(letter(b"{"), {"a": "x"}) is None
    assert with_customers(letter(ONE | {"customer_id": "a"}), {"a": "x"}) is None


@pytest.mark.parametrize(
    ("sent", "content", "code"),
    [
        (b"", None, "empty"),
        (b"{", None, "invalid_json"),
        (b"\xff", None, "invalid_utf8"),
        ([], None, "empty"),
        ({"event_name": "calls"}, None, "missing_field"),
        (ONE | {"timestamp": "soon"}, None, "invalid_timestamp"),
        ({"event_name": "calls", "customer_id": "cust_9"}, None, "unknown_customer_id"),
        (ONE | {"event_name": ""}, [ONE, ONE], "too_many_events"),
        (b"{", [ONE] * (EVENTS_MAX + 1), "too_many_events"),
        (b"{", {"event_name": "calls"}, "missing_field"),
    ],
)
def test_what_cannot_be_replayed_says_why(sent: Any, content: Any, code: str) -> None:
    text = None if content is None else json.dumps(content)
    with pytest.raises(Refused) as refused:
        events_of("acme", letter(sent), text, nobody)
    assert refused.value.code == code
    assert refused.value.detail


def test_numbers_of_a_correction_stay_as_they_were_written() -> None:
    text = '{"a":1.50,"b":[1E+400,123456789012345678901234567890],"c":{"d":-0.0}}'
    assert text_of(read_json(text.encode())) == text
