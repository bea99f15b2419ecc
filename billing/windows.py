"""Windows: where a range of time is cut, in a zone's local time. Pure.

Times are milliseconds since 1970 UTC, spans half-open. The rules are "Windows" in the semantics:
MINUTE to HOUR have a fixed length and start where the local clock shows a multiple of it, so that a
repeated hour is two windows (a clock change that breaks the rhythm starts one as well: Lord Howe's
clocks move by 30 minutes). Boundaries of 3HOUR and longer are local wall times: one that doesn't
exist moves forward by the gap, an ambiguous one is the first.
"""

from calendar import monthrange
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from schemas.catalog import Window

WINDOWS_MAX = 10_000
HOUR_MS = 3_600_000
_FIXED = {
    Window.MINUTE: 60_000,
    Window.MIN_15: 15 * 60_000,
    Window.MIN_30: 30 * 60_000,
    Window.HOUR: HOUR_MS,
}
_HOURS = {Window.HOUR_3: 3, Window.HOUR_6: 6, Window.HOUR_12: 12}
_LONGEST_MS = {
    Window.HOUR_3: 48 * HOUR_MS,  # a zone that skips a day makes a long one
    Window.HOUR_6: 48 * HOUR_MS,
    Window.HOUR_12: 48 * HOUR_MS,
    Window.DAY: 72 * HOUR_MS,
    Window.WEEK: 10 * 24 * HOUR_MS,
    Window.MONTH: 70 * 24 * HOUR_MS,
}
_SCAN_MS = 6 * HOUR_MS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


Ranges = Sequence[tuple[int, int]]
"""`[start, end)` each, in ms since 1970; they may overlap."""


class TooManyWindows(ValueError):
    """A range holds more than 10,000 windows."""


class Span(NamedTuple):
    """A window cut to its range: `[start, end)`; `label` is where the whole window starts."""

    label: int
    start: int
    end: int


