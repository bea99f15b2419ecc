"""Matching against the oracle, which knows the rules and none of this code."""

import json
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.matching import NUMERIC, Match, Matcher
from schemas.catalog import Aggregation, Feature, Window
from schemas.verdict import Verdict, Warn
from tests import oracle
from tests.stream_workers.worlds import make_feature

TEXTS = [
    "0", "-0", "1", "-1", "1.0", "1e3", "1E-3", "0.1", "12345678901234567890",
    "123456789012345678901", "-99999999999999999999.999999999999999999",
    "99999999999999999999.9999999999999999995", "0.0000000000000000005",
    "0.0000000000000000015", "1e-19", "1e20", "1e19", '""', '"a"', '"1"', '"1.0"', '"1e2"', '" 1"',
    '"1x"', '"+1"', '"０"', '"é"', '"a\\"b"', '"\\u0041"', "true", "false", "null", "[]", "{}",
    "[1, 2]", '{"a": 1}',
]  # fmt: skip
KEYS = ["v", "g", "f", 'a"b']
PROPERTIES = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(TEXTS), max_size=4)
VALUES = ["1", "1.0", "a", "true", "0", "", "A"]
FILTERS = st.dictionaries(
    st.sampled_from(KEYS[2:]), st.sets(st.sampled_from(VALUES), min_size=1, max_size=3), max_size=2
)


def json_of(given: dict[str, str]) -> bytes:
    return ("{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in given.items()) + "}").encode()


def matches_of(feature: Feature, properties: list[bytes]) -> list[Match]:
    matches = Matcher(feature).match(properties)
    return matches if isinstance(matches, list) else [matches] * len(properties)


NUMBERS = st.one_of(
    st.sampled_from(TEXTS[:14]),
    st.decimals(-(10**21), 10**21, allow_nan=False, places=20).map(lambda d: f"{d:f}"),
    st.integers(-(10**20), 10**20).map(str),
)


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=4), st.booleans())
def test_a_column_of_plain_numbers_is_what_matching_one_by_one_says(
    numbers: list[str], missing: bool
) -> None:
    feature = make_feature(aggregation=Aggregation.SUM, field="v")
    properties = [b'{"v": %s, "w": 1}' % number.encode() for number in numbers]
    properties += [b"{}"] if missing else []
    each, columns = matches_of(feature, properties), Matcher(feature).columns(properties)
    if isinstance(columns, np.ndarray):
        assert [match.value for match in each] == [row.tobytes() for row in columns]
        assert not any(match.special for match in each)
    else:
        assert columns == each


def test_plain_numbers_become_a_column() -> None:
    feature = make_feature(aggregation=Aggregation.SUM, field="v")
    columns = Matcher(feature).columns([b'{"v": -1.5}', b'{"v": 99999999999999999999}'])
    assert isinstance(columns, np.ndarray)
    assert [value_of(row.tobytes()) for row in columns] == [Decimal("-1.5"), Decimal(10**20 - 1)]


def value_of(raw: bytes) -> Decimal:
    return Decimal(int.from_bytes(raw, "little", signed=True)).scaleb(-18, Context(prec=100))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(list(Aggregation)),
    FILTERS,
    st.booleans(),
    st.lists(PROPERTIES, min_size=1, max_size=6),
)
def test_every_aggregation_agrees_with_the_oracle(
    aggregation: Aggregation,
    filters: dict[str, set[str]],
    bucketed: bool,
    events: list[dict[str, str]],
) -> None:
    field = None if aggregation is Aggregation.COUNT else "v"
    bucketed = bucketed and aggregation is Aggregation.MAX
    feature = make_feature(
        aggregation,
        field,
        filters=tuple((key, frozenset(values)) for key, values in filters.items()),
        bucket_size=Window.HOUR if bucketed else None,
        group_by="g" if bucketed else None,
    )
    rule = oracle.Rule(
        "acme", "calls", aggregation, field, filters=filters, group_by="g" if bucketed else None
    )
    matches = matches_of(feature, [json_of(event) for event in events])
    at = datetime(2025, 1, 1, tzinfo=UTC)
    for number, event in enumerate(events):
        match = matches[number]
        sent = oracle.Sent(
            "acme", {"properties": oracle.properties(json_of(event).decode())}, at, (0, 0, 0)
        )
        judged = oracle.apply(rule, sent, at)
        assert match.verdict == judged.verdict, event
        if judged.verdict != "counted":
            assert (match.value, match.text, match.group) == (bytes(16), "", "")
        elif aggregation is Aggregation.COUNT_UNIQUE:
            assert match.text == judged.value
        elif isinstance(judged.value, str):
            assert (match.text, match.is_text) == (judged.value, True)
        elif aggregation is not Aggregation.COUNT:
            assert value_of(match.value) == judged.value
        if bucketed and judged.verdict == "counted" and _has_text(event.get("g")):
            assert match.group == judged.group


