"""What a charge comes to: the sentences of "Money" on usage and free tier, each with an example."""

from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from billing.charges import Basis, Charge, Due, charges_of, due, measures, reach
from billing.limits import granted_for
from billing.measures import Measured
from billing.units import Unit
from billing.windows import to_ms
from schemas.plans import Entitlement, Subscription
from tests.billing.metering import Event, event, measure
from tests.billing.sold import (
    at,
    make_basis,
    make_charge,
    make_entitlement,
    make_feature,
    make_period,
    make_price,
    make_subscription,
)


def came_to(
    charge: Charge,
    *events: Event,
    subscription: Subscription | None = None,
    moment: str | None = None,
) -> Due:
    """What a charge comes to in the period of a moment (the first), from these events alone."""
    basis = make_basis(charge, subscription=subscription, moment=moment)
    return due(basis, charge, measure(measures(basis, charge), events))


def figures(*values: object) -> list[object]:
    """Numbers of several types, to be compared by value."""
    return list(values)


def limited(limit: int | None, reset: str | None = None, **feature: str) -> Charge:
    """One dollar per unit beyond a limit."""
    return make_charge(
        feature=make_feature(feature.pop("aggregation", "SUM"), **feature),
        entitlement=make_entitlement(limit, reset),
    )


FORTY = (event("2025-01-05", 30), event("2025-01-20", 10))


def test_billable_is_usage_less_the_limit() -> None:
    found = came_to(limited(25), *FORTY)
    assert figures(found.usage.shown, found.billable, found.free, found.amount) == [40, 15, 25, 15]


@pytest.mark.parametrize(
    "entitlement", [None, make_entitlement(25, enabled=False), make_entitlement(0)]
)
def test_the_limit_is_0_where_there_is_none(entitlement: Entitlement | None) -> None:
    found = came_to(make_charge(entitlement=entitlement), *FORTY)
    assert figures(found.billable, found.free) == [40, 0]


def test_an_unlimited_entitlement_leaves_nothing_to_bill() -> None:
    found = came_to(limited(None), *FORTY)
    assert figures(found.usage.shown, found.billable, found.free, found.amount) == [40, 0, 40, 0]


def test_a_disabled_entitlement_is_none_even_when_unlimited() -> None:
    charge = make_charge(entitlement=make_entitlement(None, enabled=False))
    assert came_to(charge, *FORTY).billable == 40


def test_usage_below_the_limit_costs_nothing() -> None:
    found = came_to(limited(100), *FORTY)
    assert figures(found.billable, found.free, found.amount) == [0, 40, 0]


def test_null_usage_is_0() -> None:
    found = came_to(make_charge(feature=make_feature("AVG")))
    assert figures(found.usage.shown, found.billable, found.amount) == [None, 0, 0]


def test_negative_usage_bills_0() -> None:
    found = came_to(limited(5), event("2025-01-05", -30))
    assert figures(found.usage.shown, found.billable, found.free, found.amount) == [-30, 0, 0, 0]


@pytest.mark.parametrize("reset", [None, "MONTHLY"])
def test_a_limit_of_the_billing_period_is_granted_with_each(reset: str | None) -> None:
    events = (event("2025-01-05", 30), event("2025-02-05", 30))
    for moment in ("2025-01-05", "2025-02-05"):
        assert came_to(limited(25, reset), *events, moment=moment).billable == 5


def test_three_months_are_a_quarter() -> None:
    subscription = make_subscription("2025-01-15", count=3)
    events = (event("2025-02-20", 30), event("2025-03-20", 30))
    found = came_to(limited(25, "QUARTERLY"), *events, subscription=subscription)
    assert found.billable == 35


def test_seven_days_are_a_week_whatever_day_they_begin() -> None:
    subscription = make_subscription("2025-01-01", period="DAILY", count=7)  # a Wednesday
    events = (event("2025-01-05", 30), event("2025-01-06", 30))
    assert came_to(limited(25, "WEEKLY"), *events, subscription=subscription).billable == 35


def test_a_month_is_shorter_than_three() -> None:
    subscription = make_subscription("2025-01-15", count=3)
    events = (event("2025-02-14", 30), event("2025-02-15", 30))
    assert came_to(limited(25, "MONTHLY"), *events, subscription=subscription).billable == 10


