"""Hostile input as data: what a producer may send, and what becomes of it over HTTP and over Kafka.

One table for everybody. `EVENTS` are texts of one event, sent alone and between two good ones;
`BODIES` are whole bodies, `ENCODED` compressed ones (HTTP alone), `RECORDS` what only Kafka can
carry, `BATCHES` how it may carry it, `CONNECTIONS` what only HTTP can, by the tests that do it. `python -m tests.hostile` prints
docs/HOSTILE_INPUT.md.
"""

# ruff: noqa: E501  a row of a table is a line

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as given
from decimal import Decimal
from functools import cached_property
from typing import Any

import zstandard

from schemas.limits import BODY_BYTES_MAX, DEPTH_MAX, EVENT_BYTES_MAX, NAME_LENGTH_MAX
from tests.batches import CODECS, RECORDS_AT, batch, changed

NAME = "hostile"
"""The event name that has a feature: SUM of `v`."""
GOOD = b'{"event_name":"hostile","external_customer_id":"good","properties":{"v":1}}'
LONE = "\\ud800"
BYTES_SHOWN = 60


@dataclass(frozen=True)
class Event:
    """The text of one event, and what becomes of it wherever it comes from.

    code    Its flaw's; over HTTP in a 400, from Kafka of a dead letter. None: it is accepted.
    field   The field that the flaw names.
    whole   Nothing can be read of the record that it stands in.
    verdict Of an event that is accepted, or that only HTTP refuses.
    stored  Columns of its row, besides.
    http    HTTP refuses with `code` what Kafka's producers get `verdict` for.
    """

    name: str
    text: bytes = given(repr=False)
    code: str | None = None
    field: str = ""
    whole: bool = False
    verdict: str = "counted"
    stored: Mapping[str, Any] = given(default_factory=dict)
    http: bool = False


@dataclass(frozen=True)
class Refused:
    """A flaw's code and JSON pointer, with the status of the answer."""

    code: str
    pointer: str = ""
    status: int = 400


@dataclass(frozen=True)
class Body:
    """A whole body: what either route answers (None: 202), and what Kafka makes of it.

    dead     Index and code of each dead letter.
    counted  How many events of it are counted when it comes from Kafka.
    """

    name: str
    single: Refused | None
    bulk: Refused | None
    dead: Sequence[tuple[int, str]] = ()
    counted: int = 0
    start: bytes = b""
    repeat: bytes = b""
    times: int = 0
    end: bytes = b""

    @cached_property
    def text(self) -> bytes:
        """The body."""
        return self.start + self.repeat * self.times + self.end


@dataclass(frozen=True)
class Encoded:
    """A body in an encoding, and what HTTP answers to it."""

    name: str
    encoding: str
    body: bytes = given(repr=False)
    answer: Refused | None


@dataclass(frozen=True)
class Record:
    """What only Kafka can carry: a record's key, value and headers."""

    name: str
    value: bytes | None
    dead: Sequence[tuple[int, str]] = ()
    counted: int = 0
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True)
class Batch:
    """A batch of Kafka records, as a producer may write it: what it holds, and what it becomes.

    dead     The code of the one dead letter that stands for it, or for its rest.
    counted  How many events of it are counted.
    """

    name: str
    holds: str
    make: Callable[[], bytes]
    dead: str | None = None
    counted: int = 0


def of(**fields: str) -> bytes:
    """An event's text from the JSON texts of its fields; "" leaves one out."""
    fields = {"event_name": f'"{NAME}"', "external_customer_id": '"c"'} | fields
    return (
        "{" + ",".join(f'"{key}":{text}' for key, text in fields.items() if text) + "}"
    ).encode()


def valued(text: str) -> bytes:
    """An event whose `v` has this JSON text."""
    return of(properties=f'{{"v":{text}}}')


def quoted(text: str) -> str:
    """A text in JSON, its letters as they are."""
    return json.dumps(text, ensure_ascii=False)


def nested(levels: int, start: str = "[", end: str = "]") -> str:
    """Brackets in brackets."""
    return start * levels + end * levels


def keyed(count: int) -> str:
    """So many properties, and a comma."""
    return "".join(f'"p{number}":{number},' for number in range(count))


def _syntax() -> Iterator[Event]:
    """What is no JSON at all: nothing around it can be told apart either."""
    broken = {
        "nan": valued("NaN"), "infinity": valued("Infinity"), "minus_infinity": valued("-Infinity"),
        "nan_in_an_unknown_field": of(x="NaN"),
        "plus_sign": valued("+1"), "leading_zero": valued("01"), "no_digit_before_the_point": valued(".5"),
        "no_digit_after_the_point": valued("1."), "hexadecimal": valued("0x10"),
        "underscore": valued("1_000"), "no_exponent": valued("1e"),
        "bare_word": valued("yes"), "trailing_comma": valued("1,"), "comment": valued("1/**/"),
        "single_quotes": of().replace(b'"', b"'"), "unclosed": of()[:-1], "unclosed_text": b'{"event_name":"a',
        "raw_newline_in_a_text": of(source='"a\nb"'), "raw_nul_in_a_text": of(source='"a\0b"'),
        "raw_control_in_properties": valued('"\x01"'),
        "bad_escape": of(source='"\\x41"'), "short_unicode_escape": of(source='"\\u12"'),
        "bad_escape_in_properties": valued('"\\x41"'),
        "lone_surrogate": of(source=f'"{LONE}"'), "lone_low_surrogate": of(source='"\\udc00"'),
        "lone_surrogate_in_properties": valued(f'"{LONE}"'),
        "lone_surrogate_in_a_property_key": of(properties=f'{{"{LONE}":1}}'),
        "lone_surrogate_in_an_unknown_field": of(x=f'"{LONE}"'),
        "lone_surrogate_in_an_unknown_key": of(**{LONE: "1"}),
    }  # fmt: skip
    for name, text in broken.items():
        yield Event(name, text, "invalid_json", whole=True)


