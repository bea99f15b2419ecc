"""Reading usage for many measures at once: the one way from stored events to quantities.

Whole spans come from `usage_states`, divided ones from `events`. What the answer holds is one cut
of the log: states and their markers come from one scan, events are read afterwards and only up to
the markers. Distinct values alone are merged by the engine, in a read of their own: they can be
ahead of the markers by what was stored in the milliseconds between the reads.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from clickhouse_connect.driver import Client

from billing.aggregation import Quantity
from billing.cells import Cell, answer, bucket_runs, is_level
from billing.measures import Measure, Measured
from billing.windows import HOUR_MS
from catalog.matching import GRAINS, HOUR
from clickhouse.queries import query
from schemas.catalog import Aggregation, Window
from schemas.position import slot_of

HOURS_MAX = 1000
"""Divided hours that a query names one by one; with more it looks through the whole range."""

SECOND_MS = 1000
_SECONDS_MAX = 2**32 - 1
"""The end of the engine's DateTime; no event lies beyond it."""
_LAYER = 1 << 43
"""Beyond all times in ms: layer k of ranges lies at k times this."""
ROWS_MAX = 300_000
"""Rows of states, or of divided spans, that a question may take into memory: a feature with buckets
of a minute has one for each minute and group, 210 days of them without groups."""
BUCKET_BYTES = 32
"""What a small bucket takes in an answer, about: its start, and its greatest value as a text."""
FINE = frozenset({Window.MINUTE, Window.MIN_15, Window.MIN_30, Window.HOUR})
"""Buckets that are hardly longer than the spans of their states."""

Upto = dict[tuple[int, int], int]


def measure(
    client: Client, measures: Iterable[Measure], *, rows_max: int | None = None
) -> Measured:
    """The quantities of measures of one account: of any features, customers, ranges and zones.

    Takes one query, a second when a cut divides an hour, one more for COUNT_UNIQUE; whatever the
    number of measures. They are all of named customers, or all of every customer together.
    Raises ValueError for several accounts, for ad hoc features, and for a mix of both. With
    `rows_max` the engine refuses (396) what takes more rows; an invoice has to take them all.
    """
    asked = list(dict.fromkeys(measures))
    if not asked:
        return Measured({})
    batch = _Batch(asked, rows_max)
    cells, upto = batch.read_states(client)
    cells += batch.read_events(client, upto)
    uniques = batch.read_uniques(client, upto)
    quantities: dict[Measure, Quantity] = {}
    parts: dict[Measure, tuple[Decimal, ...]] = {}
    counts: dict[Measure, int] = {}
    found: dict[tuple[str, str], list[Cell]] = {}
    for place, cell in cells:
        found.setdefault(place, []).append(cell)
    for place, series in batch.series.items():
        answers = answer(series.measures, found.get(place, ()), uniques)
        quantities |= answers.quantities
        parts |= answers.parts
        counts |= answers.counts
    return Measured(quantities, parts, upto, counts)


def reached(client: Client) -> Upto:
    """Up to where the states reach now, as `measure` says it beside its quantities."""
    rows = client.query(query("states_reached")).result_rows
    return {(epoch, partition): offset for epoch, partition, offset in rows}


@dataclass(frozen=True)
class _Series:
    """The measures of one feature and customer, and where their ranges and buckets cut time."""

    measures: Sequence[Measure]

    @cached_property
    def span_ms(self) -> int:
        """The length of the feature's spans in the states."""
        size = self.measures[0].feature.bucket_size
        return GRAINS.get(size, HOUR) * SECOND_MS if size is not None else HOUR_MS

    @property
    def is_fine(self) -> bool:
        return self.measures[0].feature.bucket_size in FINE

    @cached_property
    def start(self) -> int:
        return min(0 if is_level(each) else each.start for each in self.measures)

    @cached_property
    def end(self) -> int:
        return max(each.end for each in self.measures)

    @cached_property
    def cuts(self) -> set[int]:
        """Edges of the ranges; of long buckets too, and of short ones where they divide a span."""
        cuts = {self.start}
        for each in self.measures:
            cuts |= {each.start, each.end}
            if each.feature.bucket_size is not None:
                runs = bucket_runs(each)
                if self.is_fine:
                    cuts |= set(runs.cuts_off(each.end, self.span_ms))
                else:
                    cuts |= set(runs.cuts(each.end))
        return cuts

    @cached_property
    def divided(self) -> set[int]:
        """Where the spans start that a cut divides."""
        span = self.span_ms
        return {cut - cut % span for cut in self.cuts if cut % span}


