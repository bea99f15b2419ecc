"""Cells: what is kept of the events of a short stretch of time, and how they make up a quantity.

Pure. A range of time is read as cells, each of which lies on one side of every cut that matters; a
quantity is what the cells of its range add up to. Times are milliseconds since 1970.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import reduce
from zoneinfo import ZoneInfo

from billing.aggregation import EXACT, ZERO, Quantity, State, quantity
from billing.measures import Measure, Measured
from billing.windows import Runs, buckets
from schemas.catalog import Reset

Last = tuple[object, ...]
"""Time, moment of receipt, log partition, offset and index of an event; whether its value is a
text; its value as a number; as a text. The greatest is the latest event."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The events of `[at, next cut)`, and of one group; v is an event's value, t its time.

    value_sum, time_sum  Σ v and Σ v·t.
    value_max, last      The greatest v, and the last event.
    texts                The distinct values, where they are at hand.
    greatest             The greatest v of each of its spans, by their start, where it has several
                         that a bucketed MAX must tell apart; else it is one.
    """

    at: int
    group: str
    count: int
    value_sum: Decimal = ZERO
    time_sum: Decimal = ZERO
    value_max: Decimal = ZERO
    last: Last = ()
    texts: frozenset[str] = frozenset()
    greatest: Mapping[int, Decimal] | None = None


_NOTHING = Cell(0, "", 0)


def is_level(measure: Measure) -> bool:
    """Whether all events up to the end make it up."""
    return measure.feature.reset_usage is Reset.NEVER


def answer(
    measures: Sequence[Measure],
    cells: Iterable[Cell],
    uniques: Mapping[Measure, int] | None = None,
) -> Measured:
    """The quantities of one feature and customer, from all the cells of their ranges, in any order.

    `uniques` are the numbers of distinct values where the cells don't have them.
    """
    ordered = sorted(cells, key=lambda cell: (cell.at, cell.group))
    starts = [cell.at for cell in ordered]
    sums: dict[int, _Sum] = {}
    befores: dict[int, _Sum] = {}
    quantities: dict[Measure, Quantity] = {}
    parts: dict[Measure, tuple[Decimal, ...]] = {}
    counts: dict[Measure, int] = {}
    for measure in sorted(measures, key=lambda each: (each.start, each.end)):
        low, high = bisect_left(starts, measure.start), bisect_left(starts, measure.end)
        before = _NOTHING
        if is_level(measure):
            before = _sum(befores, ordered, 0, low).cell
        whole = _sum(sums, ordered, 0 if is_level(measure) else low, high)
        count = len(whole.texts) if uniques is None else uniques.get(measure, 0)
        state = _state(whole.cell, before, count)
        if measure.feature.bucket_size is not None:
            parts[measure] = _parts(measure, ordered[low:high])
            state = replace(state, value_sum=reduce(EXACT.add, parts[measure], ZERO))
        counts[measure] = whole.cell.count
        quantities[measure] = quantity(
            measure.feature, state, measure.start, measure.end, measure.length
        )
    return Measured(quantities, parts, counts=counts)


@dataclass(slots=True)
class _Sum:
    """Some cells that follow on one another as one, up to the place `high`."""

    high: int
    cell: Cell
    texts: set[str]


def _sum(sums: dict[int, _Sum], cells: Sequence[Cell], low: int, high: int) -> _Sum:
    """The sum of `cells[low:high]`, taken up where the last one from `low` ended.

    So windows that begin together cost one walk; ends have to ascend, else it begins anew.
    """
    known = sums.get(low)
    if known is None or known.high > high:
        known = sums[low] = _Sum(low, _NOTHING, set())
    for cell in cells[known.high : high]:
        known.cell = _joined(known.cell, cell)
        known.texts |= cell.texts
    known.high = high
    return known


def bucket_runs(measure: Measure) -> Runs:
    """The buckets of a bucketed MAX, cut at the edges of the range."""
    size = measure.feature.bucket_size
    assert size is not None
    return buckets(measure.start, measure.end, size, ZoneInfo(measure.zone))


def _joined(one: Cell, other: Cell) -> Cell:
    """Two cells as one; `time_sum` and the sums stay exact."""
    if not one.count:
        return other
    return Cell(
        one.at,
        "",
        one.count + other.count,
        EXACT.add(one.value_sum, other.value_sum),
        EXACT.add(one.time_sum, other.time_sum),
        max(one.value_max, other.value_max),
        max(one.last, other.last),
    )


def _state(whole: Cell, before: Cell, unique_count: int) -> State:
    is_text, number, text = whole.last[5:] if whole.last else (False, None, None)
    return State(
        count=whole.count,
        value_sum=EXACT.subtract(whole.value_sum, before.value_sum),
        time_sum=EXACT.subtract(whole.time_sum, before.time_sum),
        before_sum=before.value_sum,
        value_max=whole.value_max,
        latest=None if is_text or not isinstance(number, Decimal) else number,
        latest_text=str(text) if is_text else None,
        unique_count=unique_count,
    )


def _parts(measure: Measure, cells: Sequence[Cell]) -> tuple[Decimal, ...]:
    """The greatest value of each bucket and group, in that order."""
    firsts, steps = bucket_runs(measure)
    by_group: dict[str, dict[int, Decimal]] = {}
    for cell in cells:
        greatest = by_group.setdefault(cell.group, {})
        for at, value in (cell.greatest or {cell.at: cell.value_max}).items():
            run = bisect_right(firsts, at) - 1
            bucket = at - (at - firsts[run]) % steps[run]
            greatest[bucket] = max(greatest.get(bucket, value), value)
    if len(by_group) == 1:
        (greatest,) = by_group.values()
        return tuple(greatest[bucket] for bucket in sorted(greatest))
    places = sorted((bucket, group) for group, found in by_group.items() for bucket in found)
    return tuple(by_group[group][bucket] for bucket, group in places)