def test_a_shorter_limit_is_granted_in_each_local_window() -> None:
    berlin = make_subscription("2025-01-01 00:00+01:00", zone="Europe/Berlin")
    events = (
        event("2025-01-05 22:30", 8),  # the 5th in Berlin: 10, of which 3 are billed
        event("2025-01-05 22:59:59.999", 2),
        event("2025-01-05 23:00", 9),  # the 6th: 2
        event("2025-01-07 12:00", 5),  # the 8th has none left over
        event("2025-01-08 12:00", 1),
    )
    found = came_to(limited(7, "DAILY"), *events, subscription=berlin)
    assert figures(found.usage.shown, found.billable, found.free) == [25, 5, 20]


def test_weeks_begin_on_monday_and_are_cut_with_a_full_limit() -> None:
    events = (
        event("2025-01-03", 8),  # Wednesday the 1st to Sunday the 5th
        event("2025-01-06", 8),
        event("2025-01-31", 8),  # Monday the 27th to Friday the 31st
    )
    assert came_to(limited(5, "WEEKLY"), *events).billable == 9


def test_months_of_a_limit_begin_on_the_anchors_day() -> None:
    annual = make_subscription("2025-01-31", period="ANNUAL")
    events = (event("2025-02-27", 8), event("2025-02-28", 8), event("2025-03-30 23:59", 2))
    assert came_to(limited(5, "MONTHLY"), *events, subscription=annual).billable == 8


def test_months_of_a_calendar_begin_on_the_first() -> None:
    annual = make_subscription("2025-01-31", period="ANNUAL", cycle="calendar")
    events = (event("2025-01-31", 8), event("2025-02-28", 8), event("2025-03-01", 8))
    assert came_to(limited(5, "MONTHLY"), *events, subscription=annual).billable == 9


def test_days_with_corrections_do_not_make_up_for_each_other() -> None:
    events = (event("2025-01-05", 30), event("2025-01-06", -30))
    assert came_to(limited(0, "DAILY"), *events).billable == 30


@pytest.mark.parametrize("reset", ["NEVER", "ANNUAL"])
@pytest.mark.parametrize(
    ("aggregation", "multiplier"), [("SUM", None), ("SUM_WITH_MULTIPLIER", "1")]
)
def test_a_longer_limit_is_granted_once(
    reset: str, aggregation: str, multiplier: str | None
) -> None:
    charge = make_charge(
        feature=make_feature(aggregation, multiplier=multiplier),
        entitlement=make_entitlement(25, reset),
    )
    events = (
        event("2024-12-31", 1000),  # before the start
        event("2025-01-05", 20),
        event("2025-02-05", 20),
        event("2025-03-05", 20),
    )
    found = [came_to(charge, *events, moment=f"2025-0{month}-10") for month in (1, 2, 3)]
    assert [one.billable for one in found] == [0, 15, 20]
    assert [one.free for one in found] == [20, 5, 0]


def test_a_count_can_have_a_limit_that_is_granted_once() -> None:
    events = [event(f"2025-0{month}-05") for month in (1, 2, 2, 3)]
    charge = limited(2, "NEVER", aggregation="COUNT")
    found = [came_to(charge, *events, moment=f"2025-0{month}-10") for month in (1, 2, 3)]
    assert [one.billable for one in found] == [0, 1, 1]


def test_corrections_of_what_was_billed_are_not_paid_back() -> None:
    events = (event("2025-01-05", 40), event("2025-02-05", -30), event("2025-03-05", 20))
    found = [came_to(limited(25, "NEVER"), *events, moment=f"2025-0{m}-10") for m in (1, 2, 3)]
    assert [one.billable for one in found] == [15, 0, 5]


@pytest.mark.parametrize("aggregation", ["AVG", "COUNT_UNIQUE", "LATEST", "MAX", "WEIGHTED_SUM"])
def test_what_does_not_add_up_can_not_be_granted_once(aggregation: str) -> None:
    charge = limited(25, "NEVER", aggregation=aggregation)
    with pytest.raises(ValueError, match=f"{aggregation} can't be granted once"):
        measures(make_basis(charge), charge)


def test_limits_are_never_prorated() -> None:
    cut = make_subscription("2025-01-30", "2025-02-02", anchor="2025-01-01")
    events = (event("2025-01-30", 30), event("2025-02-01", 30))
    for moment in ("2025-01-31", "2025-02-01"):
        assert came_to(limited(25), *events, subscription=cut, moment=moment).billable == 5


def test_after_a_plan_change_usage_and_limit_begin_anew() -> None:
    changed = make_subscription("2025-01-01", changes={"plan_b": "2025-01-15"})
    events = (event("2025-01-05", 30), event("2025-01-15", 30), event("2025-02-05", 30))
    for reset, third in ((None, 5), ("NEVER", 30)):
        found = [
            came_to(limited(25, reset), *events, subscription=changed, moment=moment).billable
            for moment in ("2025-01-05", "2025-01-20", "2025-02-05")
        ]
        assert found == [5, 5, third]


