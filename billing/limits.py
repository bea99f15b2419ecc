"""Free limits: when they are granted, and what of a usage lies beyond them. Pure and exact.

The rules are "Free tier" in the semantics. A limit that comes back with each billing period, or
more often, is full each time, also where its span is cut short. One that comes back less often than
the billing period, or never, is granted once, when the subscription comes to the plan.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import Enum, auto
from fractions import Fraction
from zoneinfo import ZoneInfo

from billing.grids import CALENDAR_ORIGIN, STEPS, Grid
from billing.periods import Period
from billing.windows import Span, to_datetime, to_local, to_ms
from schemas.plans import (
    BillingCycle,
    BillingPeriod,
    Entitlement,
    LimitReset,
    Subscription,
    is_longer,
)


class Granted(Enum):
    """How often a limit is granted."""

    EACH_PERIOD = auto()
    EACH_WINDOW = auto()
    ONCE = auto()


def granted(reset: LimitReset | None, unit: BillingPeriod, count: int) -> Granted:
    """How often a limit with this reset is granted to a subscription with this billing period."""
    if reset is None:
        return Granted.EACH_PERIOD
    if is_longer(reset, unit, count):
        return Granted.ONCE
    if STEPS[reset] == STEPS[unit].times(count):
        return Granted.EACH_PERIOD
    return Granted.EACH_WINDOW


def windows_of(reset: LimitReset, subscription: Subscription, period: Period) -> Iterator[Span]:
    """The windows of a limit that comes back within a period, cut at the period's edges.

    Days begin at local midnight, weeks on Monday; months and longer on the anchor's day, or on the
    calendar's when the subscription's periods do.
    """
    zone = ZoneInfo(subscription.zone)
    step = STEPS[reset]
    origin = CALENDAR_ORIGIN
    if step.months and subscription.cycle is BillingCycle.ANNIVERSARY:
        origin = to_local(to_ms(subscription.anchor), zone)
    return Grid(origin, step, zone).cut(to_ms(period.start), to_ms(period.end))


def granted_for(
    entitlement: Entitlement, subscription: Subscription, period: Period, moment: datetime
) -> tuple[datetime, datetime | None]:
    """From when until when the limit is granted that holds at a moment of a period.

    `[start, end)` in UTC; the end of one that is granted once is None.
    """
    match granted(entitlement.reset, subscription.period, subscription.period_count):
        case Granted.ONCE:
            return period.plan_start, None
        case Granted.EACH_WINDOW if entitlement.reset is not None:
            windows = windows_of(entitlement.reset, subscription, period)
            now = next(window for window in windows if to_ms(moment) < window.end)
            return to_datetime(now.start), to_datetime(now.end)
        case _:
            return period.start, period.end


def beyond(values: Iterable[Fraction], limit: int) -> list[Fraction]:
    """What of each value lies beyond a limit that they consume one after the other; never negative.

    A negative value consumes nothing and gives nothing back.
    """
    left = Fraction(limit)
    found = []
    for value in values:
        consumed = min(max(value, Fraction(0)), left)
        left -= consumed
        found.append(max(value, Fraction(0)) - consumed)
    return found


def beyond_once(before: Fraction, usage: Fraction, limit: int) -> Fraction:
    """What of a period's usage lies beyond a limit that `before` consumed first; never negative."""
    over = max(Fraction(0), before + usage - limit)
    return max(Fraction(0), over - max(Fraction(0), before - limit))