def _utf8() -> Iterator[Event]:
    odd = {
        "utf8_in_a_used_field": of(source='"?"').replace(b"?", b"\xff"),
        "utf8_in_an_unknown_field": of(x='"?"').replace(b"?", b"\xff"),
        "utf8_in_properties": valued('"?"').replace(b"?", b"\xc3\x28"),
        "utf8_in_a_key": of(**{"?": "1"}).replace(b"?", b"\x80"),
        "utf8_overlong": of(source='"?"').replace(b"?", b"\xc0\xaf"),
        "utf8_of_a_surrogate": of(source='"?"').replace(b"?", b"\xed\xa0\x80"),
        "utf8_beyond_unicode": of(source='"?"').replace(b"?", b"\xf4\x90\x80\x80"),
        "utf8_cut": of(source='"?"').replace(b"?", b"\xe2\x82"),
    }
    for name, text in odd.items():
        yield Event(name, text, "invalid_utf8", whole=True)


def _numbers() -> Iterator[Event]:
    exact = {
        "zero": ("0", "0"), "minus_zero": ("-0", "0"), "minus_zero_point_zero": ("-0.0", "0"),
        "negative": ("-12.5", "-12.5"), "tenth": ("0.1", "0.1"), "2_53_plus_1": ("9007199254740993", "9007199254740993"),
        "2_64": ("18446744073709551616", "18446744073709551616"), "20_digits": ("9" * 20, "9" * 20),
        "18_places": ("0.000000000000000001", "0.000000000000000001"),
        "exponent": ("1.5E+3", "1500"), "exponent_with_zeros": ("1e" + "0" * 400 + "2", "100"),
        "zero_with_an_exponent_bomb": ("0e999999999", "0"), "400_zeros_after_the_point": ("1." + "0" * 400, "1"),
        "duplicate_property": ('1,"v":2', "2"),
    }  # fmt: skip
    for name, (text, value) in exact.items():
        yield Event(name, valued(text), stored={"value": Decimal(value)})
    tiny = {
        "19_places": ("0.1000000000000000005", "0.1"), "1e_minus_999": ("1e-999", "0"),
        "exponent_bomb_below": ("1e-999999999999", "0"), "minus_exponent_bomb_below": ("-1e-999999999", "0"),
        "400_places": ("0." + "3" * 400, "0." + "3" * 18),
    }  # fmt: skip
    for name, (text, value) in tiny.items():
        yield Event(name, valued(text), stored={"value": Decimal(value), "warnings": "rounded"})
    huge = {
        "21_digits": "1" + "0" * 20, "400_digits": "9" * 400, "100000_digits": "9" * 100_000, "1e20": "1e20",
        "1e999": "1e999", "exponent_bomb": "1e999999999999", "rounds_to_21_digits": "9" * 20 + "." + "9" * 19,
        "text_of_400_digits": '"' + "9" * 400 + '"',
    }  # fmt: skip
    for name, text in huge.items():
        yield Event(name, valued(text), verdict="out_of_range")
    numeric = {
        "text_1": ('"1"', "1"),
        "text_1e5": ('"1e5"', "100000"),
        "text_escaped": ('"\\u0031"', "1"),
    }
    for name, (text, value) in numeric.items():
        stored = {"value": Decimal(value), "warnings": "numeric_string"}
        yield Event(name, valued(text), stored=stored)
    wrong = {
        "true": "true", "false": "false", "null": "null", "object": "{}", "array": "[1]", "empty_text": '""',
        "text_nan": '"NaN"', "text_with_a_blank": '" 1"', "text_hexadecimal": '"0x10"', "text_plus": '"+1"',
        "text_comma": '"1,000"', "text_arabic_digits": '"١"', "nul_text": '"\\u0000"', "text_1_nul": '"1\\u0000"',
    }  # fmt: skip
    for name, text in wrong.items():
        yield Event(f"value_{name}", valued(text), verdict="wrong_type")


