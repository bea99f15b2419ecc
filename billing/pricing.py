"""What a quantity costs at a price. Pure and exact: fractions, nothing is rounded here.

The models are those of "Money" in the semantics. A quantity is what is billable; 0 costs 0.
"""

from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

from schemas.plans import BillingModel, Price, Rounding, TierMode

NOTHING = Fraction(0)


class Slice(NamedTuple):
    """The part of a quantity that one tier holds, and what it costs with the tier's flat amount."""

    up_to: int | None
    quantity: Fraction
    amount: Fraction


def amount(price: Price, quantity: Fraction) -> Fraction:
    """What a quantity costs, unrounded."""
    if quantity <= 0:
        return NOTHING
    match price.model:
        case BillingModel.FLAT_FEE:
            return Fraction(price.amount) * quantity
        case BillingModel.PACKAGE:
            whole = floor if price.rounding is Rounding.DOWN else ceil
            return Fraction(price.amount) * whole(quantity / price.divide_by)
        case BillingModel.TIERED:
            return sum((slice_.amount for slice_ in slices(price, quantity)), NOTHING)


def slices(price: Price, quantity: Fraction) -> list[Slice]:
    """The tiers that hold a part of a quantity, in order; none of a price without tiers.

    VOLUME: the one tier whose bounds hold the quantity holds all of it. SLAB: each holds what lies
    above the one before and up to its own bound.
    """
    found = []
    lower = NOTHING
    for tier in price.tiers:
        if quantity <= lower:
            break
        upper = quantity if tier.up_to is None else min(quantity, Fraction(tier.up_to))
        if price.tier_mode is TierMode.SLAB:
            found.append(_slice(tier.up_to, upper - lower, tier.unit_amount, tier.flat_amount))
        elif upper == quantity:
            found.append(_slice(tier.up_to, quantity, tier.unit_amount, tier.flat_amount))
        lower = upper
    return found


def _slice(up_to: int | None, quantity: Fraction, unit: Decimal, flat: Decimal) -> Slice:
    return Slice(up_to, quantity, Fraction(unit) * quantity + Fraction(flat))


def rounded(amount: Fraction, digits: int) -> Decimal:
    """An amount in a currency with so many digits after the point: half up, away from zero."""
    units = floor(abs(amount) * 10**digits + Fraction(1, 2))
    sign = 1 if units and amount < 0 else 0
    return Decimal((sign, Decimal(units).as_tuple().digits, -digits))
