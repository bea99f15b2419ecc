"""What quantities cost: each price model by worked examples, and what always holds."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import Slice, amount, rounded, slices
from schemas.plans import Price
from tests.billing.sold import make_price

TIERS = "10:1 20:0.5+3 *:0.25+7"
FLAT = make_price("0.05")
PACKAGE = make_price("2.50", divide_by=100)
PACKAGE_DOWN = make_price("2.50", divide_by=100, rounding="down")
VOLUME = make_price(tiers=TIERS, mode="VOLUME")
SLAB = make_price(tiers=TIERS, mode="SLAB")


@pytest.mark.parametrize(
    ("price", "quantity", "cost"),
    [
        # FLAT_FEE: amount·q
        (FLAT, "0", "0"),
        (FLAT, "3", "0.15"),
        (FLAT, "0.001", "0.00005"),
        # PACKAGE: amount·ceil(q / divide_by), floor when round is down
        (PACKAGE, "0", "0"),
        (PACKAGE, "0.000000000000000001", "2.5"),
        (PACKAGE, "100", "2.5"),
        (PACKAGE, "100.000000000000000001", "5"),
        (PACKAGE_DOWN, "99.999999999999999999", "0"),
        (PACKAGE_DOWN, "100", "2.5"),
        (PACKAGE_DOWN, "250", "5"),
        # VOLUME: all of q at the tier that holds q, plus its flat amount; bounds inclusive
        (VOLUME, "0", "0"),
        (VOLUME, "10", "10"),
        (VOLUME, "10.5", "8.25"),
        (VOLUME, "20", "13"),
        (VOLUME, "21", "12.25"),
        # SLAB: each part at its tier, plus the flat amount of every tier that holds a part
        (SLAB, "0", "0"),
        (SLAB, "10", "10"),
        (SLAB, "10.5", "13.25"),
        (SLAB, "20", "18"),
        (SLAB, "21", "25.25"),
        (SLAB, "-5", "0"),
    ],
)
def test_the_price_models(price: Price, quantity: str, cost: str) -> None:
    assert amount(price, Fraction(quantity)) == Fraction(cost)


@pytest.mark.parametrize("price", [FLAT, PACKAGE, PACKAGE_DOWN, VOLUME, SLAB])
def test_nothing_costs_nothing_whatever_the_flat_amounts(price: Price) -> None:
    assert amount(price, Fraction(0)) == 0
    assert slices(price, Fraction(0)) == []


def test_a_quotient_is_compared_with_bounds_undivided() -> None:
    third = Fraction(1, 3)
    assert amount(make_price("1", divide_by=1), third * 3) == 1
    assert (
        amount(VOLUME, 10 + Fraction(1, 10**40)) == Fraction("0.5") * (10 + Fraction(1, 10**40)) + 3
    )


def test_slices_say_what_each_tier_holds() -> None:
    assert slices(SLAB, Fraction(21)) == [
        Slice(10, Fraction(10), Fraction(10)),
        Slice(20, Fraction(10), Fraction(8)),
        Slice(None, Fraction(1), Fraction("7.25")),
    ]
    assert slices(VOLUME, Fraction(21)) == [Slice(None, Fraction(21), Fraction("12.25"))]
    assert slices(FLAT, Fraction(21)) == []


@pytest.mark.parametrize(
    ("exact", "digits", "shown"),
    [
        ("0.005", 2, "0.01"),
        ("0.00499999999999999999999999", 2, "0.00"),
        ("-0.005", 2, "-0.01"),
        ("-0.004", 2, "0.00"),
        ("1.5", 0, "2"),
        ("2.5", 0, "3"),
        ("1/3", 3, "0.333"),
        ("2/3", 3, "0.667"),
        ("7", 2, "7.00"),
    ],
)
def test_an_amount_is_rounded_half_up_away_from_zero(exact: str, digits: int, shown: str) -> None:
    assert str(rounded(Fraction(exact), digits)) == shown


amounts = st.decimals("0", "100", places=4)
quantities = st.fractions(0, 300, max_denominator=1000)
bounds = st.lists(st.integers(1, 200), max_size=5, unique=True).map(sorted)


@st.composite
def tiered(draw: st.DrawFn, mode: str, flats: bool = True) -> Price:
    """A price with any tiers."""
    flat = amounts if flats else st.just(Decimal(0))
    texts = [f"{bound}:{draw(amounts)}+{draw(flat)}" for bound in (*(map(str, draw(bounds))), "*")]
    return make_price(tiers=" ".join(texts), mode=mode)


@given(tiered("SLAB"), quantities, quantities)
def test_more_never_costs_less_in_slabs(price: Price, one: Fraction, other: Fraction) -> None:
    low, high = sorted((one, other))
    assert amount(price, low) <= amount(price, high)


@given(tiered("SLAB", flats=False), quantities)
def test_slabs_have_no_jumps(price: Price, quantity: Fraction) -> None:
    dearest = max(Fraction(tier.unit_amount) for tier in price.tiers)
    step = Fraction(1, 10**9)
    assert amount(price, quantity + step) - amount(price, quantity) <= dearest * step


@given(tiered("SLAB"), quantities)
def test_slices_add_up_to_quantity_and_amount(price: Price, quantity: Fraction) -> None:
    found = slices(price, quantity)
    assert sum((one.quantity for one in found), Fraction(0)) == quantity
    assert sum((one.amount for one in found), Fraction(0)) == amount(price, quantity)


@given(tiered("VOLUME"))
def test_volume_jumps_exactly_at_its_bounds(price: Price) -> None:
    for tier, following in zip(price.tiers, price.tiers[1:], strict=False):
        assert tier.up_to is not None
        bound = Fraction(tier.up_to)
        beyond = bound + Fraction(1, 10**30)
        assert amount(price, bound) == bound * Fraction(tier.unit_amount) + Fraction(
            tier.flat_amount
        )
        assert amount(price, beyond) == beyond * Fraction(following.unit_amount) + Fraction(
            following.flat_amount
        )


@given(quantities, st.integers(1, 50))
def test_packages_hold_what_they_say(quantity: Fraction, size: int) -> None:
    up = amount(make_price("1", divide_by=size), quantity)
    down = amount(make_price("1", divide_by=size, rounding="down"), quantity)
    assert down * size <= quantity <= up * size
    assert up - down == (1 if quantity % size else 0)
