"""Usage from a real engine against the oracle: random streams, ranges, zones, windows, resets."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from clickhouse_connect.driver import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from billing.usage import Labels, Usage
from billing.windows import TooManyWindows, to_datetime, to_ms, windows
from schemas.catalog import Window
from tests import oracle
from tests.billing.rows import feature_of
from tests.billing.streams import PLACES, rules_of, shown, store_in_blocks, streams, times
from tests.oracle import Counted, Rule

pytestmark = pytest.mark.clickhouse

NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink one takes minutes


@settings(max_examples=40, phases=PHASES, deadline=None, suppress_health_check=list(HealthCheck))
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
    store_in_blocks(store, judged, rules, ids, cut, draw(st.booleans()))
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
        total = shown(usage.over(store, [(to_ms(start), to_ms(end))])[0].quantity)
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
            found = usage.over(store, [(span.start, span.end) for span in spans])
            assert [shown(each.quantity) for each in found] == [
                oracle.usage(expected_of, rule, customer, since, until, zone)
                for since, until in pairwise(edges)
            ], (rule, window)


@settings(max_examples=25, phases=PHASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_groups_are_what_the_oracle_says_of_their_events(
    store: Client, data: st.DataObject
) -> None:
    draw = data.draw
    account = uuid4().hex
    rules = rules_of(account)
    zone = draw(st.sampled_from(sorted(PLACES)))
    name = draw(st.sampled_from(sorted(rules)))
    rule = rules[name]
    log = draw(streams(account, PLACES[zone], [name]))
    judged = oracle.judge(log, [rule])
    store_in_blocks(store, judged, {name: rule}, {name: "feat_e"}, 0, resent=False)
    start, end = sorted(draw(st.lists(times(PLACES[zone]), min_size=2, max_size=2, unique=True)))
    feature = feature_of(rule, draw(st.sampled_from(["feat_e", ""])))
    sources = tuple(draw(st.sampled_from([(), ("api", "worker")])))
    group_by = draw(st.sampled_from([("source",), ("properties.g",), ("properties.x", "source")]))
    usage = Usage(feature, None, ZoneInfo(zone), (), sources, group_by)
    found = usage.groups(store, [(to_ms(start), to_ms(end))])
    mine: dict[Labels, list[Counted]] = {}
    for one in judged:
        level = rule.reset == "NEVER" and one.time < end
        inside = level or start <= one.time < end
        event = one.sent.event
        if one.verdict == "counted" and inside and event["source"] in (sources or event["source"]):
            labels = tuple(
                event["source"] if each == "source" else label(event["properties"], each[11:])
                for each in group_by
            )
            mine.setdefault(labels, []).append(one)
    amounts = {labels: (shown(it.quantity), it.event_count) for labels, (it,) in found.items()}
    assert amounts == {
        labels: (oracle.usage(own, rule, None, start, end, zone), len(own))
        for labels, own in mine.items()
    }


def label(properties: dict[str, Any], key: str) -> str | None:
    """What a group is called by: the property's text; null has none but its own."""
    if key not in properties:
        return None
    return oracle.canonical(properties[key]) if properties[key] is not None else "null"


@pytest.mark.parametrize(
    "text",
    [
        '{"g":"a","n":1}',
        ' { "n" : 1 , "g" : "a" } ',
        '{"h":"g","g":"a","n":1}',
        '{"h":"\\"g\\":","g":"a","n":1}',
        '{"\\u0067":"a","n":1}',
        '{"h":{"g":"b"},"g":"a","n":1}',
        '{"h":[{"g":"b"},1],"g":"a","n":1.0}',
        '{"g":"b","g":"a","n":1e0}',
        '{"h":"{","g":"a","n":"1"}',
        '{"h":"g","n":1.00,"g":"a"}',
        '{"gg":"b","g":"a","n":1}',
    ],
)
def test_a_property_is_found_however_the_json_is_written(store: Client, text: str) -> None:
    account = uuid4().hex
    rule = Rule(account, "e", "SUM", "n")
    store.insert(
        "events",
        [[account, "e", "c1", NOON, NOON, 3600, "counted", "feat_e", text]],
        column_names=["account", "event_name", "external_customer_id", "timestamp", "ingested_at",
                      "grain", "verdict", "feature_id", "properties"],
    )  # fmt: skip
    usage = Usage(feature_of(rule, "feat_e"), "c1", group_by=("properties.g",))
    found = usage.groups(store, [(to_ms(NOON), to_ms(NOON) + 1)])
    assert {labels: shown(group[0].quantity) for labels, group in found.items()} == {("a",): 1}


def test_ten_thousand_windows_are_answered_and_one_more_is_refused() -> None:
    zone = ZoneInfo("UTC")
    minute = 60_000
    assert len(windows(0, 10_000 * minute, Window.MINUTE, zone)) == 10_000
    with pytest.raises(TooManyWindows):
        windows(0, 10_000 * minute + 1, Window.MINUTE, zone)
    with pytest.raises(TooManyWindows):
        windows(0, 100 * 366 * 24 * 60 * minute, Window.HOUR_3, zone)
