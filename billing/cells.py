"""Cells: what is kept of the events of a short stretch of time, and how they make up a quantity.

Pure. A range of time is read as cells, each of which lies on one side of every cut that matters; a
quantity is what the cells of its range add up to. Times are milliseconds since 1970.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import reduce
from itertools import accumulate
from zoneinfo import ZoneInfo

from billing.aggregation import EXACT, ZERO, Quantity, State, quantity
from billing.measures import Measure, Measured, Part
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
    """

    at: int
    group: str
    count: int
    value_sum: Decimal = ZERO
    time_sum: Decimal = ZERO
    value_max: Decimal = ZERO
    last: Last = ()
    texts: frozenset[str] = frozenset()


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
    levels = list(accumulate(ordered, _joined)) if any(map(is_level, measures)) else []
    distinct = _running_uniques(ordered) if levels and uniques is None else []
    quantities: dict[Measure, Quantity] = {}
    parts: dict[Measure, tuple[Part, ...]] = {}
    counts: dict[Measure, int] = {}
    for measure in measures:
        low, high = bisect_left(starts, measure.start), bisect_left(starts, measure.end)
        before = _NOTHING
        if is_level(measure):
            whole = levels[high - 1] if high else _NOTHING
            before = levels[low - 1] if low else _NOTHING
            count = distinct[high - 1] if distinct and high else 0
        else:
            whole = reduce(_joined, ordered[low:high], _NOTHING)
            count = len(frozenset().union(*(cell.texts for cell in ordered[low:high])))
        state = _state(whole, before, count if uniques is None else uniques.get(measure, 0))
        if measure.feature.bucket_size is not None:
            parts[measure] = _parts(measure, ordered[low:high])
            greatest = (part.value for part in parts[measure])
            state = replace(state, value_sum=reduce(EXACT.add, greatest, ZERO))
        counts[measure] = whole.count
        quantities[measure] = quantity(
            measure.feature, state, measure.start, measure.end, measure.length
        )
    return Measured(quantities, parts, counts=counts)


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


def _running_uniques(cells: Sequence[Cell]) -> list[int]:
    """How many distinct values there are up to and with each cell."""
    seen: set[str] = set()
    counts = []
    for cell in cells:
        seen |= cell.texts
        counts.append(len(seen))
    return counts


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


def _parts(measure: Measure, cells: Sequence[Cell]) -> tuple[Part, ...]:
    """The greatest value of each bucket and group, in that order."""
    firsts, steps = bucket_runs(measure)
    greatest: dict[tuple[int, str], Decimal] = {}
    for cell in cells:
        run = bisect_right(firsts, cell.at) - 1
        bucket = cell.at - (cell.at - firsts[run]) % steps[run]
        place = (bucket, cell.group)
        greatest[place] = max(greatest.get(place, cell.value_max), cell.value_max)
    return tuple(Part(*place, value) for place, value in sorted(greatest.items()))
