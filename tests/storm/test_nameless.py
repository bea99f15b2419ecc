"""Events without ids are compared send by send."""

from datetime import UTC, datetime

import pytest

from tests.storm.events import Name, Nameless, Source, World
from tests.storm.findings import Findings
from tests.storm.journal import Copies, Journal
from tests.storm.nameless import compare

WORLD = World(7, datetime(2026, 11, 21, 12, tzinfo=UTC), {5: "cust_ours"})
NAME = Name(5, 6, 0)
EVENT = Nameless(NAME, "nameless-7-5", "", 12)


def found(copies: Copies, stored: dict[str, dict[str, int]]) -> tuple[int, int, int, int]:
    findings = Findings()
    total = compare({NAME: (EVENT, copies)}, stored, findings)
    return findings.lost, findings.doubled, len(findings.differing), total


@pytest.mark.parametrize(
    ("copies", "rows", "lost", "doubled"),
    [
        (Copies(1), 1, 0, 0),
        (Copies(1), 0, 1, 0),
        (Copies(1), 2, 0, 1),
        (Copies(2), 1, 1, 0),
        (Copies(1, 1), 1, 0, 0),
        (Copies(1, 1), 2, 0, 0),
        (Copies(1, 1), 3, 0, 1),
        (Copies(0, 1), 0, 0, 0),
    ],
)
def test_each_send_is_a_row(copies: Copies, rows: int, lost: int, doubled: int) -> None:
    stored = {str(NAME): {"counted": rows}} if rows else {}
    assert found(copies, stored) == (lost, doubled, 0, 12 * rows)


def test_none_is_a_duplicate() -> None:
    assert found(Copies(2), {str(NAME): {"counted": 1, "duplicate": 1}}) == (0, 0, 1, 12)


def test_what_nobody_sent_is_doubled() -> None:
    assert found(Copies(1), {str(NAME): {"counted": 1}, "x": {"counted": 2}}) == (0, 2, 1, 12)


def test_they_have_neither_id_nor_time_and_some_name_their_customer_by_our_id() -> None:
    source = Source(WORLD, 5, 6, 7, lambda _: False)
    sents = [source.nameless_bulk(5, 5), source.nameless_array(30, 30)]
    each = [event.fields for sent in sents for event in sent.nameless]
    assert not any(fields.keys() & {"event_id", "timestamp"} for fields in each)
    assert {fields.get("customer_id") for fields in each} == {"cust_ours", None}
    assert {fields.get("external_customer_id") for fields in each} == {"nameless-7-5", None}
    assert len({fields["properties"]["serial"] for fields in each}) == 35
    journal = Journal()
    for sent in sents:
        journal.note(5, "without ids", sent, "acked")
    assert {copies.acked for _, copies in journal.rounds[5].nameless.values()} == {1}
    assert journal.outcomes["acked"] == 35
