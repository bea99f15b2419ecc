"""Usage from a real engine against the oracle: random streams, ranges, zones, windows, resets."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from clickhouse_connect.driver import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from billing.aggregation import Quantity
from billing.usage import Usage
from billing.windows import TooManyWindows, to_datetime, to_ms, windows
from schemas.catalog import Window
from tests import oracle
from tests.billing.rows import feature_of, store_block
from tests.oracle import Rule, Sent

pytestmark = pytest.mark.clickhouse

MS = timedelta(milliseconds=1)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink one takes minutes
PLACES = {
    "Europe/Berlin": datetime(2025, 3, 30, 1, tzinfo=UTC),
    "America/New_York": datetime(2025, 11, 2, 6, tzinfo=UTC),
    "Asia/Kathmandu": datetime(2025, 6, 30, 18, 15, tzinfo=UTC),  # +5:45
    "Asia/Kolkata": datetime(2025, 2, 28, 18, 30, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2025, 4, 5, 15, tzinfo=UTC),  # clocks move by 30 minutes
    "America/Sao_Paulo": datetime(2018, 11, 4, 3, tzinfo=UTC),  # no midnight
    "Pacific/Apia": datetime(2011, 12, 30, 10, tzinfo=UTC),  # no 30 December
    "UTC": datetime(2024, 2, 29, tzinfo=UTC),
}
"""Zones, each with a moment at which something happens to its clock."""


def rules_of(account: str) -> dict[str, Rule]:
    kinds: list[dict[str, Any]] = [
        {"aggregation": "COUNT"},
        {"aggregation": "SUM", "field": "n"},
        {"aggregation": "AVG", "field": "n"},
        {"aggregation": "COUNT_UNIQUE", "field": "x"},
        {"aggregation": "LATEST", "field": "x"},
        {"aggregation": "SUM_WITH_MULTIPLIER", "field": "n", "multiplier": Decimal("0.003")},
        {"aggregation": "MAX", "field": "n"},
        {"aggregation": "WEIGHTED_SUM", "field": "n"},
    ]
    sizes = ["MINUTE", "15MIN", "30MIN", "HOUR", "3HOUR", "DAY"]
    buckets: list[dict[str, Any]] = [
        {
            "aggregation": "MAX",
            "field": "n",
            "bucket_size": size,
            "group_by": "g" if i % 2 else None,
        }
        for i, size in enumerate(sizes)
    ]
    kinds += [kind | {"reset": "NEVER"} for kind in kinds] + buckets
    kinds.append({"aggregation": "SUM", "field": "n", "filters": {"g": {"a", "1"}}})
    return {f"e{i}": Rule(account, f"e{i}", **kind) for i, kind in enumerate(kinds)}


NUMBERS = st.one_of(
    st.integers(-20, 20).map(Decimal),
    st.decimals(Decimal("-1e19"), Decimal("1e19"), places=18),
    st.sampled_from(["5", "-0.5", "1e3", "abc", "", True, None, Decimal("1e21")]),
    st.sampled_from([Decimal("1.10"), Decimal("1.1"), Decimal("0.0000000000000000005")]),
)
GROUPS = st.sampled_from(["a", "b", "", Decimal(1), Decimal("1.0"), True])


@st.composite
def times(draw: st.DrawFn, around: datetime) -> datetime:
    """Moments near a change of the clock, often at a boundary or a millisecond beside it."""
    minutes = draw(
        st.one_of(st.integers(-2 * 1440, 2 * 1440), st.sampled_from(range(-360, 360, 15)))
    )
    return around + timedelta(minutes=minutes) + draw(st.sampled_from([-1, 0, 0, 1, 30_123])) * MS


@st.composite
def streams(draw: st.DrawFn, account: str, around: datetime, names: list[str]) -> list[Sent]:
    log = []
    for offset in range(draw(st.integers(1, 25))):
        time = draw(times(around))
        properties = draw(
            st.fixed_dictionaries({}, optional={"n": NUMBERS, "x": NUMBERS | GROUPS, "g": GROUPS})
        )
        late = draw(st.sampled_from([-1500, -1440, 0, 0, 1, 10, 3000]))
        event = {
            "event_name": draw(st.sampled_from(names)),
            "external_customer_id": draw(st.sampled_from(["c1", "c1", "c2"])),
            "event_id": f"id{draw(st.integers(0, 30))}",
            "timestamp": time.isoformat(),
            "properties": properties,
        }
        position = (draw(st.integers(0, 1)), offset, 0)
        log.append(Sent(account, event, time + timedelta(minutes=late), position))
    return log


def shown(quantity: Quantity) -> Decimal | str | None:
    return quantity.shown if quantity.text is None else quantity.text


@settings(max_examples=60, phases=PHASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_usage_is_what_the_oracle_says(store: Client, data: st.DataObject) -> None:
    draw = data.draw
    account = uuid4().hex
    rules = rules_of(account)
    ids = {name: f"feat_{name}" for name in rules}
    zone = draw(st.sampled_from(sorted(PLACES)))
    around = PLACES[zone]
    names = draw(st.lists(st.sampled_from(sorted(rules)), min_size=1, max_size=3, unique=True))
    log = draw(streams(account, around, names))
    judged = oracle.judge(log, rules.values())
    cut = draw(st.integers(0, len(judged)))
    for part, resent in ((judged[:cut], False), (judged[cut:], draw(st.booleans()))):
        if part:
            firsts = [one for one in part if one.verdict != "duplicate"] if resent else part
            others = [one for one in part if one.verdict == "duplicate"] if resent else []
            if firsts:
                store_block(store, firsts, rules, ids, resent)
            if others:
                store_block(store, others, rules, ids)
    start, end = sorted(draw(st.lists(times(around), min_size=2, max_size=2, unique=True)))
    customer = draw(st.sampled_from(["c1", "c1", None]))
    for name in names:
        rule, extra = rules[name], {}
        kind = draw(st.sampled_from(["feature", "feature", "ad hoc", "filtered"]))
        feature = feature_of(rule, ids[name])
        if kind == "ad hoc":
            other = draw(st.sampled_from(sorted(rules)))
            rule = replace(rules[other], event_name=name)
            feature = feature_of(rule, "")
            expected_of = oracle.judge(log, [rule])
        elif kind == "filtered":
            extra = {"g": {"a", "true"}}
            both = {k: v & rule.filters.get(k, v) for k, v in extra.items()}
            rule = replace(rule, filters=both)
            expected_of = oracle.judge(log, [rule])
        else:
            expected_of = judged
        filters = tuple((key, frozenset(values)) for key, values in extra.items())
        usage = Usage(feature, customer, ZoneInfo(zone), filters)
        total = shown(usage.total(store, to_ms(start), to_ms(end)))
        assert total == oracle.usage(expected_of, rule, customer, start, end, zone), rule
        if draw(st.booleans()):
            window = draw(st.sampled_from(list(Window)))
            anchor = draw(st.none() | times(around))
            if window is Window.MINUTE:
                end = min(end, start + timedelta(hours=3))
            spans = windows(to_ms(start), to_ms(end), window, ZoneInfo(zone), anchor)
            cuts = oracle.boundaries(start, end, window.value, zone, anchor)
            assert [to_datetime(span.label) for span in spans] == cuts
            edges = [start, *cuts[1:], end]
            assert [to_datetime(span.start) for span in spans] == edges[:-1]
            assert [to_datetime(span.end) for span in spans] == edges[1:]
            if len(spans) > 100:
                continue
            assert [shown(each) for each in usage.windows(store, spans)] == [
                oracle.usage(expected_of, rule, customer, since, until, zone)
                for since, until in pairwise(edges)
            ], (rule, window)


def test_ten_thousand_windows_are_answered_and_one_more_is_refused() -> None:
    zone = ZoneInfo("UTC")
    minute = 60_000
    assert len(windows(0, 10_000 * minute, Window.MINUTE, zone)) == 10_000
    with pytest.raises(TooManyWindows):
        windows(0, 10_000 * minute + 1, Window.MINUTE, zone)
    with pytest.raises(TooManyWindows):
        windows(0, 100 * 366 * 24 * 60 * minute, Window.HOUR_3, zone)
