"""Billing periods: where a subscription's time is cut. Pure.

Boundaries lie on a grid, of the anchor (anniversary) or of the calendar, and are found without
walking there. The subscription's start and end cut the first and the last period, a plan change
cuts one in two; what was cut remembers the whole. Digits of a moment beyond the millisecond are
cut, as those of events are.
"""

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from billing.grids import CALENDAR_ORIGIN, STEPS, Grid
from billing.windows import to_datetime, to_local, to_ms
from schemas.plans import BillingCycle, Phase, Subscription


class Period(msgspec.Struct, frozen=True):
    """A span of a subscription that is billed as one: `[start, end)` in UTC, on one plan.

    plan_id                 Whose prices and limits hold.
    plan_start              When the subscription came to this plan: from then on a limit that is
                            granted once counts.
    whole_start, whole_end  The period before start, end or a plan change cut it: the length that a
                            WEIGHTED_SUM divides by.
    """

    start: datetime
    end: datetime
    plan_id: str
    plan_start: datetime
    whole_start: datetime
    whole_end: datetime


def period_at(subscription: Subscription, moment: datetime) -> Period | None:
    """The period that a moment falls in; None before the start, and from the end on."""
    at = to_ms(moment)
    for phase, start, end in _stretches(subscription):
        if start <= at and (end is None or at < end):
            return next(_periods(subscription, phase, start, end, since=at))
    return None


def periods(
    subscription: Subscription, until: datetime, since: datetime | None = None
) -> Iterator[Period]:
    """The periods that start before `until`, in order; with `since`, only those that end after it.

    They follow on one another without a gap from the subscription's start to its end.
    """
    low = None if since is None else to_ms(since)
    for phase, start, end in _stretches(subscription):
        first = start if low is None else max(start, low)
        if end is not None and end <= first:
            continue
        for period in _periods(subscription, phase, start, end, since=first):
            if period.start >= until:
                return
            yield period


def grid_of(subscription: Subscription) -> Grid:
    """Where its whole periods begin.

    Anniversary: at the anchor's wall time. Calendar: at the first boundary of the calendar that is
    not before the start, and every `period_count` units from there.
    """
    zone = ZoneInfo(subscription.zone)
    unit = STEPS[subscription.period]
    step = unit.times(subscription.period_count)
    if subscription.cycle is BillingCycle.ANNIVERSARY:
        return Grid(to_local(to_ms(subscription.anchor), zone), step, zone)
    calendar = Grid(CALENDAR_ORIGIN, unit, zone)
    start = to_ms(subscription.start)
    k = calendar.index(start)
    return Grid(calendar.wall(k if calendar.boundary(k) == start else k + 1), step, zone)


def _stretches(subscription: Subscription) -> Iterator[tuple[Phase, int, int | None]]:
    """Each phase with the time that it holds, `[start, end)` in ms; empty if left at once."""
    last = None if subscription.end is None else to_ms(subscription.end)
    starts = [max(to_ms(phase.start), to_ms(subscription.start)) for phase in subscription.phases]
    ends = [*starts[1:], None]
    for phase, start, following in zip(subscription.phases, starts, ends, strict=True):
        end = min((edge for edge in (following, last) if edge is not None), default=None)
        yield phase, start, end


def _periods(
    subscription: Subscription, phase: Phase, start: int, end: int | None, since: int
) -> Iterator[Period]:
    """The periods of a phase that holds `[start, end)`, from the one with `since` on."""
    for whole in grid_of(subscription).spans(since):
        if end is not None and whole.start >= end:
            return
        yield Period(
            start=to_datetime(max(whole.start, start)),
            end=to_datetime(whole.end if end is None else min(whole.end, end)),
            plan_id=phase.plan_id,
            plan_start=to_datetime(start),
            whole_start=to_datetime(whole.start),
            whole_end=to_datetime(whole.end),
        )
