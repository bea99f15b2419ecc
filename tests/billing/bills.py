"""What a subscription's periods come to, by brute force from events: the rules word for word.

Shares no code with the product: periods and windows come from `calendar`, usage from `metering`,
prices are written in another form than the product's (marginal steps), and all is Fraction.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction

import msgspec

from schemas.catalog import Feature
from schemas.plans import BillingCycle, BillingPeriod, Entitlement, Price, Subscription
from tests.billing import calendar
from tests.billing.metering import Event, parts_of, those_of, used

MONTH_DAYS = Fraction(146097, 4800)
DAYS = {"DAILY": Fraction(1), "WEEKLY": Fraction(7)} | {
    unit: MONTH_DAYS * months for unit, months in calendar.MONTHS.items()
}


@dataclass(frozen=True)
class Sold:
    """One price with its feature and limit."""

    price: Price
    feature: Feature
    entitlement: Entitlement | None


def cost(price: Price, quantity: Fraction) -> Fraction:
    """Unrounded."""
    if quantity == 0:
        return Fraction(0)
    if price.model.value == "FLAT_FEE":
        return quantity * Fraction(price.amount)
    if price.model.value == "PACKAGE":
        packages, rest = divmod(quantity, price.divide_by)
        begun = packages + (1 if rest and price.rounding.value == "up" else 0)
        return begun * Fraction(price.amount)
    if price.tier_mode is not None and price.tier_mode.value == "VOLUME":
        tier = next(one for one in price.tiers if one.up_to is None or quantity <= one.up_to)
        return quantity * Fraction(tier.unit_amount) + Fraction(tier.flat_amount)
    total, lower, unit = Fraction(0), 0, Fraction(0)
    for tier in price.tiers:  # each bound changes the unit price of all that lies above it
        if quantity > lower:
            total += (quantity - lower) * (Fraction(tier.unit_amount) - unit)
            total += Fraction(tier.flat_amount)
        unit, lower = Fraction(tier.unit_amount), tier.up_to or lower
    return total


def round_half_up(value: Fraction, digits: int) -> Decimal:
    """To a currency's precision."""
    with localcontext(prec=300):
        exact = Decimal(value.numerator) / Decimal(value.denominator)
        return exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)


def ms(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def windows(
    subscription: Subscription, unit: str, start: datetime, end: datetime
) -> list[tuple[datetime, datetime]]:
    """The local windows of a limit, cut to a period."""
    by_calendar = unit in calendar.DAYS or subscription.cycle is BillingCycle.CALENDAR
    as_periods = msgspec.structs.replace(
        subscription,
        period=BillingPeriod(unit),
        period_count=1,
        cycle=BillingCycle.CALENDAR if by_calendar else BillingCycle.ANNIVERSARY,
    )
    inner = [at for at in calendar.boundaries(as_periods, start, end) if start < at < end]
    return list(zip([start, *inner], [*inner, end], strict=True))


def whole_length(subscription: Subscription, start: datetime) -> int:
    """Milliseconds of the whole period that a moment lies in."""
    edges = calendar.boundaries(subscription, start, start)
    after = min(at for at in edges if at > start)
    return ms(after) - ms(max(at for at in edges if at <= start))


def amount(
    sold: Sold,
    subscription: Subscription,
    start: datetime,
    end: datetime,
    plan_start: datetime,
    events: Iterable[Event],
    digits: int,
) -> Decimal:
    """What a price comes to over a period."""
    known = list(events)
    feature, entitlement = sold.feature, sold.entitlement
    length = whole_length(subscription, start)

    def usage(since: datetime | int, until: datetime) -> Fraction:
        low = since if isinstance(since, int) else ms(since)
        among = those_of(known, feature, low, ms(until))
        numerator, denominator = used(feature, among, low, ms(until), length, subscription.zone)
        return Fraction(0) if numerator is None else numerator / denominator

    def buckets(since: datetime, until: datetime) -> list[Fraction]:
        among = those_of(known, feature, ms(since), ms(until))
        return [Fraction(value) for *_, value in parts_of(feature, among, subscription.zone)]

    if entitlement is not None and entitlement.is_enabled and entitlement.usage_limit is None:
        return round_half_up(Fraction(0), digits)
    limit = Fraction(0)
    reset = None
    if entitlement is not None and entitlement.is_enabled:
        limit = Fraction(entitlement.usage_limit or 0)
        reset = entitlement.reset
    billed = DAYS[subscription.period] * subscription.period_count
    spans = [(start, end)]
    if reset is not None:
        if reset.value == "NEVER" or DAYS[reset] > billed:
            origin = 0 if feature.reset_usage.value == "NEVER" else plan_start
            upto_end = max(Fraction(0), usage(origin, end) - limit)
            upto_start = max(Fraction(0), usage(origin, start) - limit)
            return round_half_up(cost(sold.price, max(Fraction(0), upto_end - upto_start)), digits)
        if DAYS[reset] < billed:
            spans = windows(subscription, reset, start, end)
    if feature.bucket_size is None:
        beyond = (max(Fraction(0), usage(since, until) - limit) for since, until in spans)
        return round_half_up(cost(sold.price, sum(beyond, Fraction(0))), digits)
    total = Fraction(0)
    for since, until in spans:
        left = limit
        for value in buckets(since, until):
            if value > left:
                total += cost(sold.price, value - left)
            left = max(Fraction(0), left - max(Fraction(0), value))
    return round_half_up(total, digits)
