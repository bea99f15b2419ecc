"""Many measures at once against the oracle; and what an answer says of how far it goes."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from clickhouse_connect.driver import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from billing.aggregation import Quantity
from billing.measures import Measure
from billing.reading import measure
from billing.windows import to_datetime, to_ms
from clickhouse.client import connect
from tests import oracle
from tests.billing.rows import feature_of, store_block
from tests.billing.streams import PLACES, rules_of, shown, store_in_blocks, streams, times
from tests.oracle import Counted, Rule, Sent

pytestmark = pytest.mark.clickhouse

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink one takes minutes
NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)


@settings(max_examples=40, phases=PHASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_batch_of_measures_is_what_the_oracle_says_of_each(
    store: Client, data: st.DataObject
) -> None:
    draw = data.draw
    account = uuid4().hex
    rules = rules_of(account)
    ids = {name: f"feat_{name}" for name in rules}
    around = PLACES[draw(st.sampled_from(sorted(PLACES)))]
    names = draw(st.lists(st.sampled_from(sorted(rules)), min_size=1, max_size=6, unique=True))
    judged = oracle.judge(draw(streams(account, around, names)), rules.values())
    cut = draw(st.integers(0, len(judged)))
    store_in_blocks(store, judged, rules, ids, cut, draw(st.booleans()))
    customers: list[str | None] = draw(st.sampled_from([["c1", "c2"], [None]]))
    measures = []
    for _ in range(draw(st.integers(1, 20))):
        start, end = sorted(draw(st.lists(times(around), min_size=2, max_size=2, unique=True)))
        measures.append(
            Measure(
                feature_of(rules[(name := draw(st.sampled_from(names)))], ids[name]),
                draw(st.sampled_from(customers)),
                to_ms(start),
                to_ms(end),
                draw(st.sampled_from(sorted(PLACES))),
            )
        )
    measured = measure(store, measures)
    for each in measures:
        rule = rules[each.feature.event_name]
        start, end = to_datetime(each.start), to_datetime(each.end)
        quantity = measured.quantities[each]
        expected = oracle.usage(judged, rule, each.customer, start, end, each.zone)
        assert shown(quantity) == expected, (rule, each)
        counts = replace_aggregation(rule)
        assert measured.counts[each] == oracle.usage(
            judged, counts, each.customer, start, end, each.zone
        )
        if rule.bucket_size is not None:
            assert measured.parts[each] == parts_of(judged, rule, each)


def replace_aggregation(rule: Rule) -> Rule:
    """The rule that counts the events that another rule counted."""
    return Rule(rule.account, rule.event_name, "COUNT", reset=rule.reset)


def parts_of(judged: list[Counted], rule: Rule, asked: Measure) -> tuple[Decimal, ...]:
    """The greatest value of each bucket and group, by looking at every event."""
    start, end = to_datetime(asked.start), to_datetime(asked.end)
    cuts = [start, *oracle.boundaries(start, end, rule.bucket_size or "", asked.zone)[1:]]
    greatest: dict[tuple[int, str], Decimal] = {}
    for one in judged:
        if (
            one.verdict == "counted"
            and one.sent.event["event_name"] == rule.event_name
            and asked.customer in (None, one.sent.event["external_customer_id"])
            and start <= one.time < end
        ):
            assert isinstance(one.value, Decimal)
            place = (to_ms(max(cut for cut in cuts if cut <= one.time)), one.group)
            greatest[place] = max(greatest.get(place, one.value), one.value)
    return tuple(greatest[place] for place in sorted(greatest))


def sent(account: str, minutes: list[int], customer: str = "c1", **properties: Any) -> list[Sent]:
    """Events some minutes after noon."""
    return [
        Sent(
            account,
            {
                "event_name": "e",
                "external_customer_id": customer,
                "event_id": uuid4().hex,
                "timestamp": (NOON + timedelta(minutes=minute)).isoformat(),
                "properties": properties,
            },
            NOON + timedelta(days=1),
            (0, number, 0),
        )
        for number, minute in enumerate(minutes)
    ]


def put(client: Client, rule: Rule, log: list[Sent]) -> None:
    store_block(client, oracle.judge(log, [rule]), {"e": rule}, {"e": "feat_e"})


def over(rule: Rule, start: int, end: int, customer: str | None = "c1") -> Measure:
    """From some minutes after noon to some."""
    noon, minute = to_ms(NOON), 60_000
    feature = feature_of(rule, "feat_e")
    return Measure(feature, customer, noon + start * minute, noon + end * minute)


@pytest.mark.parametrize("aggregation", ["COUNT", "COUNT_UNIQUE"])
def test_events_that_the_states_do_not_have_yet_are_not_counted(
    store: Client, aggregation: str
) -> None:
    """The view of an insert is written after its events: in between, they are beyond the marker."""
    rule = Rule(uuid4().hex, "e", aggregation, "n" if aggregation != "COUNT" else None)
    put(store, rule, sent(rule.account, [10, 70], n=1))
    whole = over(rule, 5, 75)
    before = measure(store, [whole])
    store.command("DETACH TABLE usage_states_mv")
    try:
        put(store, rule, sent(rule.account, [20, 60], n=2))
    finally:
        store.command("ATTACH TABLE usage_states_mv")
    assert measure(store, [whole]) == before
    put(store, rule, sent(rule.account, [30], n=3))
    after = measure(store, [whole])
    assert after.upto[0, 0] > before.upto[0, 0]
    assert after.counts[whole] > before.counts[whole]


def test_while_blocks_come_in_an_answer_holds_those_up_to_its_markers_and_no_others(
    store: Client, clickhouse_url: str
) -> None:
    """Each block has an event in a whole hour and two in one that the range divides."""
    rule = Rule(uuid4().hex, "e", "COUNT")
    put(store, rule, sent(rule.account, [60, 10, 20]))
    whole = over(rule, 5, 120)
    base = measure(store, [whole]).upto[0, 0] - 1
    stop = threading.Event()
    writer = connect(clickhouse_url, database=store.database)

    def work() -> None:
        while not stop.is_set():
            put(writer, rule, sent(rule.account, [60, 10, 20]))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        seen: set[int] = set()
        while len(seen) < 8:
            measured = measure(store, [whole])
            blocks = measured.upto[0, 0] - base
            assert measured.quantities[whole].shown == 3 * blocks
            seen.add(blocks)
    finally:
        stop.set()
        thread.join()
        writer.close()


def test_the_marker_is_the_offset_of_the_last_block(store: Client) -> None:
    rule = Rule(uuid4().hex, "e", "COUNT")
    put(store, rule, sent(rule.account, [0]))
    offset = store.command("SELECT max(block_offset) FROM events WHERE verdict = 'marker'")
    assert measure(store, [over(rule, 0, 60)]).upto == {(0, 0): offset}


def test_a_thousand_measures_take_two_queries(store: Client) -> None:
    rule = Rule(uuid4().hex, "e", "COUNT")
    put(store, rule, sent(rule.account, [10, 20, 70]))
    measures = [over(rule, minute, minute + 25) for minute in range(1000)]
    counted = Counting(store)
    measured = measure(counted, measures)
    assert counted.queries == 2
    assert [measured.quantities[each].shown for each in measures[:12]] == [2] * 11 + [1]
    hours = [over(rule, 60 * hour, 60 * hour + 60) for hour in range(1000)]
    counted = Counting(store)
    assert measure(counted, hours).quantities[hours[0]] == Quantity.of(2)
    assert counted.queries == 1


@pytest.mark.parametrize("aggregation", ["COUNT", "COUNT_UNIQUE"])
@pytest.mark.parametrize("reset", ["BILLING_PERIOD", "NEVER"])
def test_more_divided_hours_than_a_query_names_and_ten_thousand_windows(
    store: Client, aggregation: str, reset: str
) -> None:
    field = None if aggregation == "COUNT" else "x"
    rule = Rule(uuid4().hex, "e", aggregation, field, reset=reset)
    put(store, rule, sent(rule.account, [14, 15, 74, 75, 1_400], x=1))
    is_level = reset == "NEVER"
    several = aggregation == "COUNT"
    hours = [over(rule, 15 + 60 * hour, 75 + 60 * hour) for hour in range(1001)]
    quantities = measure(store, hours).quantities
    counts = [3, 4, 4] if is_level else [2, 1, 0]
    expected = counts if several else [min(count, 1) for count in counts]
    assert [quantities[each].shown for each in hours[:3]] == expected
    minutes = [over(rule, minute, minute + 1) for minute in range(10_000)]
    quantities = measure(store, minutes).quantities
    counts = [2, 2, 5] if is_level else [1, 0, 1]
    expected = counts if several else [min(count, 1) for count in counts]
    shown_at = [quantities[minutes[minute]].shown for minute in (15, 16, 1_400)]
    assert shown_at == expected


class Counting:
    """A client that counts its queries."""

    def __init__(self, client: Client) -> None:
        self.queries = 0
        self._client = client

    def query(self, *args: Any, **kwargs: Any) -> Any:
        self.queries += 1
        return self._client.query(*args, **kwargs)


def test_measures_of_nothing_ask_nothing() -> None:
    assert measure(None, []).quantities == {}


def test_several_accounts_or_a_mix_of_one_and_all_customers_are_refused(store: Client) -> None:
    rule, other = Rule("acme", "e", "COUNT"), Rule("other", "e", "COUNT")
    with pytest.raises(ValueError, match="accounts"):
        measure(store, [over(rule, 0, 60), over(other, 0, 60)])
    with pytest.raises(ValueError, match="customers"):
        measure(store, [over(rule, 0, 60), over(rule, 0, 60, customer=None)])
    with pytest.raises(ValueError, match="ad hoc"):
        measure(store, [Measure(feature_of(rule, ""), "c1", 0, 1)])


def test_distinct_values_beside_a_cut_in_their_hour_stay_outside(store: Client) -> None:
    rule = Rule(uuid4().hex, "e", "COUNT_UNIQUE", "x")
    log = [one for x, at in zip("abcd", (2, 10, 74, 80), strict=True)
           for one in sent(rule.account, [at], x=x)]  # fmt: skip
    put(store, rule, log)
    measures = [over(rule, 5, 75), over(rule, 0, 75), over(rule, 5, 120), over(rule, 0, 120)]
    quantities = measure(store, measures).quantities
    assert [quantities[each].shown for each in measures] == [2, 3, 3, 4]


def test_hours_of_a_zone_may_divide_the_spans_of_the_states(store: Client) -> None:
    rule = Rule(uuid4().hex, "e", "MAX", "n", bucket_size="HOUR")
    put(
        store, rule, sent(rule.account, [10], n=Decimal(1)) + sent(rule.account, [20], n=Decimal(2))
    )
    there = replace(over(rule, 0, 60), zone="Asia/Kathmandu")  # whose hours begin at a quarter past
    measured = measure(store, [there, over(rule, 0, 60)])
    assert measured.quantities[there].shown == 3
    assert measured.parts[there] == (Decimal(1), Decimal(2))
    assert measured.quantities[over(rule, 0, 60)].shown == 2


def test_what_an_hour_holds_before_its_divided_span_stays_outside(store: Client) -> None:
    rule = Rule(uuid4().hex, "e", "MAX", "n", bucket_size="15MIN")
    put(
        store, rule, sent(rule.account, [10], n=Decimal(7)) + sent(rule.account, [50], n=Decimal(2))
    )
    late = over(rule, 30, 55)  # divides the span from 45 minutes past
    assert measure(store, [late]).parts[late] == (Decimal(2),)
    early = over(rule, 20, 40)
    measured = measure(store, [early, late])
    assert [measured.quantities[each].shown for each in (early, late)] == [0, 2]


def test_customers_of_one_batch_are_kept_apart(store: Client) -> None:
    rule = Rule(uuid4().hex, "e", "COUNT")
    put(store, rule, sent(rule.account, [1, 2, 61]) + sent(rule.account, [3], customer="c2"))
    one, other = over(rule, 0, 30), over(rule, 0, 30, customer="c2")
    both = over(rule, 0, 30, customer=None)
    measured = measure(store, [one, other])
    assert [measured.quantities[each].shown for each in (one, other)] == [2, 1]
    assert measure(store, [both]).quantities[both].shown == 3