def _properties() -> Iterator[Event]:
    missing = {
        "no_properties": "", "null_properties": "null", "empty_properties": "{}", "other_case": '{"V":1}',
        "dotted_key": '{"$.v":1,"a.v":2,"a":{"v":3}}', "proto": '{"__proto__":{"v":1},"constructor":{"prototype":1}}',
        "empty_property_key": '{"":1}', "property_key_with_a_blank": '{" v":1,"v ":1}', "nul_key": '{"v\\u0000":1}',
        "homoglyph_key": '{"ν":1}', "long_key": '{"%s":1}' % ("k" * 10_000), "unicode_key": '{"\u202ev":1,"v\u0301":1}',
    }  # fmt: skip
    for name, text in missing.items():
        yield Event(name, of(properties=text), verdict="missing_property")
    for name, text in {"array": "[]", "text": '"{}"', "number": "1", "true": "true"}.items():
        yield Event(f"properties_{name}", of(properties=text), "wrong_type", "properties")
    kept = {
        "escaped_key": '{"\\u0076":5}', "properties_twice": '{"v":1},"properties":{"v":5}',
        "nul_in_properties": '{"v":5,"w":"a\\u0000b"}', "events_in_properties": '{"v":5,"events":[{"event_name":1}]}',
        "brackets_in_texts": '{"v":5,"w":"%s"}' % ("[{" * 100), "quotes_in_texts": '{"v":5,"w":"\\\\\\"[\\\\"}',
        "blanks": '{ "v" :\t5 \r\n}', "surrogate_pair": '{"v":5,"w":"\\ud83d\\ude00"}',
        "10000_properties": f'{{{keyed(10_000)}"v":5}}',
        "half_a_mebibyte": '{"v":5,"w":"%s"}' % ("x" * (1 << 19)),
        "sql": """{"v":5,"w":"'; DROP TABLE events; --","x":"\\\\N","y":"{account:String}"}""",
        "html": '{"v":5,"w":"<script>alert(1)</script>","x":"=1+1"}',
    }  # fmt: skip
    for name, text in kept.items():
        yield Event(name, of(properties=text), stored={"value": Decimal(5)})
    spare = EVENT_BYTES_MAX - len(valued('1,"w":""'))
    text = '1,"w":"%s"'
    yield Event("a_mebibyte", valued(text % ("x" * spare)))
    yield Event("a_mebibyte_and_one", valued(text % ("x" * (spare + 1))), "too_large")
    yield Event("100000_properties", of(properties=f'{{{keyed(100_000)}"v":5}}'), "too_large")


def _depth() -> Iterator[Event]:
    deep, deeper = DEPTH_MAX - 2, DEPTH_MAX - 1  # the event and its properties are two levels
    yield Event("depth_32", valued("1," + '"w":' + nested(deep)))
    yield Event(
        "depth_32_of_objects",
        valued("1," + '"w":' + nested(deep, '{"a":', "}").replace(":}", ":1}")),
    )
    yield Event(
        "depth_32_in_an_unknown_field", of(x=nested(DEPTH_MAX - 1)), verdict="missing_property"
    )
    for name, levels in {"33": deeper, "900": 900, "2000": 2000, "100000": 100_000}.items():
        yield Event(f"depth_{name}", valued("1," + '"w":' + nested(levels)), "too_deep")
    yield Event(
        "depth_33_of_objects",
        valued("1," + '"w":' + nested(deeper, '{"a":', "}").replace(":}", ":1}")),
        "too_deep",
    )
    yield Event("depth_33_in_an_unknown_field", of(x=nested(DEPTH_MAX)), "too_deep")
    yield Event("depth_100000_in_an_unknown_field", of(x=nested(100_000)), "too_deep")
    yield Event("depth_33_in_a_used_field", of(source=nested(DEPTH_MAX)), "too_deep")
    yield Event("wide_and_flat", of(x="[" + "[],{}," * 20_000 + "1]"), verdict="missing_property")


def _texts() -> Iterator[Event]:
    """Names and ids: what is refused, and what stays as it is."""
    texts = ("event_name", "external_customer_id", "customer_id", "event_id", "source", "timestamp")
    for name in texts:
        for kind, text in {"number": "5", "true": "true", "array": '["a"]', "object": "{}"}.items():
            yield Event(f"{name}_{kind}", of(**{name: text}), "wrong_type", name)
    for name in texts[:2]:
        yield Event(f"no_{name}", of(**{name: ""}), "missing_field", name)
        yield Event(f"{name}_null", of(**{name: "null"}), "missing_field", name)
        yield Event(f"{name}_empty", of(**{name: '""'}), "missing_field", name)
    for name in texts[2:4]:
        yield Event(f"{name}_empty", of(**{name: '""'}), "empty", name)
    for name in texts[2:]:
        yield Event(f"{name}_null", of(**{name: "null"}), verdict="missing_property")
    yield Event("source_empty", of(source='""'), verdict="missing_property", stored={"source": ""})
    for name in texts[:5]:
        yield Event(f"{name}_nul", of(**{name: '"a\\u0000b"'}), "nul_character", name)
        yield Event(
            f"{name}_256", of(**{name: '"' + "💳" * (NAME_LENGTH_MAX + 1) + '"'}), "too_long", name
        )
    yield Event(
        "event_name_of_a_megabyte",
        of(event_name='"' + "x" * 1_000_000 + '"'),
        "too_long",
        "event_name",
    )
    yield Event(
        "unknown_customer_id",
        of(external_customer_id="", customer_id='"cust_nobody"'),
        "unknown_customer_id",
        "customer_id",
    )
    odd = {
        "255": "💳" * NAME_LENGTH_MAX, "nfc": "é", "nfd": "e\u0301", "rtl": "א\u202eב", "emoji": "👩‍👩‍👧", "zero_width": "a\u200bb",
        "homoglyph": "hоstile", "other_case": "Hostile", "blanks": " hostile ", "only_blanks": " ", "proto": "__proto__",
        "path": "../../etc/passwd", "json_path": "$.a.b", "dotted": "a.b", "quote": "a'b\"c`d\\", "control": "a\x01\n\tb", "bom": "\ufeffhostile",
        "noncharacter": "\uffff", "format": "%s{0}{account:String}", "csv": "=1+1", "word_null": "null",
    }  # fmt: skip
    for name, text in odd.items():
        written = json.dumps(text) if name == "control" else quoted(text)
        yield Event(
            f"event_name_{name}",
            of(event_name=written),
            verdict="unknown_event_name",
            stored={"event_name": text},
        )
        yield Event(
            f"customer_{name}",
            of(external_customer_id=written),
            verdict="missing_property",
            stored={"external_customer_id": text},
        )
        yield Event(
            f"event_id_{name}",
            of(event_id=written),
            verdict="missing_property",
            stored={"event_id": text},
        )
    yield Event(
        "source_odd",
        of(source=quoted(odd["quote"])),
        verdict="missing_property",
        stored={"source": odd["quote"]},
    )


