"""Which names are looked through, how far, and what goes into a record."""

import msgspec
import pyarrow as pa
import pytest

from console.late_events import (
    RECORD_BYTES,
    RECORD_EVENTS,
    TIME_MARGIN_MS,
    Key,
    Mark,
    Name,
    Newer,
    Pass,
    Record,
    Row,
    Sent,
    Slot,
    Worklist,
    records,
    rows,
)
from schemas import resent
from schemas.catalog import Aggregation, Feature, Reset, Status
from schemas.position import Log, Point, position
from schemas.resent import Resent

CALLS = Name("acme", "calls")
NOW = 1_763_700_000_000
ONE, TWO = Slot(0, 1), Slot(0, 2)


def make_feature(name: Name = CALLS, version: int = 1, active: bool = True) -> Feature:
    return Feature(
        id=f"feat_{name.event_name}", meter_id="m", account=name.account,
        event_name=name.event_name, aggregation=Aggregation.COUNT, field=None, multiplier=None,
        bucket_size=None, group_by=None, filters=(), reset_usage=Reset.BILLING_PERIOD,
        status=Status.PUBLISHED if active else Status.ARCHIVED, created_version=1, version=version,
    )  # fmt: skip


def make_row(number: int = 0, slot: Slot = ONE, properties: str = "{}") -> Row:
    event = Resent(
        account="acme", event_id=f"id{number}", event_name="calls", external_customer_id="cust",
        timestamp=NOW, timestamp_given=True, ingested_at=NOW, source="", properties=properties,
        home=Log("gateway-events", 0, 0), home_position=number,
        superseded=Point(slot.epoch, 7, number),
    )  # fmt: skip
    return Row(event, slot)


def quiet() -> Worklist:
    """A worklist that has looked through the one active feature."""
    worklist = Worklist()
    worklist.see_features([make_feature()])
    worklist.reached({ONE: Mark(5, NOW)})
    worklist.finish(CALLS, worklist.passes[CALLS])
    assert worklist.passes == {}
    return worklist


# The worklist


def test_at_the_start_every_active_feature_is_looked_through() -> None:
    worklist = Worklist()
    worklist.see_features([make_feature(), make_feature(Name("acme", "old"), active=False)])
    assert worklist.newer({ONE: Mark(5, NOW)}) is None
    assert worklist.passes == {CALLS: Pass(since=0)}


def test_a_feature_that_becomes_active_is_looked_through_whole() -> None:
    worklist = quiet()
    worklist.see_features([make_feature()])
    assert worklist.passes == {}
    worklist.see_features([make_feature(version=2, active=False)])
    assert worklist.passes == {}
    worklist.see_features([make_feature(version=3)])
    assert worklist.passes == {CALLS: Pass(since=0)}


def test_a_feature_archived_and_back_between_two_looks_is_noticed() -> None:
    worklist = quiet()
    worklist.see_features([make_feature(version=3)])
    assert worklist.passes == {CALLS: Pass(since=0)}


def test_a_feature_that_is_archived_is_left_alone_at_once() -> None:
    worklist = Worklist()
    worklist.see_features([make_feature()])
    worklist.see_features([make_feature(version=2, active=False)])
    assert worklist.passes == {}
    assert not worklist.is_active(CALLS)


def test_an_archived_feature_of_the_same_name_does_not_hide_the_active_one() -> None:
    worklist = Worklist()
    worklist.see_features([make_feature(), make_feature(version=9, active=False)])
    assert worklist.is_active(CALLS)


def test_without_new_blocks_nothing_is_asked() -> None:
    assert quiet().newer({ONE: Mark(5, NOW)}) is None


def test_new_blocks_are_asked_for_by_offset_and_pruned_by_time() -> None:
    newer = quiet().newer({ONE: Mark(6, NOW + 1)})
    assert newer == Newer(since=NOW - TIME_MARGIN_MS, lowest=5, slots=[1], afters=[5])


def test_a_slot_seen_for_the_first_time_is_asked_for_from_its_beginning() -> None:
    newer = quiet().newer({ONE: Mark(5, NOW), TWO: Mark(0, NOW)})
    assert newer == Newer(since=0, lowest=-1, slots=[1], afters=[5])


def test_a_late_slot_is_asked_for_from_its_own_time() -> None:
    """Its blocks were appended long ago and are counted only now."""
    worklist = quiet()
    worklist.reached({ONE: Mark(5, NOW), TWO: Mark(3, NOW - 10**9)})
    newer = worklist.newer({ONE: Mark(9, NOW), TWO: Mark(4, NOW - 10**9)})
    assert newer is not None
    assert (newer.since, newer.lowest) == (NOW - 10**9 - TIME_MARGIN_MS, 3)


def test_unmatched_events_of_names_without_a_feature_are_not_late() -> None:
    worklist = quiet()
    worklist.found(Name("acme", "other"), NOW)
    worklist.found(Name("other", "calls"), NOW)
    assert worklist.passes == {}


