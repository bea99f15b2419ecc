"""Reading a record: what is taken, what is refused and where, and that both paths agree."""

import json
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas import event as module
from schemas.event import (
    ABSENT,
    Event,
    Flaw,
    Reading,
    Unreadable,
    nests_deeper,
    parse_timestamp,
    read,
    read_all,
)
from schemas.limits import BODY_BYTES_MAX, DEPTH_MAX, EVENT_BYTES_MAX, NAME_LENGTH_MAX

NOW = 1_755_846_349_441  # 2025-08-22T07:05:49.441Z
DAY = 86_400_000


def make_event(**fields: Any) -> dict[str, Any]:
    return {"event_name": "api.calls", "external_customer_id": "cust_1"} | fields


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def read_slowly(body: bytes, now_ms: int | None = NOW) -> Reading:
    return module._read_slowly(body, now_ms, False, False)


def only_flaw(event: Any, **options: Any) -> Flaw:
    (flaw,) = read(text(event), now_ms=NOW, **options).flaws
    return flaw


# What is taken


def test_a_record_is_one_event_an_array_or_a_bulk() -> None:
    one = Event("api.calls", "cust_1")
    event = make_event()
    assert read(text(event), now_ms=NOW).events == [one]
    assert read(text([event, event]), now_ms=NOW).events == [one, one]
    assert read(text({"events": [event, event]}), now_ms=NOW).events == [one, one]
    assert read(text({"events": []}), now_ms=NOW).events == []


def test_the_six_fields_and_our_customer_id_are_read_and_properties_stay_text() -> None:
    body = (
        b'{"event_name": "model.usage", "external_customer_id": "cust_1", "event_id": "evt_1",'
        b' "timestamp": "2025-08-22T07:05:49.441Z", "source": "api", "customer_id": "cust_X",'
        b' "properties": {"credits": 0.10, "big": 18446744073709551617}}'
    )
    reading = read(body, now_ms=NOW, single=True)
    (event,) = reading.events
    assert event is not None
    assert bytes(event.properties) == b'{"credits": 0.10, "big": 18446744073709551617}'
    assert (event.event_id, event.source, event.customer_id) == ("evt_1", "api", "cust_X")
    assert reading.times.tolist() == [NOW]


def test_what_is_null_is_absent() -> None:
    fields = ("event_id", "timestamp", "source", "properties", "customer_id")
    reading = read(text(make_event(**dict.fromkeys(fields))), now_ms=NOW)
    assert reading.events == [Event("api.calls", "cust_1")]
    assert (reading.times.tolist(), reading.flaws) == ([ABSENT], [])


def test_our_customer_id_alone_is_enough() -> None:
    body = text({"event_name": "api.calls", "customer_id": "cust_01"})
    assert read(body, now_ms=NOW).events == [Event("api.calls", customer_id="cust_01")]


def test_unknown_fields_are_ignored_and_the_last_of_two_equal_keys_wins() -> None:
    body = b'{"event_name":"a","event_name":"b","external_customer_id":"c","x":[1]}'
    assert read(body, now_ms=NOW).events == [Event("b", "c")]


def test_an_event_may_hold_a_property_called_events() -> None:
    body = text(make_event(properties={"events": [1, 2]}))
    assert len(read(body, now_ms=NOW).events) == 1


@pytest.mark.parametrize(
    "name",
    ["é", "e\u0301", "א‮ב", "💳", "аpi.calls", " api.calls ", "__proto__", "$.a.b", "a.b"],
)
def test_names_stay_as_they_were_written(name: str) -> None:
    for ensure_ascii in (True, False):
        body = json.dumps(make_event(event_name=name), ensure_ascii=ensure_ascii).encode()
        (event,) = read(body, now_ms=NOW).events
        assert event is not None
        assert event.event_name == name