def _shapes() -> Iterator[Event]:
    """Keys of the event itself."""
    named = {"event_name": NAME}
    yield Event(
        "duplicate_keys",
        b'{"event_name":"first",' + valued("5")[1:],
        stored={"value": Decimal(5), **named},
    )
    yield Event(
        "escaped_keys",
        valued("5").replace(b'"event_name"', b'"\\u0065vent_name"'),
        stored={"value": Decimal(5), **named},
    )
    yield Event(
        "other_case_of_keys",
        of().replace(b"event_name", b"Event_Name"),
        "missing_field",
        "event_name",
    )
    yield Event(
        "unknown_fields",
        of(
            properties='{"v":5}',
            x='{"event_name":1}',
            account='"other"',
            tenant_id='"other"',
            verdict='"counted"',
            value="9",
        ),
        stored={"value": Decimal(5)},
    )
    yield Event(
        "100000_unknown_fields",
        of(properties='{"v":5}', x="[" + "0," * 100_000 + "0]"),
        stored={"value": Decimal(5)},
    )
    yield Event("empty_key", of(**{"": "1"}), verdict="missing_property")
    yield Event(
        "events_is_null", of(properties='{"v":5}', events="null"), stored={"value": Decimal(5)}
    )
    yield Event("no_fields", b"{}", "missing_field", "event_name")
    for name, text in {"null": b"null", "number": b"1", "text": b'"a"', "true": b"true"}.items():
        yield Event(f"event_is_{name}", text, "wrong_type")


def _times() -> Iterator[Event]:
    wrong = {
        "words": "yesterday at noon", "date_alone": "2025-08-22", "second_60": "2025-08-22T07:05:60Z", "hour_25": "2025-08-22T25:05:00Z",
        "day_30_of_february": "2025-02-30T07:05:00Z", "month_13": "2025-13-01T07:05:00Z", "slashes": "08/22/2025 07:05:00",
        "epoch": "1755846349", "rfc_2822": "Fri, 22 Aug 2025 07:05:49 GMT", "year_0": "0000-01-01T00:00:00Z", "year_10000": "10000-01-01T00:00:00Z",
        "before_1970": "1969-12-31T23:59:59.999Z", "zone_name": "2025-08-22T07:05:00 Europe/Berlin", "offset_99": "2025-08-22T07:05:00+99:00",
        "trailing": "2025-08-22T07:05:00Zx", "arabic_digits": "٢٠٢٥-08-22T07:05:00Z", "year_1": "0001-01-01T00:00:00+14:00",
        "nul": "2025-08-22T07:05:00Z\0", "blank_before": " 2025-08-22T07:05:00Z", "injection": "2025-08-22T07:05:00' OR 1=1",
    }  # fmt: skip
    for name, text in wrong.items():
        code = "nul_character" if name == "nul" else "invalid_timestamp"
        yield Event(f"time_{name}", of(timestamp=json.dumps(text)), code, "timestamp")
    yield Event("time_empty", of(timestamp='""'), "empty", "timestamp")
    long = "2025-08-22T07:05:49." + "4" * 1_000_000 + "Z"
    yield Event("time_of_a_megabyte", of(timestamp=quoted(long)), "too_long", "timestamp")
    right = {
        "zulu": ("2025-08-22T07:05:49.441Z", 1755846349441), "offset": ("2025-08-22T07:05:49.441+14:00", 1755795949441), "no_offset": ("2025-08-22T07:05:49", 1755846349000),
        "blank_for_t": ("2025-08-22 07:05:49Z", 1755846349000), "small_letters": ("2025-08-22t07:05:49z", 1755846349000),
        "nanoseconds": ("2025-08-22T07:05:49.441999999Z", 1755846349441), "1970": ("1970-01-01T00:00:00Z", 0), "29_february": ("2024-02-29T00:00:00Z", 1709164800000),
    }  # fmt: skip
    for name, (text, moment) in right.items():
        stored = {"timestamp": moment, "value": Decimal(5)}
        yield Event(f"time_{name}", of(timestamp=quoted(text), properties='{"v":5}'), stored=stored)
    for name, text in {
        "in_2099": "2099-01-01T00:00:00Z",
        "in_9999": "9999-12-31T23:59:59Z",
        "beyond_9999": "9999-12-31T23:59:59-14:00",
    }.items():
        yield Event(
            f"time_{name}",
            of(timestamp=quoted(text), properties='{"v":5}'),
            "timestamp_in_future",
            "timestamp",
            verdict="out_of_range",
            http=True,
        )