class Runs(NamedTuple):
    """Cuts of a range, as runs of equal steps: the same for a minute's and a year's worth of them.

    A time t lies in the piece that starts at `first + (t - first) // step * step`, with the last
    `first` that is not after t, and the `step` beside it. A run ends with a whole step.
    """

    firsts: list[int]
    steps: list[int]

    def cuts(self, end: int) -> Iterator[int]:
        """Every cut before `end`, in order."""
        for (first, following), step in zip(pairwise([*self.firsts, end]), self.steps, strict=True):
            yield from range(first, following, step)

    def cuts_off(self, end: int, grain: int) -> Iterator[int]:
        """Every cut before `end` that is at no multiple of `grain`, in order."""
        for (first, following), step in zip(pairwise([*self.firsts, end]), self.steps, strict=True):
            if first % grain or step % grain:
                yield from (cut for cut in range(first, following, step) if cut % grain)


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970 of an aware time; further digits are cut."""
    return (moment - _EPOCH) // _MS


def to_datetime(ms: int) -> datetime:
    """The UTC time of milliseconds since 1970."""
    return _EPOCH + ms * _MS


def windows(
    start: int, end: int, window: Window, zone: ZoneInfo, anchor: datetime | None = None
) -> list[Span]:
    """Every window that touches `[start, end)`, in order. Raises TooManyWindows.

    `anchor` is where months start: its local day, clamped to short months, and time of day.
    """
    fixed = _FIXED.get(window)
    if fixed is not None and (end - start) // fixed > WINDOWS_MAX:
        raise TooManyWindows
    label = start
    starts = []
    for cut in _boundaries(start, end, window, zone, anchor):
        if cut <= start:
            label = cut
        else:
            starts.append(cut)
            if len(starts) >= WINDOWS_MAX:
                raise TooManyWindows
    edges = [start, *starts, end]
    return [Span(name, *span) for name, span in zip([label, *starts], pairwise(edges), strict=True)]


def runs_of(starts: Iterable[int], end: int) -> Runs:
    """The runs of these ascending cuts; the last piece ends at `end`."""
    firsts: list[int] = []
    steps: list[int] = []
    for cut, following in pairwise([*starts, end]):
        if not steps or steps[-1] != following - cut:
            firsts.append(cut)
            steps.append(following - cut)
    return Runs(firsts, steps)


def buckets(start: int, end: int, size: Window, zone: ZoneInfo) -> Runs:
    """The buckets of a bucketed MAX over `[start, end)`, cut at its edges; any number of them."""
    fixed = _FIXED.get(size)
    if fixed is None:
        inner = (cut for cut in _boundaries(start, end, size, zone, None) if cut > start)
        return runs_of([start, *inner], end)
    runs = Runs([], [])
    for since, until, offset in _stretches(start, end, zone):
        first = min(_ceil(since + offset, fixed) - offset, until)
        last = until - (until - first) % fixed
        for edge, following, step in (
            (since, first, first - since),
            (first, last, fixed),
            (last, until, until - last),
        ):
            if edge < following:
                runs.firsts.append(edge)
                runs.steps.append(step)
    return runs


def _boundaries(
    start: int, end: int, window: Window, zone: ZoneInfo, anchor: datetime | None
) -> Iterator[int]:
    """Window starts in order: from one at or before `start` to the last before `end`."""
    fixed = _FIXED.get(window)
    if fixed is not None:
        yield from _fixed_boundaries(start, end, fixed, zone)
        return
    first = to_local(start - _LONGEST_MS[window], zone)
    before: int | None = None
    # A boundary that a gap moved can overtake the next one: sort what lies within a day.
    for cut in _sorted_within(_wall_times(first, window, zone, anchor), 48 * HOUR_MS):
        if cut >= end:
            break
        if cut != before:
            yield cut
            before = cut


def _sorted_within(cuts: Iterator[int], reach: int) -> Iterator[int]:
    """Ascending cuts from ones that are out of order by less than `reach`."""
    waiting: list[int] = []
    for cut in cuts:
        waiting.append(cut)
        if len(waiting) > 1 and waiting[-2] > cut:
            waiting.sort()
        while waiting and waiting[0] <= cut - reach:
            yield waiting.pop(0)


def _fixed_boundaries(start: int, end: int, length: int, zone: ZoneInfo) -> Iterator[int]:
    for since, until, offset in _stretches(start - length, end, zone):
        first = _ceil(since + offset, length) - offset
        if first > since and since > start - length:
            yield since  # a clock change that breaks the rhythm
        yield from range(first, until, length)


def _ceil(value: int, step: int) -> int:
    return -(-value // step) * step


def _offset(ms: int, zone: ZoneInfo) -> int:
    """Milliseconds by which local time is ahead of UTC."""
    offset = to_datetime(ms).astimezone(zone).utcoffset()
    return (offset or timedelta()) // _MS


def _stretches(start: int, end: int, zone: ZoneInfo) -> Iterator[tuple[int, int, int]]:
    """Spans of one UTC offset each, that make up `[start, end)`, with the offset in ms."""
    if zone.key == "UTC":
        yield start, end, 0
        return
    since, offset = start, _offset(start, zone)
    low = start
    while low < end:
        high = min(low + _SCAN_MS, end)
        if _offset(high, zone) != offset:
            change = high
            while change - low > 1:
                middle = (low + change) // 2
                low, change = (middle, change) if _offset(middle, zone) == offset else (low, middle)
            if change >= end:
                break
            yield since, change, offset
            since, offset, high = change, _offset(change, zone), change
        low = high
    yield since, end, offset


def to_local(ms: int, zone: ZoneInfo) -> datetime:
    """The naive wall time that a zone's clocks show at a moment."""
    return to_datetime(ms).astimezone(zone).replace(tzinfo=None)


def from_local(wall: datetime, zone: ZoneInfo) -> int:
    """The moment of a wall time: moved forward by a gap that it is in, the first of two."""
    return to_ms(wall.replace(tzinfo=zone, fold=0).astimezone(UTC))


def _wall_times(
    first: datetime, window: Window, zone: ZoneInfo, anchor: datetime | None
) -> Iterator[int]:
    """Boundaries without end, from the first at or before the day of `first`, as moments."""
    if window is Window.MONTH:
        yield from _months(first, zone, anchor)
        return
    day = first.date()
    if window is Window.WEEK:
        day -= timedelta(days=day.weekday())
    hours = _HOURS.get(window, 24)
    days = 7 if window is Window.WEEK else 1
    while True:
        midnight = datetime.combine(day, time())
        for hour in range(0, 24, hours):
            yield from_local(midnight + timedelta(hours=hour), zone)
        day += timedelta(days=days)


def _months(first: datetime, zone: ZoneInfo, anchor: datetime | None) -> Iterator[int]:
    local = datetime(2000, 1, 1) if anchor is None else anchor.astimezone(zone)  # noqa: DTZ001
    year, month = first.year, first.month
    while True:
        day = min(local.day, monthrange(year, month)[1])
        yield from_local(datetime.combine(date(year, month, day), local.time()), zone)
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