# What is refused, and where


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"event_name": None}, "event_name", "missing_field"),
        ({"event_name": ""}, "event_name", "missing_field"),
        ({"event_name": 5}, "event_name", "wrong_type"),
        ({"event_name": "x" * (NAME_LENGTH_MAX + 1)}, "event_name", "too_long"),
        ({"event_name": "a\0b"}, "event_name", "nul_character"),
        ({"external_customer_id": None}, "external_customer_id", "missing_field"),
        ({"external_customer_id": 5}, "external_customer_id", "wrong_type"),
        ({"external_customer_id": "a\0"}, "external_customer_id", "nul_character"),
        ({"customer_id": ""}, "customer_id", "empty"),
        ({"event_id": ""}, "event_id", "empty"),
        ({"event_id": 7}, "event_id", "wrong_type"),
        ({"event_id": "a\0"}, "event_id", "nul_character"),
        ({"event_id": "é" * (NAME_LENGTH_MAX + 1)}, "event_id", "too_long"),
        ({"source": {}}, "source", "wrong_type"),
        ({"properties": []}, "properties", "wrong_type"),
        ({"properties": "{}"}, "properties", "wrong_type"),
        ({"timestamp": 1755846349}, "timestamp", "wrong_type"),
        ({"timestamp": ""}, "timestamp", "empty"),
        ({"timestamp": "yesterday at noon"}, "timestamp", "invalid_timestamp"),
        ({"timestamp": "2025-08-22"}, "timestamp", "invalid_timestamp"),
        ({"timestamp": "2025-08-22T07:05:60Z"}, "timestamp", "invalid_timestamp"),
        ({"timestamp": "1969-12-31T23:59:59.999Z"}, "timestamp", "invalid_timestamp"),
        ({"timestamp": "2025-08-23T07:05:49.442Z"}, "timestamp", "timestamp_in_future"),
        ({"timestamp": "9999-12-31T23:59:59-14:00"}, "timestamp", "timestamp_in_future"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], field: str, code: str) -> None:
    flaw = only_flaw(make_event(**fields))
    assert (flaw.index, flaw.field, flaw.code) == (0, field, code)
    batch = {"events": [make_event()] * 3 + [make_event(**fields)]}
    flaw = only_flaw(batch)
    assert (flaw.index, flaw.code) == (3, code)
    assert flaw.pointer(bulk=True) == f"/events/3/{field}"
    assert flaw.pointer(bulk=False) == f"/{field}"


def test_a_missing_field_has_the_documented_text() -> None:
    assert only_flaw({"external_customer_id": "c"}).detail == "Missing required field: event_name"
    flaw = only_flaw({"event_name": "a"})
    assert flaw.detail == "Missing required field: external_customer_id"


def test_good_events_beside_bad_ones_are_read() -> None:
    reading = read(text([make_event(), 5, make_event(event_id=""), "x", make_event()]), now_ms=NOW)
    good = Event("api.calls", "cust_1")
    assert reading.events == [good, None, None, None, good]
    assert [(flaw.index, flaw.code) for flaw in reading.flaws] == [
        (1, "wrong_type"),
        (2, "empty"),
        (3, "wrong_type"),
    ]