EVENTS: Sequence[Event] = [
    *_syntax(),
    *_utf8(),
    *_numbers(),
    *_properties(),
    *_depth(),
    *_texts(),
    *_shapes(),
    *_times(),
]


def _whole(name: str, text: bytes, code: str, bulk: Refused | None = None) -> Body:
    refused = Refused(code)
    return Body(name, refused, bulk or refused, [(0, code)], start=text)


NO_EVENTS = Refused("empty", "/events")
ONE_WANTED = Refused("wrong_type")
MANY = Refused("too_many_events", "/events")
TOO_LARGE = Refused("payload_too_large", status=413)
_BULK_WANTED = Refused("wrong_type")
_NO_FIELD = Refused("missing_field", "/event_name")
_NOT_BULK = Refused("missing_field", "/events")
_EVENTS_WRONG = Refused("wrong_type", "/events")

BODIES: Sequence[Body] = [
    _whole("no_bytes", b"", "empty"),
    _whole("blanks_only", b" \r\n\t ", "empty"),
    _whole("bom", b"\xef\xbb\xbf" + GOOD, "invalid_json"),
    _whole("utf_16", GOOD.decode().encode("utf-16"), "invalid_utf8"),
    _whole("random_bytes", bytes(range(255, 0, -1)), "invalid_utf8"),
    _whole("all_zeros", bytes(1000), "invalid_json"),
    _whole("trailing_bytes", GOOD + b"x", "invalid_json"),
    _whole("two_documents", GOOD + GOOD, "invalid_json"),
    _whole("json_lines", GOOD + b"\n" + GOOD, "invalid_json"),
    _whole("a_form", b"event_name=hostile&external_customer_id=c", "invalid_json"),
    _whole("xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "invalid_json"),
    _whole("a_number", b"1", "wrong_type"),
    _whole("a_text", b'"a"', "wrong_type"),
    _whole("null", b"null", "wrong_type"),
    Body("an_empty_object", _NO_FIELD, _NOT_BULK, [(0, "missing_field")], start=b"{}"),
    Body("no_events_in_an_array", ONE_WANTED, NO_EVENTS, [(0, "empty")], start=b"[]"),
    Body("no_events_in_a_bulk", ONE_WANTED, NO_EVENTS, [(0, "empty")], start=b'{"events":[]}'),
    Body("events_is_null", _NO_FIELD, _NOT_BULK, [(0, "missing_field")], start=b'{"events":null}'),
    Body("events_is_a_number", _EVENTS_WRONG, _EVENTS_WRONG, [(0, "wrong_type")], start=b'{"events":5}'),
    Body("events_is_an_object", _EVENTS_WRONG, _EVENTS_WRONG, [(0, "wrong_type")], start=b'{"events":{"a":1}}'),
    Body("events_of_nulls", ONE_WANTED, Refused("wrong_type", "/events/0"), [(0, "wrong_type"), (1, "wrong_type")], start=b'{"events":[null,null]}'),
    Body("arrays_in_an_array", ONE_WANTED, Refused("wrong_type", "/events/0"), [(0, "wrong_type")], start=b"[[" + GOOD + b"]]"),
    Body("events_twice", ONE_WANTED, None, counted=2, start=b'{"events":[1],"events":[' + GOOD + b"," + GOOD + b"]}"),
    Body("events_and_an_event", ONE_WANTED, None, counted=1, start=b'{"events":[' + GOOD + b"]," + GOOD[1:]),
    Body("escaped_events_key", _NO_FIELD, _NOT_BULK, [(0, "missing_field")], start=b'{"\\u0065vents":[' + GOOD + b"]}"),
    Body("one_event", None, _NOT_BULK, counted=1, start=b" \n" + GOOD + b"\r\n\t"),
    Body("two_events_of_one_id", ONE_WANTED, None, counted=1, start=b"[", repeat=GOOD[:-1] + b',"event_id":"twice"},', times=2, end=b'{"event_name":"hostile","external_customer_id":"c","event_id":"twice","properties":{"v":2}}]'),
    Body("1000_events", ONE_WANTED, None, counted=1000, start=b"[", repeat=GOOD + b",", times=999, end=GOOD + b"]"),
    Body("1001_events", ONE_WANTED, MANY, counted=1001, start=b"[", repeat=GOOD + b",", times=1000, end=GOOD + b"]"),
    Body("100000_events", ONE_WANTED, MANY, counted=100_000, start=b"[", repeat=GOOD + b",", times=99_999, end=GOOD + b"]"),
    Body("100001_events", ONE_WANTED, MANY, [(0, "too_many_events")], start=b"[", repeat=GOOD + b",", times=100_000, end=GOOD + b"]"),
    Body("four_million_zeros", MANY, MANY, [(0, "too_many_events")], start=b"[", repeat=b"0,", times=4_000_000, end=b"0]"),
    Body("a_million_brackets", Refused("invalid_json"), Refused("invalid_json"), [(0, "invalid_json")], repeat=b"[", times=1_000_000),
    Body("a_million_objects", Refused("too_large"), ONE_WANTED, [(0, "too_large")], repeat=b'{"a":', times=1_000_000),
    Body("ten_mebibytes", ONE_WANTED, None, counted=2, start=b"[" + GOOD + b",", repeat=b" ", times=BODY_BYTES_MAX - 2 * len(GOOD) - 3, end=GOOD + b"]"),
    Body("ten_mebibytes_and_one", TOO_LARGE, TOO_LARGE, [(0, "too_large")], start=b"[" + GOOD + b",", repeat=b" ", times=BODY_BYTES_MAX - 2 * len(GOOD) - 2, end=GOOD + b"]"),
    Body("ten_mebibytes_of_one_text", Refused("too_large"), _NOT_BULK, [(0, "too_large")], start=valued("1")[:-2] + b',"w":"', repeat=b"x", times=BODY_BYTES_MAX - 100, end=b'"}}'),
]  # fmt: skip


def _deflated(data: bytes, wbits: int) -> bytes:
    stream = zlib.compressobj(wbits=wbits)
    return stream.compress(data) + stream.flush()


_BROKEN = Refused("invalid_encoding")
_UNKNOWN = Refused("unsupported_media_type", status=415)
_ZIPPED = gzip.compress(GOOD, mtime=0)

ENCODED: Sequence[Encoded] = [
    Encoded("gzip", "gzip", _ZIPPED, None),
    Encoded("gzip_in_capitals", "GZIP", _ZIPPED, None),
    Encoded("gzip_in_members", "gzip", gzip.compress(GOOD[:9], mtime=0) + gzip.compress(GOOD[9:], mtime=0), None),
    Encoded("deflate", "deflate", _deflated(GOOD, 15), None),
    Encoded("deflate_without_a_frame", "deflate", _deflated(GOOD, -15), None),
    Encoded("zstd", "zstd", zstandard.compress(GOOD), None),
    Encoded("gzip_cut", "gzip", _ZIPPED[:-1], _BROKEN),
    Encoded("gzip_of_a_wrong_sum", "gzip", _ZIPPED[:-8] + bytes(8), _BROKEN),
    Encoded("gzip_and_rubbish", "gzip", _ZIPPED + b"rubbish", _BROKEN),
    Encoded("gzip_of_nothing", "gzip", gzip.compress(b"", mtime=0), Refused("empty")),
    Encoded("gzip_that_is_none", "gzip", GOOD, _BROKEN),
    Encoded("gzip_without_bytes", "gzip", b"", Refused("empty")),
    Encoded("gzip_twice", "gzip", gzip.compress(_ZIPPED, mtime=0), Refused("invalid_utf8")),
    Encoded("gzip_twice_as_said", "gzip, gzip", gzip.compress(_ZIPPED, mtime=0), _UNKNOWN),
    Encoded("gzip_unsaid", "identity", _ZIPPED, Refused("invalid_utf8")),
    Encoded("gzip_bomb", "gzip", gzip.compress(bytes(BODY_BYTES_MAX + 1), mtime=0), TOO_LARGE),
    Encoded("deflate_bomb", "deflate", _deflated(bytes(64 << 20), 15), TOO_LARGE),
    Encoded("zstd_bomb", "zstd", zstandard.compress(bytes(64 << 20)), TOO_LARGE),
    Encoded("zstd_cut", "zstd", zstandard.compress(GOOD)[:-3], _BROKEN),
    Encoded("zstd_without_bytes", "zstd", b"", Refused("empty")),
    Encoded("gzip_in_half_a_million_members", "gzip", gzip.compress(b"", mtime=0) * 500_000, _BROKEN),
    Encoded("zstd_in_a_million_frames", "zstd", zstandard.compress(b"") * 1_000_000, _BROKEN),
    Encoded("deflate_that_is_none", "deflate", GOOD, _BROKEN),
    Encoded("brotli", "br", GOOD, _UNKNOWN),
    Encoded("compress", "compress", GOOD, _UNKNOWN),
    Encoded("rubbish", "gzip;q=1,,", GOOD, _UNKNOWN),
]  # fmt: skip

TEN_MEBIBYTES = next(each for each in BODIES if each.name == "ten_mebibytes").text
_OTHER = [("account", b"other"), ("received_at", b"0"), ("first_id", b"x")]
RECORDS: Sequence[Record] = [
    Record("no_value", None, [(0, "empty")], key=b"tombstone"),
    Record("no_key", GOOD, counted=1),
    Record("empty_key", GOOD, counted=1, key=b""),
    Record("a_key_of_a_megabyte", GOOD, counted=1, key=bytes(1_000_000)),
    Record("a_key_that_is_no_text", GOOD, counted=1, key=b"\xff\x00"),
    Record("headers_of_another_account", GOOD, counted=1, headers=_OTHER),
    Record("a_thousand_headers", GOOD, counted=1, headers=[("h\u00e9", b"\xff" * 100)] * 1000),
    Record("a_header_of_a_megabyte", GOOD, counted=1, headers=[("h", bytes(1_000_000))]),
    Record("gzip_that_nobody_undoes", _ZIPPED, [(0, "invalid_utf8")], headers=[("content-encoding", b"gzip")]),
]  # fmt: skip


def _bomb(codec: str) -> Batch:
    return Batch(
        f"{codec}_bomb",
        f"64 MiB of zeros in {codec}",
        lambda: batch(CODECS[codec], [bytes(64 << 20)], at=None),
        "too_large",
    )


def _with_a_header_that_is_no_text() -> bytes:
    made = batch(0, [GOOD, GOOD], [("name", b"")], at=None)
    before, name, after = made[RECORDS_AT:].rpartition(b"name")
    return changed(made, before + b"\xff" * len(name) + after)


BATCHES: Sequence[Batch] = [
    *map(_bomb, ("gzip", "snappy", "lz4", "zstd")),
    Batch("thirty_mebibytes", "three records of 10 MiB in zstd", lambda: batch(CODECS["zstd"], [TEN_MEBIBYTES] * 3, at=None), counted=6),
    Batch("two_million_headers", "a record with 2,200,000 empty headers in gzip", lambda: batch(CODECS["gzip"], [GOOD], [("", None)] * 2_200_000, at=None), "too_large"),
    Batch("200001_records", "200,001 records without a byte in lz4", lambda: batch(CODECS["lz4"], [b""] * 200_001, at=None), "too_large"),
    Batch("a_header_that_is_no_text", "two good records, the second with it", _with_a_header_that_is_no_text, "unreadable_batch", counted=1),
]  # fmt: skip

WIRE = "tests/ingest_gateway/test_connection.py"
SLOW = "tests/e2e/test_slow_clients.py"
CONNECTIONS: Sequence[tuple[str, str, str]] = [
    ("HTTP/0.9, HTTP/2 without its preface", "400 invalid_http", f"{WIRE}::test_another_version_of_http_is_400"),
    ("TLS and zeros where HTTP belongs, CONNECT, a path that is no text", "400 invalid_http", f"{WIRE}::test_what_is_no_http_is_400"),
    ("Content-Length with Transfer-Encoding, either twice, folded, with a sign, in hex; two hosts: 17 pairs that two servers read differently", "400 invalid_http; what they hide is never read", f"{WIRE}::test_what_two_servers_may_read_differently_is_400"),
    ("chunks in HTTP/1.0, no Host", "400 invalid_http", f"{WIRE}::test_chunks_without_a_version_that_has_them_or_a_host_are_400"),
    ("chunks of a negative, overflowing or wrong length", "400 invalid_http", f"{WIRE}::test_broken_chunks_are_400"),
    ("padding in and behind chunks", "400 invalid_http", f"{WIRE}::test_padding_between_chunks_and_behind_them_is_bounded"),
    ("chunks without a length", "read whole: 202", f"{WIRE}::test_chunks_without_a_length_are_read_whole"),
    ("a Content-Length too large", "408", f"{WIRE}::test_a_body_shorter_than_its_length_is_408_and_a_longer_one_the_next_request"),
    ("rubbish behind a request", "its 202 first, then closed", f"{WIRE}::test_rubbish_behind_a_request_comes_after_its_answer"),
    ("`Expect: 100-continue`", "100 where the body is wanted, else the refusal", f"{WIRE}::test_expect_is_answered_100_only_when_the_body_is_wanted"),
    ("`Upgrade`, to h2c or a websocket", "ignored: 202", f"{WIRE}::test_an_offer_to_upgrade_is_ignored_and_the_body_read"),
    ("101 headers", "431", f"{WIRE}::test_more_than_100_headers_are_431"),
    ("64 KiB of headers, 64 KiB of address, 5 MiB of either", "431", f"{WIRE}::test_headers_of_more_than_64_kib_are_431"),
    ("the same, in pieces", "431", f"{WIRE}::test_they_are_431_however_they_are_cut"),
    ("`http://[`, `//`, `*` as an address", "400 or 404", f"{WIRE}::test_an_address_that_is_none_is_400_or_404"),
    ("10 MiB and a byte, by length and in chunks", "413, the rest unread", f"{WIRE}::test_a_body_of_ten_mebibytes_and_one_byte_is_413"),
    ("ten gigabytes in gzip, deflate and zstd", "413 within 150 MiB", f"{WIRE}::test_a_bomb_of_ten_gigabytes_is_413_in_bounded_memory"),
    ("a silent connection", "closed after 10 s", f"{WIRE}::test_a_silent_connection_is_closed"),
    ("a head that comes by drops", "408 after 10 s", f"{WIRE}::test_a_head_that_comes_by_drops_is_408"),
    ("a body that comes by drops, below 1 KiB/s", "408 after 10 s", f"{WIRE}::test_a_body_that_comes_by_drops_is_408"),
    ("a body that comes, and never ends", "408 after 60 s", f"{WIRE}::test_a_body_that_comes_fast_but_never_ends_is_408"),
    ("a body that stops, however fast it came before", "408 after 20 s", f"{WIRE}::test_a_body_that_stops_is_408"),
    ("half bodies of one account that fill the room of all", "503 with Retry-After for that account, 202 for others", f"{WIRE}::test_half_bodies_of_one_account_leave_room_to_others"),
    ("requests without a key whose answers nobody reads", "closed after 60 s", f"{WIRE}::test_a_client_that_does_not_read_its_answers_is_closed"),
    ("answers that are read slowly", "all of them", f"{WIRE}::test_a_client_that_reads_slowly_gets_all_its_answers"),
    ("half a second request", "408", f"{WIRE}::test_a_connection_serves_many_requests_and_half_a_second_one_is_408"),
    ("a stop while clients are silent", "ends after 5 s; what began is answered", f"{WIRE}::test_stopping_waits_for_nobody_who_is_silent"),
    ("5,000 sockets with nothing, half a head, half a body", "others' p99 below twice; SIGTERM ends within 25 s", f"{SLOW}::test_five_thousand_slow_clients_hold_up_neither_others_nor_the_end"),
]  # fmt: skip
"""What is sent, what happens, and the test that does it."""

HEAD = """# Hostile input

What a producer may send, and what becomes of it: the same over HTTP and over Kafka. A 4xx or a dead letter with the
same code, or a verdict; never a 5xx, a stall or a crash. Made by `python -m tests.hostile`, from the table that
`tests/e2e/test_hostile_input.py` sends to a running Tallylog: every row by both ways, each event alone and between two good ones.
Afterwards good events are counted, conservation has no gap, and memory has stayed within 512 MiB of what it was;
under the batches, and half a gigabyte of text in 25 KB of them, within 384 MiB of packer and 192 MiB of console.
"""


def document() -> str:
    """docs/HOSTILE_INPUT.md."""
    lines = [HEAD, "## Events", ""]
    lines += [
        "In a bulk, `/events/1` stands before the field, and good events beside a bad one are refused with it over HTTP,"
    ]
    lines += [
        "counted from Kafka. Where *all* stands, nothing of the record around it can be read.",
        "",
    ]
    lines += ["| event | text | HTTP | Kafka |", "| --- | --- | --- | --- |"]
    for event in EVENTS:
        refused = f"400 {event.code} {event.field}".strip() + (" (all)" if event.whole else "")
        stored = event.verdict + (
            f", {event.stored['warnings']}" if "warnings" in event.stored else ""
        )
        stored += (
            f", {event.stored['value']}"
            if "value" in event.stored and len(str(event.stored["value"])) < 24
            else ""
        )
        http = f"202, {stored}" if event.code is None else refused
        kafka = (
            stored
            if event.code is None or event.http
            else f"dead letter {event.code}" + (" (all)" if event.whole else "")
        )
        lines.append(_line(event.name, shown(event.text), http, kafka))
    lines += [
        "",
        "## Bodies",
        "",
        "| body | starts with | bytes | single | bulk | Kafka |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for body in BODIES:
        dead = [
            f"dead letter {code}" + (f" at {index}" if len(body.dead) > 1 else "")
            for index, code in body.dead
        ]
        counted = [f"{body.counted} counted"] if body.counted else []
        lines.append(
            _line(
                body.name,
                shown(body.text),
                f"{len(body.text):,}",
                _told(body.single),
                _told(body.bulk),
                ", ".join(counted + dead),
            )
        )
    lines += [
        "",
        "## Encodings (HTTP)",
        "",
        "| body | Content-Encoding | bytes | answer |",
        "| --- | --- | --- | --- |",
    ]
    for each in ENCODED:
        lines.append(
            _line(each.name, f"`{each.encoding}`", f"{len(each.body):,}", _told(each.answer))
        )
    lines += ["", "## Records (Kafka)", "", "| record | becomes |", "| --- | --- |"]
    for record in RECORDS:
        dead = [f"dead letter {code}" for _, code in record.dead]
        lines.append(
            _line(
                record.name,
                ", ".join(dead or [f"{record.counted} counted, for the topic's account"]),
            )
        )
    lines += ["", "## Batches (Kafka)", "", "| batch | holds | becomes |", "| --- | --- | --- |"]
    for row in BATCHES:
        counted = [f"{row.counted} counted"] if row.counted else []
        counted += [f"dead letter {row.dead}"] if row.dead else []
        lines.append(_line(row.name, row.holds, ", ".join(counted)))
    lines += [
        "",
        "## Connections (HTTP)",
        "",
        "| what is sent | what happens | test |",
        "| --- | --- | --- |",
    ]
    lines += [
        _line(what, happens, f"`{test.partition('::')[2]}`") for what, happens, test in CONNECTIONS
    ]
    return "\n".join(lines) + "\n"


def _told(answer: Refused | None) -> str:
    return "202" if answer is None else f"{answer.status} {answer.code} {answer.pointer}".strip()


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def shown(text: bytes) -> str:
    """What is peculiar about a text, as a table of Markdown may hold it: what all share is left out."""
    cut = text.replace(b'"event_name":"hostile",', b"").replace(b'"external_customer_id":"c"', b"")
    cut = cut.replace(b"{,", b"{")[:BYTES_SHOWN] + (b"..." if len(cut) > BYTES_SHOWN else b"")
    plain = cut.decode("ascii", "backslashreplace").translate(
        {n: f"\\x{n:02x}" for n in [*range(32), 127]}
    )
    return "`" + plain.replace("|", "\\x7c").replace("`", "\\x60") + "`" if plain else ""


if __name__ == "__main__":
    sys.stdout.write(document())
