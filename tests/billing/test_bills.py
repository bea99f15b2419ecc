"""Bills of random subscriptions against brute force; and late usage, however it comes."""

import random
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from clickhouse_connect.driver import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.charges import Basis, Charge, due, measures
from billing.invoices import Adjustment, Invoice, adjust, bill, needed, restored, stored
from billing.periods import periods
from billing.reading import measure as measure_stored
from schemas.plans import BillingPeriod, LimitReset, Subscription
from tests import oracle
from tests.billing import bills, calendar
from tests.billing.metering import Event, measure
from tests.billing.rows import feature_of, store_block
from tests.billing.sold import (
    at,
    make_charge,
    make_entitlement,
    make_feature,
    make_price,
    make_subscription,
)

ADDITIVE = ("COUNT", "SUM", "SUM_WITH_MULTIPLIER")
AGGREGATIONS = (*ADDITIVE, "AVG", "COUNT_UNIQUE", "LATEST", "MAX", "BUCKETS", "WEIGHTED_SUM")
PRICES = (
    {"amount": "0.005"},
    {"amount": "1.25", "divide_by": 3},
    {"amount": "1.25", "divide_by": 3, "rounding": "down"},
    {"tiers": "2:1 5:0.5+3 *:0.125+7", "mode": "SLAB"},
    {"tiers": "2:1 5:0.5+3 *:0.125+7", "mode": "VOLUME"},
)
ZONES = ("UTC", "Europe/Berlin", "America/Sao_Paulo")
values = st.one_of(st.integers(-3, 12).map(Decimal), st.decimals("-2", "9", places=3))


@st.composite
def charges(draw: st.DrawFn, subscription: Subscription, name: str) -> Charge:
    """Any price of any feature with any limit that the catalog would take."""
    aggregation = draw(st.sampled_from(AGGREGATIONS))
    resets: list[str | None] = [None, *(reset.value for reset in LimitReset)]
    if aggregation not in ADDITIVE:
        billed = bills.DAYS[subscription.period] * subscription.period_count
        resets = [one for one in resets if one is None or bills.DAYS.get(one, billed + 1) <= billed]
    is_bucketed = aggregation == "BUCKETS"
    feature = make_feature(
        "MAX" if is_bucketed else aggregation,
        reset="BILLING_PERIOD"
        if is_bucketed
        else draw(st.sampled_from(["BILLING_PERIOD", "NEVER"])),
        bucket_size=draw(st.sampled_from(["HOUR", "DAY"])) if is_bucketed else None,
        multiplier="0.5" if aggregation == "SUM_WITH_MULTIPLIER" else None,
        name=name,
    )
    entitlement = make_entitlement(
        draw(st.none() | st.integers(0, 12)),
        draw(st.sampled_from(resets)),
        enabled=draw(st.integers(0, 5)) > 0,
        feature=name,
    )
    price = make_price(feature=name, **draw(st.sampled_from(PRICES)))  # type: ignore[arg-type]
    return make_charge(price, feature, draw(st.none() | st.just(entitlement)))


@st.composite
def subscriptions(draw: st.DrawFn) -> Subscription:
    """Some periods long, around a change of the clocks or a leap day; cut in all ways."""
    start = draw(
        st.sampled_from(
            [datetime(2024, 1, 31, 9, tzinfo=UTC), datetime(2024, 3, 29, 1, 30, tzinfo=UTC)]
        )
    )
    hours = st.integers(1, 24 * 45).map(lambda count: timedelta(hours=count))
    ends = draw(st.none() | hours)
    change = draw(st.none() | hours)
    return make_subscription(
        start,
        None if ends is None else start + ends,
        draw(st.sampled_from([unit.value for unit in BillingPeriod])),
        count=draw(st.integers(1, 3)),
        cycle=draw(st.sampled_from(["anniversary", "calendar"])),
        anchor=draw(st.none() | st.just(start - timedelta(days=17, hours=5))),
        zone=draw(st.sampled_from(ZONES)),
        changes=None if change is None else {"plan_b": start + change},
    )


@st.composite
def logs(draw: st.DrawFn, start: datetime, names: Iterable[str], size: int = 14) -> list[Event]:
    """Events of these features in the order of their positions, some from before the start."""
    minutes = st.integers(-5 * 24 * 60, 75 * 24 * 60)
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(list(names)), minutes, values, st.sampled_from(["", "=a", "=b"])
            ),
            max_size=size,
        )
    )
    return [
        Event(name, start + timedelta(minutes=later), value, group, position)
        for position, (name, later, value, group) in enumerate(rows, start=1)
    ]