def test_a_bucketed_max_consumes_the_limit_in_order_of_bucket_and_group() -> None:
    charge = make_charge(
        make_price(tiers="3:1 *:10", mode="VOLUME"),
        make_feature("MAX", bucket_size="DAY"),
        make_entitlement(10),
    )
    events = (
        event("2025-01-01 10:00", 4, "=b"),  # 2 are beyond the limit: 2
        event("2025-01-01 11:00", 8, "=a"),  # consumes 8
        event("2025-01-01 12:00", 1, "=a"),
        event("2025-01-02 10:00", 5, "=a"),  # 5 beyond: 50
    )
    found = came_to(charge, *events)
    assert figures(found.usage.shown, found.billable, found.free, found.amount) == [17, 7, 10, 52]
    assert [figures(*one) for one in found.slices] == [[3, 2, 2], [None, 5, 50]]


def test_a_bucketed_max_is_priced_bucket_by_bucket() -> None:
    charge = make_charge(make_price("1", divide_by=10), make_feature("MAX", bucket_size="DAY"))
    events = (event("2025-01-01", 3), event("2025-01-02", 4), event("2025-01-03", -5))
    found = came_to(charge, *events)
    assert figures(found.usage.shown, found.billable, found.amount) == [2, 7, 2]


def test_a_bucketed_max_has_a_daily_limit_for_each_days_buckets() -> None:
    charge = limited(5, "DAILY", aggregation="MAX", bucket_size="HOUR")
    events = (
        event("2025-01-01 10:00", 4),
        event("2025-01-01 11:00", 4),
        event("2025-01-02 10:00", 4),
    )
    assert came_to(charge, *events).billable == 3


def test_buckets_that_do_not_add_up_are_refused() -> None:
    charge = limited(5, aggregation="MAX", bucket_size="DAY")
    basis = make_basis(charge)
    answers = measure(measures(basis, charge), FORTY)
    with pytest.raises(ValueError, match="add up"):
        due(basis, charge, Measured(answers.quantities))


def test_a_measure_that_is_missing_is_no_zero() -> None:
    with pytest.raises(KeyError):
        due(make_basis(), make_charge(), Measured({}))


def test_a_level_is_billed_whole_at_the_end_again_in_each_period() -> None:
    charge = make_charge(feature=make_feature(reset="NEVER"), entitlement=make_entitlement(5))
    events = (event("2024-06-01", 10), event("2025-01-05", 30), event("2025-03-05", -8))
    found = [came_to(charge, *events, moment=f"2025-0{month}-10") for month in (1, 2, 3)]
    assert [one.billable for one in found] == [35, 35, 27]


def test_a_level_with_a_limit_that_is_granted_once_bills_what_it_grew() -> None:
    charge = make_charge(
        feature=make_feature(reset="NEVER"), entitlement=make_entitlement(15, "NEVER")
    )
    events = (event("2024-06-01", 10), event("2025-01-05", 30), event("2025-02-05", 7))
    found = [came_to(charge, *events, moment=f"2025-0{month}-10") for month in (1, 2)]
    assert [figures(one.usage.shown, one.billable, one.free) for one in found] == [
        [40, 25, 5],
        [47, 7, 0],
    ]


def test_events_before_the_start_are_not_billed() -> None:
    subscription = make_subscription("2025-01-10", anchor="2025-01-01")
    assert came_to(make_charge(), *FORTY, subscription=subscription).billable == 10


def test_a_weighted_sum_divides_by_the_whole_period_where_it_was_cut() -> None:
    charge = make_charge(feature=make_feature("WEIGHTED_SUM"))
    begun = make_subscription("2025-04-16", anchor="2025-04-01")  # 15 of 30 days
    assert came_to(charge, event("2025-04-16", 10), subscription=begun).billable == 5
    ended = make_subscription("2025-04-01", "2025-04-16")
    assert came_to(charge, event("2025-04-01", 10), subscription=ended).billable == 5
    changed = make_subscription("2025-04-01", changes={"plan_b": "2025-04-16"})
    events = (event("2025-04-01", 10), event("2025-04-16", 4))
    halves = [
        came_to(charge, *events, subscription=changed, moment=moment).billable
        for moment in ("2025-04-01", "2025-04-20")
    ]
    assert halves == [5, 2]


