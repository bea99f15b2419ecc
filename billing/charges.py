"""What one price of a plan charges for a period: what it asks of usage, and what comes out. Pure.

In two steps, so that the usage of all charges is read at once: `measures` says what is needed,
`due` computes with what was found. Exact: quotients and amounts are fractions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

import msgspec

from billing.aggregation import Quantity
from billing.limits import Granted, beyond, beyond_once, granted, windows_of
from billing.measures import Measure, Measured
from billing.periods import Period
from billing.pricing import NOTHING, Slice, amount, slices
from billing.units import Unit
from billing.windows import to_datetime, to_ms
from schemas.catalog import ADDITIVE, Aggregation, Feature, Reset
from schemas.plans import Entitlement, Price, Subscription


class Charge(msgspec.Struct, frozen=True):
    """A price with what it takes to apply it.

    entitlement  The plan's free limit on the feature, if it has one.
    """

    price: Price
    feature: Feature
    unit: Unit = Unit()
    entitlement: Entitlement | None = None


class Basis(msgspec.Struct, frozen=True):
    """All that the amounts of a subscription's period are computed with, but for the usage.

    digits   After the point, in the subscription's currency.
    charges  In the order of the invoice's lines.
    """

    subscription: Subscription
    period: Period
    digits: int
    charges: tuple[Charge, ...]

    def until(self, moment: datetime) -> "Basis":
        """The same, as if the period ended at a moment within it; a WEIGHTED_SUM still divides by
        the length of the whole."""
        period = msgspec.structs.replace(self.period, end=moment)
        return msgspec.structs.replace(self, period=period)


def charges_of(
    plan_id: str,
    currency: str,
    prices: Iterable[Price],
    entitlements: Iterable[Entitlement],
    features: Mapping[str, Feature],
    units: Mapping[str, Unit],
) -> tuple[Charge, ...]:
    """The charges of a plan in a currency, in the order of the prices; other plans' are left out.

    `features` and `units` by feature id; a feature without a unit is left out of `units`.
    """
    limits = {one.feature_id: one for one in entitlements if one.plan_id == plan_id}
    return tuple(
        Charge(
            price=price,
            feature=features[price.feature_id],
            unit=units.get(price.feature_id, Unit()),
            entitlement=limits.get(price.feature_id),
        )
        for price in prices
        if price.plan_id == plan_id and price.currency == currency
    )


@dataclass(frozen=True, slots=True)
class Due:
    """What a charge comes to, exactly.

    usage     Of the period, as any usage query says it.
    billable  What of it is priced; one quantity, or the parts of a bucketed MAX one by one.
    free      What the limit kept from being billed.
    amount    Unrounded, in the currency's unit.
    slices    What each tier holds; of a bucketed MAX, of all its parts together.
    """

    usage: Quantity
    billable: Fraction
    free: Fraction
    amount: Fraction
    slices: tuple[Slice, ...] = ()


def measures(basis: Basis, charge: Charge) -> list[Measure]:
    """What a charge needs to know: the period's usage first, then what its limit is counted on."""
    return [_usage(basis, charge), *_windows(basis, charge), *_before(basis, charge)]


def due(basis: Basis, charge: Charge, measured: Measured) -> Due:
    """What a charge comes to. Raises KeyError where one of its measures is missing."""
    usage = _usage(basis, charge)
    values, parts = _consumed(basis, charge, measured)
    if charge.feature.bucket_size is None:
        parts = [sum(parts, NOTHING)]
    billable = sum(parts, NOTHING)
    used = sum((max(value, NOTHING) for value in values), NOTHING)
    return Due(
        usage=measured.quantities[usage],
        billable=billable,
        free=used - billable,
        amount=sum((amount(charge.price, part) for part in parts), NOTHING),
        slices=_together(slices(charge.price, part) for part in parts),
    )


def reach(basis: Basis, charge: Charge) -> tuple[datetime, datetime]:
    """The time `[start, end)` in which an event changes what this charge comes to.

    It begins before the period where a level, or a limit that is granted once, counts what came
    before.
    """
    starts = [measure.start for measure in measures(basis, charge)]
    if charge.feature.reset_usage is Reset.NEVER:
        starts.append(0)
    return to_datetime(min(starts)), basis.period.end