def test_what_is_stored_during_a_pass_is_looked_through_after_it() -> None:
    worklist = quiet()
    worklist.found(CALLS, NOW)
    under_way = worklist.passes[CALLS]
    worklist.found(CALLS, NOW - 5)
    assert under_way == Pass(since=NOW - 5)
    under_way.after = Key("cust", NOW)
    worklist.found(CALLS, NOW + 9)
    worklist.found(CALLS, NOW + 7)
    worklist.finish(CALLS, under_way)
    assert worklist.passes == {CALLS: Pass(since=NOW + 7)}


def test_a_pass_that_a_change_made_void_does_not_end_the_new_one() -> None:
    worklist = Worklist()
    worklist.see_features([make_feature()])
    void = worklist.passes[CALLS]
    worklist.see_features([make_feature(version=2)])
    worklist.finish(CALLS, void)
    assert worklist.passes == {CALLS: Pass(since=0)}


# Records


def test_records_keep_the_order_and_their_limits() -> None:
    late = [make_row(number) for number in range(2 * RECORD_EVENTS + 1)]
    made = list(records(late))
    assert [record.size for record in made] == [RECORD_EVENTS, RECORD_EVENTS, 1]
    events = [event for record in made for event in resent.decode(record.value)]
    assert events == [row.event for row in late]


def test_a_record_ends_before_it_gets_too_heavy() -> None:
    heavy = '"' + "x" * (RECORD_BYTES // 3) + '"'
    made = list(records([make_row(number, properties=heavy) for number in range(5)]))
    assert [record.size for record in made] == [2, 2, 1]
    alone = list(records([make_row(properties=3 * heavy), make_row()]))
    assert [record.size for record in alone] == [1, 1]


def test_a_batch_of_the_store_becomes_events() -> None:
    batch = pa.RecordBatch.from_pylist(
        [
            {
                "event_id": "é", "external_customer_id": "cust", "timestamp_ms": NOW,
                "timestamp_given": True, "ingested_at_ms": NOW + 1, "source": "s",
                "properties": '{"v": 1}', "log_topic": "events.acme", "log_epoch": 2,
                "log_partition": 3, "log_offset": 4, "log_index": 5, "block_epoch": 0,
                "block_partition": 1, "block_offset": 6, "block_index": 7,
            }
        ]
    )  # fmt: skip
    [(event, slot)] = rows(CALLS, batch)
    assert slot == ONE
    assert msgspec.structs.asdict(event) == {
        "account": "acme", "event_id": "é", "event_name": "calls", "external_customer_id": "cust",
        "timestamp": NOW, "timestamp_given": True, "ingested_at": NOW + 1, "source": "s",
        "properties": '{"v": 1}', "home": Log("events.acme", 2, 3),
        "home_position": position(4, 5), "superseded": Point(0, 6, 7),
    }  # fmt: skip


# When a page is counted


def covered(*spans: tuple[int, int], epoch: int = 0, topic: str = "resent") -> str:
    return msgspec.json.encode([(Log(topic, epoch, 0), spans)]).decode()


@pytest.fixture
def sent() -> Sent:
    """Two records at offsets 8 and 9: events for slot one in both, for slot two in the first."""
    page = Sent()
    page.add(Record(b"", 3, {ONE: 1, TWO: 2}), 0, 8)
    page.add(Record(b"", 2, {ONE: 1}), 0, 9)
    return page


def test_a_page_is_counted_when_each_slot_covers_its_last_event(sent: Sent) -> None:
    first, both = covered((0, position(9))), covered((0, position(10)))
    assert sent.count == 5
    assert not sent.is_counted({})
    assert not sent.is_counted({ONE: Mark(1, NOW, first), TWO: Mark(1, NOW, first)})
    assert sent.is_counted({ONE: Mark(1, NOW, both), TWO: Mark(1, NOW, first)})


def test_a_hole_in_the_coverage_is_not_counted(sent: Sent) -> None:
    holed = covered((0, position(9)), (position(9, 1) + 1, position(20)))
    assert not sent.is_counted({ONE: Mark(1, NOW, holed), TWO: Mark(1, NOW, holed)})


@pytest.mark.parametrize("topic", ["gateway-events", "events.resent"])
def test_only_the_resent_topic_tells(sent: Sent, topic: str) -> None:
    other = covered((0, position(99)), topic=topic)
    assert not sent.is_counted({ONE: Mark(1, NOW, other), TWO: Mark(1, NOW, other)})


def test_a_page_without_known_places_is_never_known_to_be_counted() -> None:
    page = Sent()
    page.add(Record(b"", 1, {ONE: 0}), 0, -1)
    assert not page.is_counted({ONE: Mark(1, NOW, covered((0, 1 << 62)))})


def test_in_a_new_layout_the_old_slots_say_nothing(sent: Sent) -> None:
    everything = covered((0, 1 << 62))
    marks = {ONE: Mark(1, NOW, everything), TWO: Mark(1, NOW, everything)}
    assert sent.is_counted(marks)
    assert not sent.is_counted({**marks, Slot(1, 0): Mark(0, NOW, everything)})
