"""Boundaries that come again at equal steps of a zone's wall time: periods, and windows of limits.

The rule of wall times is that of `windows`: one that doesn't exist moves forward by the gap, an
ambiguous one is the first. Every boundary is counted from the same origin, so a month's end that
was clamped to a short month doesn't drift. Times are milliseconds since 1970 UTC.
"""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from billing.windows import Span, from_local, to_local


class Step(NamedTuple):
    """A length in wall time: months or days, the other is 0."""

    months: int
    days: int

    def times(self, count: int) -> "Step":
        """`count` of them on end."""
        return Step(self.months * count, self.days * count)


STEPS = {
    "DAILY": Step(0, 1),
    "WEEKLY": Step(0, 7),
    "MONTHLY": Step(1, 0),
    "QUARTERLY": Step(3, 0),
    "HALF_YEARLY": Step(6, 0),
    "ANNUAL": Step(12, 0),
}
"""By the name of a billing period or of a limit's reset."""

CALENDAR_ORIGIN = datetime(1968, 1, 1)  # noqa: DTZ001
"""A Monday that opens a year, and with it a half, a quarter and a month; local midnight."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The boundaries `origin + k · step`, for every whole number k, in a zone.

    `origin` is a naive wall time; its day is clamped to the months that are too short for it.
    """

    origin: datetime
    step: Step
    zone: ZoneInfo

    def wall(self, k: int) -> datetime:
        """The k-th boundary's wall time, which may not exist.

        Raises OverflowError or ValueError beyond the years 1 to 9999.
        """
        if not self.step.months:
            return self.origin + timedelta(days=k * self.step.days)
        years, month = divmod(self.origin.month - 1 + k * self.step.months, 12)
        year, month = self.origin.year + years, month + 1
        day = min(self.origin.day, monthrange(year, month)[1])
        return self.origin.replace(year=year, month=month, day=day)

    def boundary(self, k: int) -> int:
        """The k-th boundary's moment."""
        return from_local(self.wall(k), self.zone)

    def index(self, moment: int) -> int:
        """The number of the last boundary at or before a moment."""
        wall = to_local(moment, self.zone)
        if self.step.months:
            months = (wall.year - self.origin.year) * 12 + wall.month - self.origin.month
            k = months // self.step.months
        else:
            k = (wall.date() - self.origin.date()).days // self.step.days
        while self.boundary(k) > moment:
            k -= 1
        while self.boundary(k + 1) <= moment:
            k += 1
        return k

    def spans(self, start: int) -> Iterator[Span]:
        """The spans between boundaries in order, without end, from the one that holds `start`.

        A local day that doesn't exist makes two boundaries one: no span lies between them.
        """
        k = self.index(start)
        since = self.boundary(k)
        while True:
            k += 1
            until = self.boundary(k)
            if since < until:
                yield Span(since, since, until)
            since = until

    def cut(self, start: int, end: int) -> Iterator[Span]:
        """The spans that touch `[start, end)`, cut to it, in order."""
        for span in self.spans(start):
            if span.start >= end:
                return
            yield Span(span.label, max(span.start, start), min(span.end, end))
