"""An independent oracle: verdicts and usage by brute force, in Decimal, straight from the rules.

It shares no code with the product and knows no states, spans, runs or SQL: to say what a customer
used it looks at every event. Times are aware datetimes; numbers in properties are int or Decimal.
"""

import dataclasses
import json
import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, localcontext
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

NUMERIC = {"SUM", "AVG", "SUM_WITH_MULTIPLIER", "MAX", "WEIGHTED_SUM"}
MINUTES = {"MINUTE": 1, "15MIN": 15, "30MIN": 30, "HOUR": 60}
HOURS = {"3HOUR": 3, "6HOUR": 6, "12HOUR": 12, "DAY": 24, "WEEK": 24, "MONTH": 24}
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Rule:
    """A feature's definition, or an ad hoc one."""

    account: str
    event_name: str
    aggregation: str
    field: str | None = None
    multiplier: Decimal | None = None
    bucket_size: str | None = None
    group_by: str | None = None
    filters: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    reset: str = "BILLING_PERIOD"


@dataclass(frozen=True)
class Sent:
    """An event as sent, with when and where (partition, offset, index) it was received."""

    account: str
    event: dict[str, Any]
    received_at: datetime
    position: tuple[int, int, int]


@dataclass(frozen=True)
class Counted:
    """What an event is for one rule: a verdict, and when counted its value."""

    sent: Sent
    time: datetime
    verdict: str
    value: Decimal | str | None = None
    group: str = ""


def properties(text: str) -> dict[str, Any]:
    """Read properties from JSON text without a float on the way."""
    found: dict[str, Any] = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    return found