class _Batch:
    """Measures that are read together."""

    def __init__(self, measures: Sequence[Measure], rows_max: int | None) -> None:
        self.rows_max = rows_max
        self.account = measures[0].feature.account
        customers = {each.customer for each in measures}
        if any(each.feature.account != self.account for each in measures):
            raise ValueError("measures of several accounts")
        if any(not each.feature.id for each in measures):
            raise ValueError("an ad hoc feature has no states")
        if None in customers and len(customers) > 1:
            raise ValueError("some measures are of all customers, some of one")
        self.all_customers = None in customers
        by_place: dict[tuple[str, str], list[Measure]] = {}
        for each in measures:
            by_place.setdefault((each.feature.id, each.customer or ""), []).append(each)
        self.series = {place: _Series(own) for place, own in by_place.items()}

    def read_states(self, client: Client) -> tuple[list[tuple[tuple[str, str], Cell]], Upto]:
        """The cells of whole spans, and the markers."""
        fine = [feature for (feature, _), series in self.series.items() if series.is_fine]
        has_latest = any(
            series.measures[0].feature.aggregation is Aggregation.LATEST
            for series in self.series.values()
        )
        unwanted = {"latest": not has_latest, "fine": not fine}
        text = query("usage_states", frozenset(name for name, no in unwanted.items() if no))
        edges: set[int] = set()
        for series in self.series.values():
            length = series.span_ms if series.is_fine else HOUR_MS
            for cut in series.cuts:
                edges |= {cut - cut % length, cut + -cut % length}
        parameters = self._whose(self.series) | {
            "cuts": sorted(min(edge // SECOND_MS, _SECONDS_MAX) for edge in edges),
            "fine": fine,
            "start": min(s.start for s in self.series.values()) // SECOND_MS,
            "end": min(max(s.end for s in self.series.values()) // SECOND_MS, _SECONDS_MAX),
        }
        parameters["features"] = ["", *parameters["features"]]
        parameters["customers"] = ["", *parameters["customers"]]
        cells = []
        upto: Upto = {}
        # A customer's use of one feature is some thousand rows: a second thread is only waited for.
        few = len(parameters["features"]) <= 2 and not parameters["all_customers"]
        threads = {"max_threads": 1} if few else {}
        settings = {**self._limits(bool(fine)), **threads}
        for row in client.query(text, parameters, settings=settings).result_rows:
            (feature, customer, piece, group, epoch, partition, *sums), reaches = row[:10], row[-1]
            if feature == "":
                upto[epoch, partition] = reaches
                continue
            place, at = (feature, customer), piece * SECOND_MS
            known = self.series.get(place)
            if known is not None and at not in known.divided:
                last = row[10].values() if has_latest else ()
                buckets = row[-2].items() if fine else ()
                greatest = {start * SECOND_MS: Decimal(most) for start, most in buckets}
                cells.append((place, _cell(at, group, *sums, last, greatest=greatest)))
        return cells, upto

    def read_events(self, client: Client, upto: Upto) -> list[tuple[tuple[str, str], Cell]]:
        """The cells of divided spans, up to the markers."""
        chosen = {place: series for place, series in self.series.items() if series.divided}
        if not chosen:
            return []
        cuts: set[int] = set()
        for series in chosen.values():
            for span in series.divided:
                cuts |= {span, span + series.span_ms}
            cuts |= {cut for cut in series.cuts if cut % series.span_ms}
        parameters = self._whose(chosen) | self._divided(chosen, upto)
        # What lies in the first hour, but before its first divided span, is a piece of its own.
        parameters["cuts"] = sorted(cuts | {parameters["start"]})
        cells = []
        limits = self._limits()
        rows = client.query(query("usage_events"), parameters, settings=limits).result_rows
        for row in rows:
            place, at = (row[0], row[1]), row[2]
            known = chosen.get(place)
            if known is not None and at - at % known.span_ms in known.divided:
                cells.append((place, _cell(at, *row[3:])))
        return cells

    def read_uniques(self, client: Client, upto: Upto) -> dict[Measure, int]:
        """The numbers of distinct values, for the measures that ask for them."""
        chosen = {
            place: series
            for place, series in self.series.items()
            if series.measures[0].feature.aggregation is Aggregation.COUNT_UNIQUE
        }
        if not chosen:
            return {}
        measures = [each for series in chosen.values() for each in series.measures]
        layers = _layers({(each.start, each.end) for each in measures if not is_level(each)})
        ends = {each.end for each in measures if is_level(each)}
        rising = len(layers) * _LAYER
        placed: dict[tuple[int, int], int] = {}
        cuts = {rising, *(rising + end for end in ends)}
        for number, layer in enumerate(layers):
            base = number * _LAYER
            cuts |= {base, *(base + cut for edges in layer for cut in edges)}
            placed |= dict.fromkeys(layer, base)
        parameters = self._whose(chosen) | self._divided(chosen, upto)
        parameters |= {
            "start": min(series.start for series in chosen.values()),
            "end": max(series.end for series in chosen.values()),
            "layers": [number * _LAYER for number in range(len(layers) + bool(ends))],
            "cuts": sorted(cuts),
            "rising": rising,
        }
        found: dict[tuple[str, str], dict[int, int]] = {}
        for feature, customer, piece, count in client.query(
            query("usage_uniques"), parameters=parameters
        ).result_rows:
            found.setdefault((feature, customer), {})[piece] = count
        uniques: dict[Measure, int] = {}
        for place, series in chosen.items():
            counts = found.get(place, {})
            levels = sorted(piece for piece in counts if piece >= rising)
            for each in series.measures:
                if is_level(each):
                    last = bisect_left(levels, rising + each.end) - 1
                    uniques[each] = counts[levels[last]] if last >= 0 else 0
                else:
                    base = placed[each.start, each.end]
                    uniques[each] = counts.get(base + each.start, 0)
        return uniques

    def _limits(self, fine: bool = False) -> dict[str, Any]:
        """The engine's settings that refuse what takes too many rows, or small buckets in rows."""
        if self.rows_max is None:
            return {}
        limits: dict[str, Any] = {"max_result_rows": self.rows_max, "result_overflow_mode": "throw"}
        if fine:
            limits["max_result_bytes"] = self.rows_max * BUCKET_BYTES
        return limits

    def _whose(self, places: Iterable[tuple[str, str]]) -> dict[str, Any]:
        series = [self.series[place] for place in places]
        return {
            "account": self.account,
            "features": sorted({each.measures[0].feature.id for each in series}),
            "names": sorted({each.measures[0].feature.event_name for each in series}),
            "customers": sorted({each.measures[0].customer or "" for each in series}),
            "all_customers": self.all_customers,
        }

    def _divided(self, chosen: dict[tuple[str, str], _Series], upto: Upto) -> dict[str, Any]:
        """The divided hours of some series as the queries want them, and the blocks that count."""
        hours = {span // HOUR_MS * HOUR_MS for series in chosen.values() for span in series.divided}
        first, last = min(hours, default=0), max(hours, default=0)
        return {
            "start": first,
            "end": last + HOUR_MS,
            "all_hours": len(hours) > HOURS_MAX,
            "hours": sorted(hour // SECOND_MS for hour in hours) if len(hours) <= HOURS_MAX else [],
            "slots": [slot_of(epoch, partition) for epoch, partition in upto],
            "below": [offset + 1 for offset in upto.values()],
        }


def _cell(
    at: int, group: str, count: int, *sums: Any, greatest: Mapping[int, Decimal] | None = None
) -> Cell:
    value_sum, time_sum, value_max, last = sums
    return Cell(
        at,
        group,
        count,
        Decimal(value_sum),
        Decimal(time_sum),
        Decimal(value_max),
        tuple(last),
        greatest=greatest,
    )


def _layers(ranges: Iterable[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The ranges in as few layers as it takes for none to overlap in its own."""
    layers: list[list[tuple[int, int]]] = []
    for each in sorted(ranges):
        for layer in layers:
            if layer[-1][1] <= each[0]:
                layer.append(each)
                break
        else:
            layers.append([each])
    return layers