def _measure(basis: Basis, charge: Charge, start: int, end: int) -> Measure:
    period = basis.period
    is_weighted = charge.feature.aggregation is Aggregation.WEIGHTED_SUM
    return Measure(
        feature=charge.feature,
        customer=basis.subscription.external_customer_id,
        start=start,
        end=end,
        zone=basis.subscription.zone,
        length=to_ms(period.whole_end) - to_ms(period.whole_start) if is_weighted else None,
    )


def _usage(basis: Basis, charge: Charge) -> Measure:
    return _measure(basis, charge, to_ms(basis.period.start), to_ms(basis.period.end))


def _windows(basis: Basis, charge: Charge) -> list[Measure]:
    """The windows in which a limit is granted anew, when it is so within the period."""
    entitlement = charge.entitlement
    if entitlement is None or entitlement.reset is None:
        return []
    if _granted(basis, charge) is not Granted.EACH_WINDOW:
        return []
    spans = windows_of(entitlement.reset, basis.subscription, basis.period)
    return [_measure(basis, charge, span.start, span.end) for span in spans]


def _before(basis: Basis, charge: Charge) -> list[Measure]:
    """What consumed a limit that is granted once before the period; nothing in the first."""
    if _granted(basis, charge) is not Granted.ONCE:
        return []
    is_level = charge.feature.reset_usage is Reset.NEVER
    since = 0 if is_level else to_ms(basis.period.plan_start)
    start = to_ms(basis.period.start)
    return [_measure(basis, charge, since, start)] if since < start else []


def _granted(basis: Basis, charge: Charge) -> Granted | None:
    """How often the charge's limit is granted; None where there is none, or all is free.

    Raises ValueError for a limit that is granted once on usage that doesn't add up over periods:
    the catalog refuses those.
    """
    entitlement = charge.entitlement
    if entitlement is None or not entitlement.is_enabled or entitlement.usage_limit is None:
        return None
    subscription = basis.subscription
    often = granted(entitlement.reset, subscription.period, subscription.period_count)
    if often is Granted.ONCE and charge.feature.aggregation not in ADDITIVE:
        raise ValueError(f"{entitlement.id}: {charge.feature.aggregation} can't be granted once")
    return often


def _consumed(
    basis: Basis, charge: Charge, measured: Measured
) -> tuple[list[Fraction], list[Fraction]]:
    """What consumes the limit, in order, and what of it is billable."""
    usage = _usage(basis, charge)
    entitlement = charge.entitlement
    if entitlement is None or not entitlement.is_enabled:
        values = _values(measured, usage)
        return values, beyond(values, 0)
    limit = entitlement.usage_limit
    if limit is None:
        return _values(measured, usage), []
    if _granted(basis, charge) is Granted.ONCE:
        before = sum((exact(measured.quantities[one]) for one in _before(basis, charge)), NOTHING)
        within = exact(measured.quantities[usage])
        if charge.feature.reset_usage is Reset.NEVER:
            within -= before
        return [within], [beyond_once(before, within, limit)]
    spans = [_values(measured, one) for one in _windows(basis, charge) or [usage]]
    values = [value for of_one in spans for value in of_one]
    return values, [part for of_one in spans for part in beyond(of_one, limit)]


def exact(quantity: Quantity) -> Fraction:
    """A quantity as a fraction; null is 0."""
    if quantity.numerator is None:
        return NOTHING
    return Fraction(quantity.numerator) / quantity.denominator


def _values(measured: Measured, measure: Measure) -> list[Fraction]:
    """What consumes a limit, in order: the quantity, or the parts of a bucketed MAX."""
    quantity = exact(measured.quantities[measure])
    if measure.feature.bucket_size is None:
        return [quantity]
    values = [Fraction(part) for part in measured.parts.get(measure, ())]
    if sum(values) != quantity:
        raise ValueError(f"{measure.feature.id}: its buckets don't add up to its quantity")
    return values


def _together(priced: Iterable[list[Slice]]) -> tuple[Slice, ...]:
    """One slice for each tier, in order, from those of all parts."""
    found: dict[int | None, Slice] = {}
    for one in (one for of_part in priced for one in of_part):
        known = found.get(one.up_to, Slice(one.up_to, NOTHING, NOTHING))
        found[one.up_to] = Slice(
            one.up_to, known.quantity + one.quantity, known.amount + one.amount
        )
    return tuple(found[key] for key in sorted(found, key=lambda up_to: (up_to is None, up_to)))