def canonical(value: Any) -> str | None:
    """Plain text of a property; objects, arrays and null have none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        with localcontext(prec=1000):
            text = format(Decimal(value), "f")
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text in ("-0", "") else text
    return value if isinstance(value, str) else None


def number(value: Any) -> Decimal | str:
    """The exact number of a property, or the verdict that there is none."""
    if isinstance(value, str):
        if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", value, re.ASCII) is None:
            return "wrong_type"
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return "wrong_type"
    with localcontext(prec=1000):
        rounded = Decimal(value).quantize(Decimal("1e-18"), ROUND_HALF_EVEN)
    return "out_of_range" if rounded.copy_abs() >= 10**20 else rounded


def judge(log: Iterable[Sent], rules: Iterable[Rule]) -> list[Counted]:
    """The verdict of each event in log order, each by the rule of its account and name."""
    by_name = {(rule.account, rule.event_name): rule for rule in rules}
    seen: set[tuple[str, str]] = set()
    judged: list[Counted] = []
    for sent in log:
        text = sent.event.get("timestamp")
        time = sent.received_at if text is None else datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        time = time.replace(microsecond=time.microsecond // 1000 * 1000)
        identity = (sent.account, sent.event.get("event_id") or f"\0{len(judged)}")
        rule = by_name.get((sent.account, sent.event["event_name"]))
        if identity in seen:
            judged.append(Counted(sent, time, "duplicate"))
        elif rule is None:
            judged.append(Counted(sent, time, "unknown_event_name"))
        else:
            judged.append(apply(rule, sent, time))
        seen.add(identity)
    return judged


def apply(rule: Rule, sent: Sent, time: datetime) -> Counted:
    """The verdict of an event that is no duplicate, for a rule of its name."""
    given = sent.event.get("properties") or {}
    for key, values in rule.filters.items():
        if key not in given or canonical(given[key]) not in values:
            return Counted(sent, time, "filtered")
    if time - sent.received_at > timedelta(hours=24):
        return Counted(sent, time, "out_of_range")
    if rule.aggregation == "COUNT":
        return Counted(sent, time, "counted", Decimal(1))
    if rule.field not in given:
        return Counted(sent, time, "missing_property")
    value: Decimal | str | None = given[rule.field]
    if rule.aggregation == "COUNT_UNIQUE":
        value = None if isinstance(value, bool) else canonical(value)
        return Counted(sent, time, "wrong_type" if value is None else "counted", value)
    if rule.aggregation in NUMERIC or not isinstance(value, str):
        value = number(value)
        if isinstance(value, str):
            return Counted(sent, time, value)
    group = ""
    if rule.group_by is not None and rule.group_by in given:
        group = "=" + str(canonical(given[rule.group_by]))
    return Counted(sent, time, "counted", value, group)


def usage(
    judged: Iterable[Counted],
    rule: Rule,
    customer: str | None,
    start: datetime,
    end: datetime,
    zone: str = "UTC",
) -> Decimal | str | None:
    """The quantity over `[start, end)`, at most 18 places; a str is LATEST's text."""
    until = [
        one
        for one in judged
        if one.verdict == "counted"
        and one.sent.account == rule.account
        and one.sent.event["event_name"] == rule.event_name
        and customer in (None, one.sent.event["external_customer_id"])
        and one.time < end
    ]
    until.sort(key=lambda one: (one.time, one.sent.received_at, one.sent.position))
    counts = until if rule.reset == "NEVER" else [one for one in until if one.time >= start]
    values: list[Any] = [one.value for one in counts]
    with localcontext(prec=400):
        match rule.aggregation:
            case "COUNT":
                return Decimal(len(counts))
            case "COUNT_UNIQUE":
                return Decimal(len(set(values)))
            case "LATEST":
                return values[-1] if values else None
            case "MAX" if rule.bucket_size is not None:
                starts = boundaries(start, end, rule.bucket_size, zone)
                greatest: dict[tuple[datetime, str], Decimal] = {}
                for one, value in zip(counts, values, strict=True):
                    key = (max(cut for cut in starts if cut <= one.time), one.group)
                    greatest[key] = max(greatest.get(key, value), value)
                return sum(greatest.values(), Decimal(0))
            case "MAX":
                return max(values, default=None)
            case "AVG":
                return shown(sum(values), Decimal(len(values))) if values else None
            case "WEIGHTED_SUM":
                second = timedelta(seconds=1)
                lasted = [end - max(one.time, start) for one in counts]
                parts = [v * (t // second * 1000 + t % second // timedelta(milliseconds=1))
                         for v, t in zip(values, lasted, strict=True)]  # fmt: skip
                return shown(sum(parts), Decimal((end - start) // timedelta(milliseconds=1)))
            case _:
                return sum(values, Decimal(0)) * (rule.multiplier or 1)


def shown(numerator: Decimal | int, denominator: Decimal) -> Decimal:
    """A quotient, half up to 18 places."""
    return (numerator / denominator).quantize(Decimal("1e-18"), ROUND_HALF_UP)


def boundaries(
    start: datetime, end: datetime, window: str, zone: str, anchor: datetime | None = None
) -> list[datetime]:
    """Where windows start, from the last one at or before `start`: by looking at every minute."""
    back = 40 if window == "MONTH" else 1 if window in MINUTES else 9
    first = start.replace(second=0, microsecond=0) - timedelta(days=back)
    last = end + timedelta(days=1)
    if window in MINUTES:
        cuts = [
            moment
            for moment, wall, jumped in minutes(first, last, ZoneInfo(zone))
            if (wall.hour * 60 + wall.minute) % MINUTES[window] == 0 or jumped
        ]
    else:
        clock = clock_of(zone, first.date(), last.date())
        days = first.date() - DAY, last.date() + DAY
        shown_at = (at(clock, wall) for wall in walls(*days, window, zone, anchor))
        cuts = [cut for cut in shown_at if cut is not None]
    inner = sorted({cut for cut in cuts if start < cut < end})
    return [max(cut for cut in cuts if cut <= start), *inner]


def clock_of(zone: str, first: date, last: date) -> ChainMap[datetime, datetime]:
    """Each wall time that a zone's clock shows from one day to another, with its first moment."""
    weeks = range(first.toordinal() // 7, last.toordinal() // 7 + 1)
    return ChainMap(*(week_of(zone, week) for week in weeks))


@cache
def week_of(zone: str, week: int) -> dict[datetime, datetime]:
    """The same of one week, by its number since the year 1."""
    start = datetime.combine(date.fromordinal(week * 7), time(), UTC)
    clock: dict[datetime, datetime] = {}
    for moment, wall, _ in minutes(start, start + timedelta(days=7), ZoneInfo(zone)):
        clock.setdefault(wall, moment)
    return clock


def minutes(
    start: datetime, end: datetime, zone: ZoneInfo
) -> Iterator[tuple[datetime, datetime, bool]]:
    """Every minute with what the zone's clock shows at it, and whether it jumped there."""
    before = None
    while start < end:
        wall = start.astimezone(zone).replace(tzinfo=None)
        yield start, wall, before is not None and wall - before != MINUTE
        before = wall
        start += MINUTE


def walls(
    first: date, last_day: date, window: str, zone: str, anchor: datetime | None
) -> Iterator[datetime]:
    """The wall times of boundaries on every day from the first to the last, itself included."""
    midnight = datetime(2000, 1, 1, tzinfo=ZoneInfo(zone))
    local = midnight if anchor is None else anchor.astimezone(ZoneInfo(zone))
    day = datetime.combine(first, time())
    while day.date() <= last_day:
        last = ((day.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)).day
        if window == "MONTH":
            if day.day == min(local.day, last):
                yield datetime.combine(day, local.time().replace(tzinfo=None))
        elif window != "WEEK" or day.weekday() == 0:
            yield from (day + timedelta(hours=hour) for hour in range(0, 24, HOURS[window]))
        day += DAY


def at(clock: Mapping[datetime, datetime], wall: datetime) -> datetime | None:
    """The first moment that shows a wall time; one in a gap moves forward by it."""
    rest = timedelta(seconds=wall.second, microseconds=wall.microsecond // 1000 * 1000)
    minute = wall.replace(second=0, microsecond=0)
    for back in range(0, 26 * 60):
        if minute - back * MINUTE in clock:
            return clock[minute - back * MINUTE] + back * MINUTE + rest
    return None