def all_bases(subscription: Subscription, sold: tuple[Charge, ...], days: int) -> list[Basis]:
    """The bases of the periods that start within some days; both plans sell the same."""
    until = subscription.start + timedelta(days=days)
    found = []
    for period in periods(subscription, until):
        found.append(Basis(subscription, period, 2, sold))
        if len(found) == 5:
            break
    return found


def brute_force(basis: Basis, events: list[Event]) -> list[Decimal]:
    """What each charge of a basis comes to."""
    return [
        bills.amount(
            bills.Sold(charge.price, charge.feature, charge.entitlement),
            basis.subscription,
            basis.period.start,
            basis.period.end,
            max(one.start for one in basis.subscription.phases if one.start <= basis.period.start),
            events,
            basis.digits,
        )
        for charge in basis.charges
    ]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_bills_are_what_brute_force_makes_of_the_events(data: st.DataObject) -> None:
    subscription = data.draw(subscriptions())
    sold = (data.draw(charges(subscription, "feat_1")), data.draw(charges(subscription, "feat_2")))
    events = data.draw(logs(subscription.start, ["feat_1", "feat_2", "feat_3"]))
    found = all_bases(subscription, sold, days=60)
    known = calendar.spans(subscription, subscription.start + timedelta(days=60))[:5]
    assert [(basis.period.start, basis.period.end) for basis in found] == [
        (start, end) for start, end, _ in known
    ]
    measured = measure(needed(*found), events)
    for basis in found:
        invoice = bill(basis, measured)
        assert [line.amount for line in invoice.lines] == brute_force(basis, events)
        assert invoice.total == sum(line.amount for line in invoice.lines)
        assert restored(stored(invoice)) == invoice
        for charge, line in zip(basis.charges, invoice.lines, strict=True):
            assert line.billable >= 0 <= line.free
            assert line.amount >= 0
            assert (measured.quantities[measures(basis, charge)[0]].shown) == line.usage


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_closed_invoice_and_its_adjustments_are_the_period_computed_again(
    data: st.DataObject,
) -> None:
    subscription = data.draw(subscriptions())
    sold = (data.draw(charges(subscription, "feat_1")), data.draw(charges(subscription, "feat_2")))
    events = data.draw(logs(subscription.start, ["feat_1", "feat_2"], size=20))
    closed: dict[str, Invoice] = {}
    adjusted: list[Adjustment] = []
    moments = sorted(data.draw(st.lists(st.integers(0, 20), min_size=5, max_size=5)))
    for number, basis in enumerate(all_bases(subscription, sold, days=60)):
        upto = moments[number]
        found: list[Adjustment] = []
        for name, invoice in closed.items():
            again = measure(needed(invoice.basis), events, upto)
            found += adjust(name, invoice, adjusted, again)
        closed[f"inv_{number}"] = bill(basis, measure(needed(basis), events, upto), found)
        adjusted += found
        for name, invoice in closed.items():
            so_far = [one for one in adjusted if one.invoice_id == name]
            now = brute_force(invoice.basis, [one for one in events if one.position <= upto])
            for line, amount in zip(invoice.lines, now, strict=True):
                changes = [one for one in so_far if one.line.price_id == line.price_id]
                assert line.amount + sum(one.amount for one in changes) == amount
        for one in found:
            assert one.amount
            its_own = closed[one.invoice_id]
            without = [event for event in events if not is_among(event, one)]
            before = bill(its_own.basis, measure(needed(its_own.basis), without, upto))
            line = next(line for line in before.lines if line.price_id == one.line.price_id)
            assert one.line.amount - one.amount == line.amount


def is_among(event: Event, adjustment: Adjustment) -> bool:
    """Whether an event is one of those that an adjustment names."""
    late = adjustment.late
    after = late.after[0].block_offset
    return (
        event.feature == late.feature_id
        and late.start <= event.time < late.end
        and after < event.position <= late.upto[0].block_offset
    )


@settings(max_examples=100, deadline=None)
@given(st.data(), st.decimals("0", "20", places=2))
def test_more_usage_is_never_less_to_bill(data: st.DataObject, more: Decimal) -> None:
    subscription = make_subscription("2024-01-31")
    charge = data.draw(charges(subscription, "feat_1"))
    if charge.feature.aggregation.value not in ADDITIVE:
        charge = make_charge(charge.price, make_feature("SUM"))
    events = data.draw(logs(subscription.start, ["feat_1"]))
    basis = all_bases(subscription, (charge,), days=60)[1]
    added = [*events, Event("feat_1", basis.period.start, more, position=99)]
    less = due(basis, charge, measure(measures(basis, charge), events)).billable
    assert due(basis, charge, measure(measures(basis, charge), added)).billable >= less


