"""Quantities from states: the table "Aggregations" of the semantics, without a store."""

from decimal import Decimal

import pytest

from billing.aggregation import Quantity, State, plain, quantity
from tests.billing.rows import feature_of
from tests.oracle import Rule

HOUR = 3_600_000


def of(aggregation: str, state: State, **rule: object) -> Quantity:
    feature = feature_of(Rule("acme", "e", aggregation, "n", **rule), "feat_e")  # type: ignore[arg-type]
    return quantity(feature, state, HOUR, 2 * HOUR)


@pytest.mark.parametrize(
    ("aggregation", "value"),
    [
        ("COUNT", 0),
        ("SUM", 0),
        ("AVG", None),
        ("COUNT_UNIQUE", 0),
        ("LATEST", None),
        ("MAX", None),
        ("WEIGHTED_SUM", 0),
    ],
)
def test_the_quantity_of_no_events(aggregation: str, value: int | None) -> None:
    assert of(aggregation, State()).shown == value


def test_the_bucketed_max_of_no_events_is_zero() -> None:
    assert of("MAX", State(), bucket_size="DAY").shown == 0


def test_a_quotient_is_kept_apart_until_it_is_shown_half_up() -> None:
    third = of("AVG", State(count=3, value_sum=Decimal(2)))
    assert third == Quantity(Decimal(2), 3)
    assert plain(third.shown or Decimal(0)) == "0.666666666666666667"


def test_a_product_keeps_all_its_digits() -> None:
    tiny = of("SUM_WITH_MULTIPLIER", State(value_sum=Decimal("1e-18")), multiplier=Decimal("1e-18"))
    assert plain(tiny.shown or Decimal(0)) == "0.000000000000000000000000000000000001"


def test_what_came_before_a_level_weighs_one() -> None:
    state = State(
        value_sum=Decimal(4), time_sum=Decimal(4) * (HOUR + HOUR // 2), before_sum=Decimal(10)
    )
    assert of("WEIGHTED_SUM", state, reset="NEVER").shown == 12


def test_a_weighted_sum_may_divide_by_a_longer_period() -> None:
    feature = feature_of(Rule("acme", "e", "WEIGHTED_SUM", "n"), "feat_e")
    state = State(value_sum=Decimal(4), time_sum=Decimal(4) * HOUR)
    assert quantity(feature, state, HOUR, 2 * HOUR, length=4 * HOUR).shown == 1


def test_whole_numbers_are_shown_without_exponent() -> None:
    assert plain(Quantity.of(Decimal("1.20E+6")).shown or Decimal(0)) == "1200000"
    assert str(Quantity.of(Decimal("0E-18")).shown) == "0"