def _has_text(text: str | None) -> bool:
    return text is None or text[0] not in "{[n"


@pytest.mark.parametrize("aggregation", sorted(NUMERIC))
def test_a_numeric_value_warns_of_what_was_made_of_it(aggregation: str) -> None:
    feature = make_feature(aggregation, "v")
    plain, text, rounded, both = matches_of(
        feature, [b'{"v": 1.5}', b'{"v": "1.5"}', b'{"v": 1e-19}', b'{"v": "1e-19"}']
    )
    assert [plain.warnings, text.warnings] == [(), (Warn.NUMERIC_STRING,)]
    assert [rounded.warnings, both.warnings] == [
        (Warn.ROUNDED,), (Warn.NUMERIC_STRING, Warn.ROUNDED),
    ]  # fmt: skip


@pytest.mark.parametrize("field", ['a"b', "a\\b", "a\tb", "é", "p0", "gc", "__init__", " ", "a.b"])
def test_any_field_name_can_be_aggregated_and_filtered(field: str) -> None:
    """A quote or a backslash in a feature's field once ended the counter."""
    feature = make_feature("SUM", field, filters=((f"{field}!", frozenset({"x"})),))
    found = json.dumps({field: 7, f"{field}!": "x"}, ensure_ascii=False).encode()
    matches = matches_of(
        feature, [found, b"", b'{"other": 1}', json.dumps({f"{field}!": "x"}).encode()]
    )
    assert [match.verdict for match in matches] == [
        Verdict.COUNTED, Verdict.FILTERED, Verdict.FILTERED, Verdict.MISSING_PROPERTY,
    ]  # fmt: skip
    assert value_of(matches[0].value) == 7


def test_details_name_the_property_and_show_its_value_shortly() -> None:
    matches = matches_of(
        make_feature("SUM", "v", filters=(("r", frozenset({"eu"})),)),
        [b'{"r": "us"}', b"", b'{"r": "eu"}', b'{"r": "eu", "v": ["%s"]}' % (b"x" * 500)],
    )
    assert [match.detail for match in matches][:3] == ['r is "us"', "r is missing", "v is missing"]
    assert len(matches[3].detail) < 100


def test_a_group_tells_missing_empty_and_null_apart() -> None:
    feature = make_feature("MAX", "v", bucket_size=Window.HOUR, group_by="g")
    groups = [b"", b', "g": ""', b', "g": null', b', "g": "null"', b', "g": {}', b', "g": true']
    matches = matches_of(feature, [b'{"v": 1%s}' % group for group in groups])
    assert [match.group for match in matches] == ["", "=", "=null", "=null", "={}", "=true"]


def test_an_event_without_properties_misses_the_property() -> None:
    [match] = matches_of(make_feature("SUM", "v"), [b""])
    assert match.verdict is Verdict.MISSING_PROPERTY


def test_the_last_of_repeated_keys_counts_in_any_decoder() -> None:
    for field in ("v", 'v"'):
        key = json.dumps(field).encode()
        [match] = matches_of(make_feature("SUM", field), [b"{%s: 1, %s: 2}" % (key, key)])
        assert value_of(match.value) == 2


def test_the_grain_fits_the_bucket() -> None:
    grains: dict[Any, int] = {
        size: Matcher(make_feature("MAX", "v", bucket_size=size)).grain
        for size in (None, Window.MINUTE, Window.MIN_15, Window.MIN_30, Window.HOUR, Window.DAY)
    }
    assert list(grains.values()) == [3600, 60, 900, 900, 3600, 3600]
