"""What windows and groups cost: differences within a period, and shares."""

from fractions import Fraction

import pytest

from billing.charges import Charge
from billing.costs import cost_measures, costs, shares
from billing.invoices import bill, needed
from tests.billing.metering import Event, event, measure
from tests.billing.sold import (
    at,
    make_basis,
    make_charge,
    make_entitlement,
    make_feature,
    make_price,
)

EVENTS = [
    event("2024-12-30", 4),
    event("2025-01-02", 6),
    event("2025-01-10", 6),
    event("2025-01-20", 20),
    event("2025-02-02", 9),
]


def between(charge: Charge, *days: str, events: list[Event] = EVENTS) -> list[Fraction]:
    basis = make_basis(charge)
    edges = [at(day) for day in days]
    return costs(basis, charge, edges, measure(cost_measures(basis, charge, edges), events))


def test_a_windows_cost_is_what_the_period_grew_by() -> None:
    charge = make_charge(
        make_price(tiers="10:1 *:0.5", mode="SLAB"), entitlement=make_entitlement(5)
    )
    found = between(charge, "2025-01-01", "2025-01-05", "2025-01-15", "2025-02-01")
    assert found == [1, 6, Fraction("11.5")]


def test_a_window_may_cost_less_than_nothing_where_volume_gets_cheaper() -> None:
    charge = make_charge(make_price(tiers="10:1 *:0.125", mode="VOLUME"))
    found = between(charge, "2025-01-01", "2025-01-05", "2025-01-15")
    assert found == [6, Fraction("-4.5")]


def test_costs_are_not_rounded() -> None:
    charge = make_charge(make_price("0.0001"))
    assert between(charge, "2025-01-01", "2025-01-05") == [Fraction("0.0006")]


def test_a_range_may_begin_within_the_period() -> None:
    assert between(make_charge(), "2025-01-05", "2025-01-15") == [6]


def test_a_level_from_before_is_part_of_the_periods_first_window() -> None:
    charge = make_charge(feature=make_feature(reset="NEVER"))
    assert between(charge, "2025-01-01", "2025-01-05", "2025-01-15") == [10, 6]


def test_a_weighted_sum_costs_what_it_has_added_to_the_whole_period() -> None:
    charge = make_charge(make_price("31"), make_feature("WEIGHTED_SUM"))
    found = between(charge, "2025-01-01", "2025-01-02", "2025-01-03", "2025-01-04")
    assert found == [0, 6, 6]


@pytest.mark.parametrize(
    "charge",
    [
        make_charge(make_price(tiers="10:1 20:3+2 *:0.5+1", mode=mode), feature, entitlement)
        for mode in ("SLAB", "VOLUME")
        for feature, entitlement in (
            (make_feature(), None),
            (make_feature(), make_entitlement(7, "DAILY")),
            (make_feature(), make_entitlement(7, "NEVER")),
            (make_feature("MAX", bucket_size="DAY"), make_entitlement(7)),
            (make_feature("AVG"), make_entitlement(7)),
            (make_feature("LATEST", reset="NEVER"), make_entitlement(7)),
        )
    ],
)
def test_the_windows_of_a_period_add_up_to_its_line(charge: Charge) -> None:
    days = [f"2025-01-{day:02}" for day in range(1, 32)] + ["2025-02-01"]
    basis = make_basis(charge, digits=30)
    line = bill(basis, measure(needed(basis), EVENTS)).lines[0]
    assert abs(sum(between(charge, *days)) - Fraction(line.amount)) < Fraction(1, 10**29)


@pytest.mark.parametrize("aggregation", ["COUNT", "SUM", "SUM_WITH_MULTIPLIER", "WEIGHTED_SUM"])
def test_a_groups_cost_is_its_share_by_usage(aggregation: str) -> None:
    feature = make_feature(aggregation, multiplier="2")
    assert shares(feature, Fraction(9), [Fraction(1), Fraction(2)]) == [3, 6]
    assert shares(feature, Fraction(0), [Fraction(0), Fraction(0)]) == [0, 0]
    assert shares(feature, Fraction(0), []) == []


@pytest.mark.parametrize("aggregation", ["AVG", "COUNT_UNIQUE", "LATEST", "MAX"])
def test_a_groups_cost_is_null_where_usage_is_not_additive(aggregation: str) -> None:
    groups = [Fraction(1), Fraction(2)]
    assert shares(make_feature(aggregation), Fraction(9), groups) == [None, None]


def test_no_share_can_be_told_of_usage_that_comes_to_nothing() -> None:
    groups = [Fraction(1), Fraction(-1)]
    assert shares(make_feature(), Fraction(1), groups) == [None, None]
