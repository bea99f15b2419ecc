"""Usage: the quantity of one feature over any range of time, in total or in windows.

The one definition that usage queries, analytics, previews and invoices read. Whole spans come from
`usage_states`, divided ones from `events`, in one query; what no state holds (an ad hoc definition,
filters beside the feature's own) comes from the events' properties.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from clickhouse_connect.driver import Client

from billing.aggregation import EXACT, ZERO, Quantity, State, quantity
from billing.windows import Runs, Span, buckets, cut_hours, runs_of
from catalog.matching import GRAINS, HOUR, Match, matcher
from clickhouse.queries import query
from schemas.catalog import Feature, Reset
from schemas.value import to_decimal
from schemas.verdict import Verdict

CUT_HOURS_MAX = 200
"""Divided hours that a query names one by one; with more it looks through the whole range."""

UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Usage:
    """Whose usage of what: everything but when.

    feature   The definition; one with an empty id is ad hoc: its name's events, whatever they
              were counted for.
    customer  External id; None for all customers together.
    zone      Where buckets lie.
    filters   Beside the feature's own, as pairs of key and canonical texts.
    """

    feature: Feature
    customer: str | None
    zone: ZoneInfo = UTC
    filters: tuple[tuple[str, frozenset[str]], ...] = ()

    @property
    def cumulative(self) -> bool:
        """Whether it is a level, which all events up to the end make up."""
        return self.feature.reset_usage is Reset.NEVER

    @property
    def in_states(self) -> bool:
        """Whether the states hold it."""
        return self.feature.id != "" and not self.filters

    def total(self, client: Client, start: int, end: int, length: int | None = None) -> Quantity:
        """The quantity over `[start, end)`, in ms since 1970; see `quantity` for `length`."""
        state = self._states(client, [Span(start, start, end)])[0]
        return quantity(self.feature, state, start, end, length)

    def windows(self, client: Client, spans: Sequence[Span]) -> list[Quantity]:
        """The quantity of each of some spans that follow on one another; by one query."""
        return [
            quantity(self.feature, state, span.start, span.end)
            for span, state in zip(spans, self._states(client, spans), strict=True)
        ]

    def _states(self, client: Client, spans: Sequence[Span]) -> list[State]:
        """The state of each span; of a level, with what came before it."""
        start, end = spans[0].start, spans[-1].end
        pieces = runs_of((span.start for span in spans), end)
        lowest = start
        if self.cumulative and start > 0:
            lowest = 0
            pieces = Runs([0, *pieces.firsts], [start, *pieces.steps])
        read = self._read_states if self.in_states else self._read_rows
        found = read(client, pieces, lowest, end)
        if not self.cumulative:
            return [found.get(span.start, State()) for span in spans]
        states = []
        level = found.get(lowest, State()) if lowest < start else State()
        for span in spans:
            level = found.get(span.start) or _carried(level)
            states.append(level)
        return states

    def _read_states(self, client: Client, pieces: Runs, start: int, end: int) -> dict[int, State]:
        feature = self.feature
        parameters: dict[str, Any] = self._parameters(pieces, start, end)
        parameters["grain"] = GRAINS.get(feature.bucket_size, HOUR) if feature.bucket_size else HOUR
        hours = cut_hours(pieces, start, end, CUT_HOURS_MAX)
        if feature.bucket_size is not None:
            cuts = buckets(start, end, feature.bucket_size, self.zone)
            divided = cut_hours(cuts, start, end, CUT_HOURS_MAX)
            hours = None if hours is None or divided is None else hours | divided
            parameters |= {"bucket_firsts": cuts.firsts, "bucket_steps": cuts.steps}
        else:
            parameters["cumulative"] = self.cumulative
        parameters["all_hours"] = hours is None
        parameters["cut_hours"] = [hour // 1000 for hour in sorted(hours or ())]
        name = "usage" if feature.bucket_size is None else "usage_bucketed"
        result = client.query(query(name), parameters=parameters)
        rows = (dict(zip(result.column_names, row, strict=True)) for row in result.result_rows)
        return {row["piece_start"]: _state_of(row) for row in rows}

    def _read_rows(self, client: Client, pieces: Runs, start: int, end: int) -> dict[int, State]:
        feature = msgspec.structs.replace(
            self.feature, filters=(*self.feature.filters, *self.filters)
        )
        parameters = self._parameters(pieces, start, end)
        parameters["with_properties"] = feature.field is not None or bool(feature.filters)
        cuts = Runs([start], [end - start])
        if feature.bucket_size is not None:
            cuts = buckets(start, end, feature.bucket_size, self.zone)
        parameters |= {"bucket_firsts": cuts.firsts, "bucket_steps": cuts.steps}
        tallies: dict[int, _Tally] = {}
        with client.query_row_block_stream(query("usage_rows"), parameters=parameters) as blocks:
            for rows in blocks:
                _put_all(tallies, feature, rows)
        states: dict[int, State] = {}
        level = _Tally()
        for piece_start, tally in sorted(tallies.items()):
            if not self.cumulative:
                states[piece_start] = tally.state(feature, before_sum=ZERO)
            else:
                before_sum = level.value_sum
                level.take_in(tally)
                states[piece_start] = level.state(feature, before_sum)
        return states

    def _parameters(self, pieces: Runs, start: int, end: int) -> dict[str, Any]:
        return {
            "account": self.feature.account,
            "event_name": self.feature.event_name,
            "feature": self.feature.id,
            "customer": self.customer or "",
            "start": start,
            "end": end,
            "firsts": pieces.firsts,
            "steps": pieces.steps,
        }


def _carried(level: State) -> State:
    """The level of a span without events of its own."""
    return replace(level, value_sum=ZERO, time_sum=ZERO, before_sum=level.level)


def _state_of(row: dict[str, Any]) -> State:
    """A state from a row of `usage` or `usage_bucketed`; decimals come as texts."""
    if "unique_count" not in row:
        return State(count=row["event_count"], value_sum=Decimal(row["value_sum"]))
    is_text = row["latest_is_text"]
    return State(
        count=row["event_count"],
        value_sum=Decimal(row["value_sum"]),
        time_sum=Decimal(row["time_sum"]),
        before_sum=Decimal(row["before_sum"]),
        value_max=Decimal(row["value_max"]),
        latest=None if is_text else Decimal(row["latest_value"]),
        latest_text=row["latest_text"] if is_text else None,
        unique_count=row["unique_count"],
    )


@dataclass(slots=True)
class _Tally:
    """The events of a piece, while they are read."""

    count: int = 0
    value_sum: Decimal = ZERO
    time_sum: Decimal = ZERO
    value_max: Decimal | None = None
    last: tuple[int, ...] = ()
    latest: Match | None = None
    uniques: set[str] = field(default_factory=set)
    groups: dict[tuple[int, str], Decimal] = field(default_factory=dict)

    def put(self, match: Match, bucket: int, count: int, times: int, last: tuple[int, ...]) -> None:
        """Take in `count` events with equal properties; `times` is the sum of their times."""
        value = _value(match)
        self.count += count
        self.value_sum = EXACT.fma(value, Decimal(count), self.value_sum)
        self.time_sum = EXACT.fma(value, Decimal(times), self.time_sum)
        self.value_max = value if self.value_max is None else max(self.value_max, value)
        if last > self.last:
            self.last, self.latest = last, match
        self.uniques.add(match.text)
        group = (bucket, match.group)
        self.groups[group] = max(self.groups.get(group, value), value)

    def take_in(self, later: "_Tally") -> None:
        """Move on to a later piece of a level; its own time sum replaces ours."""
        self.count += later.count
        self.value_sum = EXACT.add(self.value_sum, later.value_sum)
        self.time_sum = later.time_sum
        if later.value_max is not None:
            known = later.value_max if self.value_max is None else self.value_max
            self.value_max = max(known, later.value_max)
        if later.last > self.last:
            self.last, self.latest = later.last, later.latest
        self.uniques |= later.uniques

    def state(self, feature: Feature, before_sum: Decimal) -> State:
        """What `quantity` reads; `before_sum` is what the value sum holds of earlier pieces."""
        value_sum = EXACT.subtract(self.value_sum, before_sum)
        if feature.bucket_size is not None:
            value_sum = ZERO
            for greatest in self.groups.values():
                value_sum = EXACT.add(value_sum, greatest)
        latest = self.latest
        return State(
            count=self.count,
            value_sum=value_sum,
            time_sum=self.time_sum,
            before_sum=before_sum,
            value_max=ZERO if self.value_max is None else self.value_max,
            latest=None if latest is None or latest.is_text else _value(latest),
            latest_text=latest.text if latest is not None and latest.is_text else None,
            unique_count=len(self.uniques),
        )


def _value(match: Match) -> Decimal:
    return to_decimal(int.from_bytes(match.value, "little", signed=True))


def _put_all(tallies: dict[int, _Tally], feature: Feature, rows: Iterable[Sequence[Any]]) -> None:
    """Match rows of `usage_rows` and put those that count into the tallies of their pieces."""
    rows = list(rows)
    matches = matcher(feature).match([row[2].encode() for row in rows])
    for place, (piece_start, bucket, _, count, times, last) in enumerate(rows):
        match = matches if isinstance(matches, Match) else matches[place]
        if match.verdict is Verdict.COUNTED:
            tally = tallies.setdefault(piece_start, _Tally())
            tally.put(match, bucket, count, times, tuple(last))