def rules_of(account: str) -> dict[str, oracle.Rule]:
    """A rule for each aggregation and reset, and for buckets with groups; by event name."""
    field = {"field": "n"}
    kinds: list[dict[str, Any]] = [{"aggregation": "COUNT"}]
    kinds += [
        {"aggregation": name} | field for name in AGGREGATIONS if name not in ("COUNT", "BUCKETS")
    ]
    for kind in kinds:
        if kind["aggregation"] == "SUM_WITH_MULTIPLIER":
            kind["multiplier"] = Decimal("0.5")
    kinds += [kind | {"reset": "NEVER"} for kind in kinds]
    buckets = {"aggregation": "MAX", "group_by": "g"} | field
    kinds += [buckets | {"bucket_size": size} for size in ("HOUR", "DAY")]
    return {f"e{n}": oracle.Rule(account, f"e{n}", **kind) for n, kind in enumerate(kinds)}


@pytest.mark.clickhouse
def test_bills_read_from_the_store_are_what_brute_force_makes_of_the_events(store: Client) -> None:
    rules = rules_of("billed")
    ids = {name: f"feat_{name}" for name in rules}
    choice = random.Random(4)
    start = at("2025-01-31 09:30+01:00")
    sent = [
        oracle.Sent(
            "billed",
            {
                "event_name": choice.choice(list(rules)),
                "external_customer_id": "c1",
                "event_id": str(number),
                "timestamp": (
                    start + timedelta(minutes=choice.randrange(-9999, 120_000))
                ).isoformat(),
                "properties": {"n": choice.randrange(-300, 1200), "g": choice.choice("ab")},
            },
            start + timedelta(days=90),
            (0, number, 0),
        )
        for number in range(600)
    ]
    judged = oracle.judge(sent, rules.values())
    store_block(store, judged, rules, ids)
    events = []
    for position, one in enumerate(judged, start=1):
        assert isinstance(one.value, Decimal | str)
        name = ids[one.sent.event["event_name"]]
        events.append(Event(name, one.time, one.value, one.group, position))
    sold = []
    for number, (name, rule) in enumerate(rules.items()):
        resets = [None, "DAILY", "WEEKLY", "NEVER", "ANNUAL"]
        reset = resets[number % (5 if rule.aggregation in ADDITIVE else 3)]
        price = make_price(feature=ids[name], **PRICES[number % 5])
        limit = None if number == 0 else make_entitlement(7, reset, feature=ids[name])
        sold.append(make_charge(price, feature_of(rule, ids[name]), limit))
    subscription = make_subscription(
        start, zone="Europe/Berlin", changes={"plan_b": "2025-03-10 12:15"}
    )
    bases = all_bases(subscription, tuple(sold), days=80)
    measured = measure_stored(store, needed(*bases))
    assert len(bases) == 4
    for basis in bases:
        invoice = bill(basis, measured)
        assert [line.amount for line in invoice.lines] == brute_force(basis, events)
        assert sum(line.amount > 0 for line in invoice.lines) > 10


def test_a_bill_of_20_features_takes_milliseconds() -> None:
    names = [f"feat_{number}" for number in range(20)]
    resets = (None, "DAILY", "NEVER", None)
    sold = tuple(
        make_charge(
            make_price(tiers="10:1 100:0.5+3 *:0.125+7", mode="SLAB", feature=name),
            make_feature(name=name),
            make_entitlement(5, resets[number % 4], feature=name),
        )
        for number, name in enumerate(names)
    )
    berlin = make_subscription("2025-01-01 00:00+01:00", zone="Europe/Berlin")
    basis = all_bases(berlin, sold, days=60)[1]
    events = [Event(name, basis.period.start + timedelta(days=3), Decimal(40)) for name in names]
    measured = measure(needed(basis), events)
    started = time.perf_counter()
    asked = needed(basis)
    invoice = bill(basis, measured)
    took = time.perf_counter() - started
    assert len(asked) == 20 + 5 * 28 + 5
    assert Fraction(invoice.total) > 0
    assert took < 0.25  # some 10 ms of one core; a machine may be busy
