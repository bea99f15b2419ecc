"""From a body to a record, or to every fault in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingest_gateway.errors import NotInCatalog
from ingest_gateway.intake import Edge, Taken, take
from schemas.errors import InvalidRequest
from schemas.event import read
from schemas.ids import event_id_at
from schemas.limits import EVENTS_MAX

NOW = 1_755_846_349_441
FIRST_ID = "01K389J4M1F1NZG6XP0AMD6J52"
EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"


class Names:
    """A catalog of one active and one archived feature, and one customer."""

    version = 7

    class _Feature:
        def __init__(self, active: bool) -> None:
            self.active = active

    def feature_at(self, account: str, event_name: str, version: int) -> Any:
        known = {"api.calls": self._Feature(True), "old.calls": self._Feature(False)}
        return known.get(event_name) if account == "acme" and version == 7 else None

    def customer_status(self, account: str, external_id: str, version: int) -> str:
        return {"cust_1": "active", "cust_old": "archived"}.get(external_id, "unknown")

    def external_id_of(self, account: str, customer_id: str) -> str | None:
        return {("acme", "cust_01"): 'é"1'}.get((account, customer_id))


def make_event(**fields: Any) -> dict[str, Any]:
    return {"event_name": "api.calls", "external_customer_id": "cust_1"} | fields


def edge(strict: bool = False) -> Edge:
    return Edge("acme", NOW, strict, new_id=lambda: FIRST_ID)


def taken(body: Any, *, bulk: bool = False, strict: bool = False) -> Taken:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return take(text, bulk=bulk, edge=edge(strict), names=Names())


def refusal(body: Any, *, bulk: bool = False, strict: bool = False) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        taken(body, bulk=bulk, strict=strict)
    return raised.value


@pytest.mark.parametrize(("name", "bulk"), [("gateway-event", False), ("gateway-bulk", True)])
def test_the_examples_are_what_the_gateway_writes(name: str, bulk: bool) -> None:
    example = json.loads((EXAMPLES / f"{name}.json").read_text())
    record = taken(example["value"].encode(), bulk=bulk)
    assert record.value == example["value"].encode()
    assert {key: value.decode() for key, value in record.headers} == example["headers"]
    assert bulk or record.event_id == example["answer"]["event_id"]


def test_the_record_is_the_body_as_it_was_sent() -> None:
    body = b' {"event_name":"a",\n "external_customer_id":"c", "event_id":"e", "x": 1.50e1 } '
    assert taken(body) == Taken(
        value=body,
        headers=[("account", b"acme"), ("received-at", b"%d" % NOW)],
        count=1,
        event_id="e",
    )


def test_an_event_without_an_id_gets_one_that_counts_up_from_the_header() -> None:
    assert taken(make_event()).event_id == f"event_{FIRST_ID}"
    record = taken([make_event(event_id="mine"), make_event()], bulk=True)
    assert ("first-id", FIRST_ID.encode()) in record.headers
    assert (record.count, record.event_id) == (2, "mine")
    assert event_id_at(FIRST_ID, 0) == "event_01K389J4M1F1NZG6XP0AMD6J52"
    assert event_id_at(FIRST_ID, 30) == "event_01K389J4M1F1NZG6XP0AMD6J60"


def test_our_customer_id_becomes_the_external_one_and_the_rest_stays() -> None:
    ours = b'{"event_name":"a","customer_id":"cust_01","properties":{"x":1.50}}'
    single = taken(ours).value
    assert single == (
        b'{"event_name":"a","customer_id":"cust_01","properties":{"x":1.50},'
        b'"external_customer_id":"\xc3\xa9\\"1"}'
    )
    other = b'{ "event_name" : "b", "external_customer_id":"c" }'
    for body in (b"[%s,%s]" % (ours, other), b'{"events":[%s,%s]}' % (ours, other)):
        assert taken(body, bulk=True).value == b'{"events":[%s,%s]}' % (single, other)


def test_an_unknown_customer_id_is_named_and_may_be_looked_up_again() -> None:
    rejection = refusal([make_event(), {"event_name": "a", "customer_id": "nobody"}], bulk=True)
    assert isinstance(rejection, NotInCatalog)
    assert rejection.error == "Customer with customer_id 'nobody' not found"
    assert [(f.pointer, f.code) for f in rejection.errors] == [
        ("/events/1/customer_id", "unknown_customer_id")
    ]


@pytest.mark.parametrize(
    ("body", "bulk", "error", "pointer"),
    [
        ({"external_customer_id": "c"}, False, "Missing required field: event_name", "/event_name"),
        (
            {"event_name": "a"},
            False,
            "Missing required field: external_customer_id",
            "/external_customer_id",
        ),
        (make_event(timestamp="soon"), False, "Invalid timestamp format", "/timestamp"),
        ({"events": []}, True, "Empty events array", "/events"),
        ([], True, "Empty events array", "/events"),
        ({}, True, "Missing required field: events", "/events"),
        (make_event(), True, "Missing required field: events", "/events"),
        (
            [make_event()] * (EVENTS_MAX + 1),
            True,
            "More than 1000 events in a single request",
            "/events",
        ),
        (b"", False, "the body is empty: send a JSON event", ""),
        (b'"x"', True, 'send {"events": [...]} or an array of events', ""),
        ([make_event()], False, "send one event as a JSON object; several are a bulk", ""),
    ],
)
def test_a_refusal_says_what_the_documents_say_and_where(
    body: Any, bulk: bool, error: str, pointer: str
) -> None:
    rejection = refusal(body, bulk=bulk)
    assert (rejection.status, rejection.error) == (400, error)
    assert rejection.errors[0].pointer == pointer


def test_every_bad_event_of_a_bulk_is_listed_up_to_a_hundred() -> None:
    bad = {"external_customer_id": "c"}
    rejection = refusal([make_event(), bad, make_event(), bad], bulk=True)
    assert rejection.error == "Missing required field: event_name"
    assert rejection.message == (
        "Missing required field: event_name: in events[1], 1 more in `errors`"
    )
    assert [(fault.pointer, fault.detail) for fault in rejection.errors] == [
        ("/events/1/event_name", "events[1]: Missing required field: event_name"),
        ("/events/3/event_name", "events[3]: Missing required field: event_name"),
    ]
    many = refusal([bad] * 500, bulk=True)
    assert len(many.errors) == 100
    assert many.details == {"count": 500}


def test_lenient_takes_names_and_customers_that_nobody_knows() -> None:
    assert taken(make_event(event_name="unknown.event", external_customer_id="x")).count == 1


def test_strict_refuses_them_with_the_documented_texts() -> None:
    assert taken(make_event(), strict=True).count == 1
    assert taken(make_event(external_customer_id="cust_old"), strict=True).count == 1
    rejection = refusal(make_event(event_name="unknown.event"), strict=True)
    assert rejection.error == "Event name 'unknown.event' not found"
    rejection = refusal(make_event(external_customer_id="invalid_id"), strict=True)
    assert rejection.error == "Customer with external_customer_id 'invalid_id' not found"
    rejection = refusal([make_event(), make_event(event_name="old.calls")], bulk=True, strict=True)
    assert isinstance(rejection, NotInCatalog)
    assert rejection.errors[0].pointer == "/events/1/event_name"


def test_what_one_route_takes_the_packer_reads_the_same() -> None:
    for body, bulk in ((make_event(), False), ([make_event()] * 3, True)):
        record = taken(body, bulk=bulk)
        assert len(read(record.value, now_ms=None).events) == record.count
