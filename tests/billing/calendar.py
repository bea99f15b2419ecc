"""Periods by brute force: boundary after boundary from the anchor, in datetimes only.

Written from the rules, without the product's code: a wall time's moment is looked for among the
zone's offsets around it, and periods are found by looking at all of them.
"""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from schemas.plans import Subscription

MONTHS = {"MONTHLY": 1, "QUARTERLY": 3, "HALF_YEARLY": 6, "ANNUAL": 12}
DAYS = {"DAILY": 1, "WEEKLY": 7}
DAY = timedelta(days=1)


def moment_of(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first moment at which a zone's clocks show this; after a gap, moved by the gap."""
    naive = wall.replace(tzinfo=UTC)
    offsets = {}
    for step in range(-200, 201):
        around = naive + timedelta(minutes=15 * step)
        offset = around.astimezone(zone).utcoffset()
        assert offset is not None
        offsets[offset] = around
    found = [naive - offset for offset in offsets]
    shown = [at for at in found if at.astimezone(zone).replace(tzinfo=None) == wall]
    if shown:
        return min(shown)
    before = (naive - timedelta(hours=30)).astimezone(zone).utcoffset()
    assert before is not None
    return naive - before


def later(day: date, unit: str, count: int) -> date:
    """A day some units later; its number is clamped where the month is too short."""
    if unit in DAYS:
        return day + timedelta(days=DAYS[unit] * count)
    months = day.year * 12 + day.month - 1 + MONTHS[unit] * count
    year, month = months // 12, months % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def opens(day: date, unit: str) -> bool:
    """Whether the calendar's unit begins on this day."""
    if unit == "WEEKLY":
        return day.weekday() == 0
    return unit == "DAILY" or (day.day == 1 and (day.month - 1) % MONTHS[unit] == 0)


def boundaries(subscription: Subscription, low: datetime, high: datetime) -> list[datetime]:
    """Every boundary from the last at or before `low` to the first after `high`."""
    zone = ZoneInfo(subscription.zone)
    unit = subscription.period.value
    if subscription.cycle.value == "calendar":
        day = subscription.start.astimezone(zone).date() - DAY
        while not opens(day, unit) or moment_of(datetime(*day.timetuple()[:3]), zone) < (  # noqa: DTZ001
            subscription.start
        ):
            day += DAY
        origin = datetime(*day.timetuple()[:3])  # noqa: DTZ001
    else:
        origin = subscription.anchor.astimezone(zone).replace(tzinfo=None)
    found = []
    for direction in (-1, 1):
        steps = 0 if direction > 0 else -1
        while True:
            day = later(origin.date(), unit, steps * subscription.period_count)
            at = moment_of(datetime.combine(day, origin.time()), zone)
            found.append(at)
            if at <= low if direction < 0 else at > high:
                break
            steps += direction
    found.sort()
    return [at for at, after in zip(found, [*found[1:], None], strict=True) if after != at]


def spans(subscription: Subscription, until: datetime) -> list[tuple[datetime, datetime, str]]:
    """(start, end, plan) of every period that starts before `until`."""
    last = subscription.end
    edges = boundaries(subscription, subscription.start, max(until, subscription.start))
    cuts = sorted(
        {at for at in edges if at > subscription.start}
        | {phase.start for phase in subscription.phases}
        | ({last} if last else set())
    )
    cuts = [at for at in cuts if last is None or at <= last]
    found = []
    for start, end in pairwise(cuts):
        plan = [phase.plan_id for phase in subscription.phases if phase.start <= start][-1]
        if start < until:
            found.append((start, end, plan))
    return found