def test_a_timestamp_within_a_day_after_receipt_is_taken_and_without_receipt_any() -> None:
    at_the_edge = make_event(timestamp="2025-08-23T07:05:49.441Z")
    assert read(text(at_the_edge), now_ms=NOW).times.tolist() == [NOW + DAY]
    late = make_event(timestamp="2999-01-01T00:00:00Z")
    assert read(text(late), now_ms=None).flaws == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"rubbish", "invalid_json"),
        (b'{"event_name": "a"', "invalid_json"),
        (b"[{}", "invalid_json"),
        (b'{"event_name":"a","external_customer_id":"c"} {}', "invalid_json"),
        (b'{"event_name":"a","external_customer_id":"c","x":NaN}', "invalid_json"),
        (b'{"event_name":"a","properties":{"x":-Infinity}}', "invalid_json"),
        (b'{"event_name":"a","external_customer_id":"c","properties":{"x":01}}', "invalid_json"),
        (b'{"event_name":"\\ud800","external_customer_id":"c"}', "invalid_json"),
        (b'{"event_name":"a","properties":{"x":"\\ud800"}}', "invalid_json"),
        (b'{"event_name":"a","external_customer_id":"c","x":"\xff"}', "invalid_utf8"),
        (b'{"event_name":"a\xed\xa0\x80","external_customer_id":"c"}', "invalid_utf8"),
        ("\ufeff{}".encode(), "invalid_json"),
        (b'{"events": 5}', "wrong_type"),
        (b'{"events": {"0": {}}}', "wrong_type"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"events":[' + b'{"a":' * 100_000, "invalid_json"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_told_apart_is_unreadable(body: bytes, code: str) -> None:
    with pytest.raises(Unreadable) as raised:
        read(body, now_ms=NOW)
    assert raised.value.flaw.code == code
    assert raised.value.flaw.index is None


def test_numbers_of_any_size_are_kept_as_text() -> None:
    for number in (b"1e999", b"9" * 400, b"18446744073709551616", b"-0", b"0.1"):
        body = b'{"event_name":"a","external_customer_id":"c","properties":{"x":%s}}' % number
        (event,) = read(body, now_ms=NOW).events
        assert event is not None
        assert bytes(event.properties) == b'{"x":%s}' % number


def test_a_nul_in_properties_is_kept() -> None:
    body = text(make_event(properties={"a\0": "\0"}))
    assert read(body, now_ms=NOW).flaws == []


@pytest.mark.parametrize("body", [[make_event()], {"events": [make_event()]}, {"events": []}])
def test_single_takes_no_bulk_so_that_its_record_reads_the_same_later(body: Any) -> None:
    with pytest.raises(Unreadable) as raised:
        read(text(body), now_ms=NOW, single=True)
    assert raised.value.flaw.code == "wrong_type"
    with pytest.raises(Unreadable):
        read(text(make_event() | {"events": []}), now_ms=NOW, single=True)


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (make_event(), "missing_field", "/events"),
        ({}, "missing_field", "/events"),
        ({"events": None}, "missing_field", "/events"),
        ({"events": "x"}, "wrong_type", "/events"),
        (5, "wrong_type", ""),
    ],
)
def test_bulk_takes_no_single_event(body: Any, code: str, pointer: str) -> None:
    with pytest.raises(Unreadable) as raised:
        read(text(body), now_ms=NOW, bulk=True)
    assert (raised.value.flaw.code, raised.value.flaw.pointer(bulk=True)) == (code, pointer)


# Size and depth


def nested(depth: int) -> bytes:
    """An event of this depth, itself and its properties included."""
    inner = b"[" * (depth - 2) + b"]" * (depth - 2)
    return b'{"event_name":"a","external_customer_id":"c","properties":{"x":%s}}' % inner


@pytest.mark.parametrize(
    "wrap",
    [b"%s", b"[%s]", b'{"events":[%s]}', b'[{"event_name":"b","external_customer_id":"c"},%s]'],
)
@pytest.mark.parametrize("depth", [DEPTH_MAX, DEPTH_MAX + 1, 900, 2000, 100_000])
def test_an_event_nests_at_most_32_levels_however_it_is_sent(wrap: bytes, depth: int) -> None:
    reading = read(wrap % nested(depth), now_ms=NOW)
    assert [flaw.code for flaw in reading.flaws] == ([] if depth <= DEPTH_MAX else ["too_deep"])
    assert [event is None for event in reading.events[:-1]] == [False] * (len(reading.events) - 1)


def test_depth_cannot_be_hidden_behind_brackets_in_texts() -> None:
    levels = 200
    properties = b'{"a":"}","b":' * levels + b"1" + b',"c":"{"}' * levels
    body = b'{"event_name":"a","external_customer_id":"c","properties":%s}' % properties
    json.loads(body)
    (flaw,) = read(body, now_ms=NOW).flaws
    assert flaw.code == "too_deep"


def test_deep_events_leave_their_neighbours_whole() -> None:
    tricky = text(make_event(properties={"a": 'x],[{"\\', "b": ["]", {"c": ","}]}))
    for wrap in (b"[%s]", b'{"events":[%s],"more":[1]}', b'{"x": 1, "events" : [%s]}'):
        body = wrap % b", ".join([tricky, nested(5000), tricky])
        reading = read(body, now_ms=NOW)
        assert [flaw.code for flaw in reading.flaws] == ["too_deep"]
        first, deep, last = reading.events
        assert first is not None and deep is None
        assert first == last
        assert json.loads(bytes(first.properties)) == json.loads(tricky)["properties"]


def test_what_follows_a_deep_array_has_to_be_json_too() -> None:
    with pytest.raises(Unreadable):
        read(b"[" + nested(5000) + b"] rubbish", now_ms=NOW)


def test_an_event_has_at_most_a_mebibyte_and_others_beside_it_count() -> None:
    large = make_event(properties={"x": "y" * EVENT_BYTES_MAX})
    assert only_flaw(large, single=True).code == "too_large"
    reading = read(text([make_event(), large]), now_ms=NOW)
    assert [(flaw.index, flaw.code) for flaw in reading.flaws] == [(1, "too_large")]
    fine = make_event(properties={"x": "y" * (EVENT_BYTES_MAX - 200)})
    assert read(text([fine, fine]), now_ms=NOW).flaws == []


def test_ten_megabytes_of_brackets_are_refused_soon() -> None:
    for body in (
        b"[" * BODY_BYTES_MAX,
        b"[" * (BODY_BYTES_MAX // 2) + b"]" * (BODY_BYTES_MAX // 2),
    ):
        try:
            (flaw,) = read(body, now_ms=NOW).flaws
            assert flaw.code == "too_large"
        except Unreadable as unreadable:
            assert unreadable.flaw.code == "invalid_json"


def test_a_record_has_a_greatest_number_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORD_EVENTS_MAX", 10)
    assert len(read(text([make_event()] * 10), now_ms=NOW).events) == 10
    for rubbish in ([make_event()] * 11, [5] * 11):
        with pytest.raises(Unreadable) as raised:
            read(text(rubbish), now_ms=NOW)
        assert raised.value.flaw.code == "too_many_events"


def test_millions_of_elements_are_counted_not_made() -> None:
    for body in (b"[" + b"1," * 5_000_000 + b"1]", b'{"events":[' + b"1," * 5_000_000 + b"1]}"):
        with pytest.raises(Unreadable) as raised:
            read(body, now_ms=NOW)
        assert raised.value.flaw.code == "too_many_events"


def test_many_commas_inside_few_events_are_fine() -> None:
    numbers = b"[" + b"1," * 400_000 + b"1]"
    event = b'{"event_name":"a","external_customer_id":"c","properties":{"x":%s}}' % numbers
    reading = read(b"[%s,5,%s,%s]" % (event, event, event), now_ms=NOW)
    assert [flaw.index for flaw in reading.flaws] == [1]


# Timestamps


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("2025-08-22T07:05:49.441Z", NOW),
        ("2025-08-22T07:05:49.441", NOW),
        ("2025-08-22 07:05:49.441+00:00", NOW),
        ("2025-08-22t07:05:49.441z", NOW),
        ("2025-08-22T09:05:49.441+02:00", NOW),
        ("2025-08-22T12:35:49.4419999999+05:30", NOW),
        ("2025-08-22T07:05:49Z", NOW - 441),
        ("20250822T070549Z", NOW - 441),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_a_timestamp_is_read_to_the_millisecond(written: str, ms: int) -> None:
    assert parse_timestamp(written) == ms


# Properties


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
marks = st.text(st.sampled_from('{}[]",\\:/ué\0'), max_size=8)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | marks,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(marks, inner, max_size=3),
    max_leaves=12,
)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2025, 1, 1))  # noqa: DTZ001
good_names = names.filter(lambda name: "\0" not in name)
good_events = st.fixed_dictionaries(
    {"event_name": good_names, "external_customer_id": good_names},
    optional={
        "event_id": good_names,
        "source": good_names | st.just(""),
        "timestamp": moments.map(datetime.isoformat),
        "properties": st.dictionaries(marks, values, max_size=4),
        "unknown": values,
    },
)
any_events = good_events | st.fixed_dictionaries(
    {},
    optional={
        name: values | names | st.just("2025-08-22T00:00:00Z")
        for name in (
            "event_name",
            "external_customer_id",
            "customer_id",
            "event_id",
            "timestamp",
            "source",
            "properties",
        )
    },
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def outcome(reading: Reading) -> tuple[Any, ...]:
    events = [event and plain(event) for event in reading.events]
    return events, reading.times.tolist(), reading.flaws


def plain(event: Event) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return fields | {"properties": event.properties and json.loads(bytes(event.properties))}


@given(st.lists(any_events | values, max_size=5), st.booleans(), st.booleans())
def test_fast_and_slow_reading_agree(events: list[Any], ensure_ascii: bool, wrapped: bool) -> None:
    record = {"events": events} if wrapped else events
    body = json.dumps(record, ensure_ascii=ensure_ascii).encode()
    assert outcome(read(body, now_ms=NOW)) == outcome(read_slowly(body))


kinds = st.sampled_from("1[{")


def shaped(kind: str, events: list[Any]) -> Any:
    """A record: one event, an array, or a bulk."""
    if kind == "1":
        return events[0] if events else {}
    return events if kind == "[" else {"events": events}


@given(
    st.lists(
        st.tuples(st.sampled_from("1[{"), st.lists(any_events, max_size=2)), min_size=1, max_size=3
    ),
    st.sampled_from([None, 0, 2]),
)
def test_reading_many_records_is_reading_each(
    records: list[tuple[str, list[Any]]], indent: int | None
) -> None:
    bodies = [json.dumps(shaped(kind, events), indent=indent).encode() for kind, events in records]
    columns = read_all(bodies)
    if columns is None:  # at least one has a flaw, or may have one
        return
    each = [read(body, now_ms=None) for body in bodies]
    assert columns.counts == [len(reading.events) for reading in each]
    assert columns.events == [event for reading in each for event in reading.events]
    assert columns.times.tolist() == [time for reading in each for time in reading.times]
    assert not any(reading.flaws for reading in each)
    ends = np.cumsum(columns.lengths).tolist()
    texts = [columns.properties[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert texts == [bytes(event.properties) for event in columns.events]


@pytest.mark.parametrize(
    "bodies",
    [
        [b'{"event_name":"a","external_customer_id":', b'"b"}'],
        [b'{"event_name":"a","external_customer_id":"b"', b',"event_id":"c"} {"event_name":"d"}'],
        [b'[{"event_name":"a","external_customer_id":"b"}', b"]"],
        [b'{"event_name":"a","external_customer_id":"b","source":"}', b'{"}'],
        [b'{"event_name":"a","external_customer_id":"b"}', b""],
        [b'{"event_name":"a","external_customer_id":"b"}\n', b'{"event_name":"a"}', b"[]"],
        [b'{"event_name":"\xc3', b'\xa9","external_customer_id":"b"}'],
    ],
)
def test_no_record_finishes_what_another_began(bodies: list[bytes]) -> None:
    assert read_all(bodies) is None


def test_one_deep_event_among_many_records_is_found() -> None:
    flat = b'{"event_name":"a","external_customer_id":"b","properties":{"v":1}}'
    deep = b'{"event_name":"a","external_customer_id":"b","properties":' + b'{"v":' * 32
    deep += b"1" + b"}" * 33
    allowed = deep.replace(b'{"v":', b"", 1).replace(b"}", b"", 1)
    for around in (b"%s", b"[%s]", b'{"events":[%s,' + flat + b"]}"):
        bodies = [around % flat] * 40
        assert read_all(bodies) is not None
        assert read_all([*bodies, around % deep]) is None
    assert read_all([flat] * 40 + [allowed]) is not None


@given(
    st.lists(
        st.tuples(st.sampled_from("1[{"), st.lists(good_events, min_size=1, max_size=2)),
        min_size=1,
        max_size=3,
    )
)
def test_good_records_are_read_together(records: list[tuple[str, list[Any]]]) -> None:
    bodies = [json.dumps(shaped(*record)).encode() for record in records]
    assume(not any(b"\\u0000" in body for body in bodies))  # wants a look of its own
    assert read_all(bodies) is not None


@given(st.lists(good_events, max_size=5))
def test_good_events_need_no_second_look(events: list[Any]) -> None:
    reading = read(json.dumps(events).encode(), now_ms=NOW)
    assert reading.flaws == []
    assert [event and event.event_id for event in reading.events] == [
        event.get("event_id") for event in events
    ]


@given(values, st.booleans())
def test_depth_is_exact(value: Any, ensure_ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=ensure_ascii).encode()
    depth = depth_of(value)
    assert not nests_deeper(body, depth)
    assert depth == 0 or nests_deeper(body, depth - 1)


@given(st.lists(values.map(json.dumps), min_size=1, max_size=5))
def test_cutting_by_hand_finds_the_same_elements_as_a_parser(elements: list[str]) -> None:
    for body in (
        f"[{','.join(elements)}]",
        f'{{"a":[0],"events": [{",".join(elements)}], "b": 1}}',
    ):
        assert [bytes(part).decode() for part in module._split_by_hand(body.encode())] == elements


@given(
    st.binary(max_size=64) | st.text(st.sampled_from('{}[]",:\\0a'), max_size=40).map(str.encode)
)
def test_no_bytes_make_it_fail_otherwise(body: bytes) -> None:
    try:
        reading = read(body, now_ms=NOW)
    except Unreadable:
        return
    assert len(reading.events) == len(reading.times)
    assert [event is None for event in reading.events].count(True) == len(reading.flaws)
