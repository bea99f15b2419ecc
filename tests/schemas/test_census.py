"""How many rows records have to make: the quick count and the exact one."""

import json
from typing import NamedTuple

import pytest

from schemas import census, resent
from schemas.census import rows_due, rows_of
from schemas.limits import BODY_BYTES_MAX, RECORD_EVENTS_MAX
from schemas.topics import GATEWAY_EVENTS, RESENT

EVENT = {"event_name": "calls", "external_customer_id": "cust"}


class Sent(NamedTuple):
    value: bytes | None
    account: str = "acme"


def sent(*events: object) -> Sent:
    return Sent(json.dumps(list(events)).encode())


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        (json.dumps(EVENT).encode(), 1),
        (json.dumps([EVENT] * 3).encode(), 3),
        (json.dumps({"events": [EVENT, {"no": "name"}]}).encode(), 2),
        (json.dumps([EVENT] * RECORD_EVENTS_MAX).encode(), RECORD_EVENTS_MAX),
        (json.dumps([EVENT] * (RECORD_EVENTS_MAX + 1)).encode(), 1),
        (b"[]", 1),
        (b"not JSON", 1),
        (b'{"event_name": "\xff"}', 1),
        (b" " * (BODY_BYTES_MAX + 1), 1),
        (b"", 1),
        (None, 1),
    ],
)
def test_every_event_makes_a_row_and_what_cannot_be_read_makes_one(
    value: bytes | None, rows: int
) -> None:
    assert rows_of(value) == rows


def test_a_lost_event_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [sent(EVENT, EVENT), sent(EVENT)]
    assert [rows_due(GATEWAY_EVENTS, records, made) for made in (2, 3, 4)] == [3, 3, 3]


def test_records_that_say_what_they_made_are_not_taken_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(census, "texts")
    assert rows_due(GATEWAY_EVENTS, [sent(EVENT, EVENT), sent(EVENT)], 3) == 3


@pytest.mark.parametrize(
    ("records", "rows"),
    [
        ([sent(EVENT | {"properties": {"event_name": "x"}})], 1),
        ([sent(EVENT, {"nameless": 1})], 2),
        ([sent(EVENT), Sent(b"garbage")], 2),
        ([Sent(sent(EVENT, EVENT).value, account="")], 1),
        ([Sent(None)], 1),
        ([], 0),
    ],
)
def test_the_word_in_other_places_or_missing_does_not_mislead(
    records: list[Sent], rows: int
) -> None:
    assert rows_due("events.acme", records, rows) == rows


def test_resent_records_make_their_events() -> None:
    nothing = Sent(resent.encode([]), account="")
    assert rows_due(RESENT, [nothing, Sent(b"garbage", account="")], 1) == 1