def test_a_quotient_is_compared_with_tiers_undivided() -> None:
    charge = make_charge(make_price(tiers="10:1 *:2", mode="VOLUME"), make_feature("AVG"))
    exactly = [event("2025-01-05", value) for value in (10, 9, 11)]
    assert came_to(charge, *exactly).amount == 10
    above = [*exactly[:2], event("2025-01-05", "11.000000000000000001")]
    assert came_to(charge, *above).amount == 20 + Fraction(2, 3 * 10**18)


def test_all_measures_of_a_feature_have_its_customer_zone_and_reset() -> None:
    charge = make_charge(feature=make_feature("WEIGHTED_SUM"), entitlement=limit_per_day())
    berlin = make_subscription("2025-03-01 00:00+01:00", zone="Europe/Berlin")
    found = measures(make_basis(charge, subscription=berlin), charge)
    assert len(found) == 1 + 31
    length = to_ms(at("2025-04-01 00:00+02:00")) - to_ms(at("2025-03-01 00:00+01:00"))
    assert {(one.feature, one.customer, one.zone, one.length) for one in found} == {
        (charge.feature, "c1", "Europe/Berlin", length)
    }
    assert [one.start for one in found[2:]] == [one.end for one in found[1:-1]]
    assert (found[1].start, found[-1].end) == (found[0].start, found[0].end)


def limit_per_day() -> Entitlement:
    """5 free units a day."""
    return make_entitlement(5, "DAILY")


@pytest.mark.parametrize(
    ("charge", "start"),
    [
        (make_charge(), "2025-03-01"),
        (make_charge(feature=make_feature(reset="NEVER")), "1970-01-01"),
        (limited(5, "NEVER"), "2025-01-15"),
        (limited(5, "DAILY"), "2025-03-01"),
    ],
)
def test_what_an_event_may_change_begins_where_its_usage_does(charge: Charge, start: str) -> None:
    subscription = make_subscription("2025-01-15", anchor="2025-01-01")
    basis = make_basis(charge, subscription=subscription, moment="2025-03-10")
    assert reach(basis, charge) == (at(start), at("2025-04-01"))


@pytest.mark.parametrize(
    ("reset", "start", "end"),
    [
        (None, "2025-02-01", "2025-03-01"),
        ("MONTHLY", "2025-02-01", "2025-03-01"),
        ("DAILY", "2025-02-10", "2025-02-11"),
        ("WEEKLY", "2025-02-10", "2025-02-17"),
        ("ANNUAL", "2025-01-15", None),
        ("NEVER", "2025-01-15", None),
    ],
)
def test_from_when_until_when_a_limit_is_granted(
    reset: str | None, start: str, end: str | None
) -> None:
    subscription = make_subscription("2025-01-15", anchor="2025-01-01")
    moment = at("2025-02-10 09:00")
    found = granted_for(
        make_entitlement(5, reset), subscription, make_period(subscription, moment), moment
    )
    assert found == (at(start), None if end is None else at(end))


def test_a_plans_charges_are_its_prices_in_the_currency_with_their_limits() -> None:
    prices = [
        make_price(feature="feat_2"),
        make_price(plan="plan_b"),
        make_price(currency="eur"),
        make_price(),
    ]
    limits = [make_entitlement(5), make_entitlement(7, feature="feat_2", plan="plan_b")]
    features = {name: make_feature(name=name) for name in ("feat_1", "feat_2")}
    unit = Unit("credit", "credits")
    found = charges_of("plan_a", "usd", prices, limits, features, {"feat_1": unit})
    assert found == (
        Charge(prices[0], features["feat_2"]),
        Charge(prices[3], features["feat_1"], unit, limits[0]),
    )


def test_terms_can_be_cut_at_a_moment() -> None:
    cut: Basis = make_basis().until(at("2025-01-15"))
    ends: list[datetime] = [cut.period.end, cut.period.whole_end]
    assert ends == [at("2025-01-15"), at("2025-02-01")]


@pytest.mark.parametrize(
    ("singular", "plural", "number", "text"),
    [
        ("credit", "credits", "1", "1 credit"),
        ("credit", "credits", "1.00", "1.00 credit"),
        ("credit", "credits", "5", "5 credits"),
        ("credit", "credits", "0", "0 credits"),
        ("credit", "credits", "0.5", "0.5 credits"),
        ("credit", "credits", "-1", "-1 credits"),
        ("GB", None, "5", "5 GB"),
        (None, "GBs", "1", "1 GBs"),
        (None, None, "1", "1"),
        ("credit", "credits", "1E+6", "1000000 credits"),
    ],
)
def test_the_singular_unit_is_for_exactly_1_and_one_form_serves_both(
    singular: str | None, plural: str | None, number: str, text: str
) -> None:
    assert Unit(singular, plural).counted(Decimal(number)) == text
