"""Usage of one feature, or of an ad hoc definition, over some ranges of time, whole or in groups.

What the states hold is read by `measure`. What no state holds (an ad hoc definition, filters beside
the feature's own, groups) comes from the events' properties, and is added up by the same `answer`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from clickhouse_connect.driver import Client

from billing.aggregation import EXACT, Quantity
from billing.cells import Cell, answer, bucket_runs, is_level
from billing.measures import Measure, Measured
from billing.reading import FINE, ROWS_MAX, measure
from billing.windows import Ranges
from catalog.matching import GRAINS, HOUR, Match, matcher
from clickhouse.queries import query
from schemas.catalog import Feature
from schemas.usage import PROPERTY_PREFIX, SOURCE
from schemas.value import canonical, to_decimal
from schemas.verdict import Verdict

UTC = ZoneInfo("UTC")
_FINEST_MS = 900_000
"""15 minutes: what the boundaries of all zones' hours are multiples of, today."""
_ESCAPED = re.compile(r'[\\"\x00-\x1f]')
"""What a key in JSON needs a backslash for."""
_properties = msgspec.json.Decoder(dict[str, msgspec.Raw])

Labels = tuple[str | None, ...]
"""What a group has in common, in the order of `group_by`; None where it lacks the property."""


class Amount(NamedTuple):
    """A quantity, and how many events it is made of."""

    quantity: Quantity
    event_count: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Whose usage of what: everything but when.

    feature   The definition; one with an empty id is ad hoc: its name's events, whatever they
              were counted for.
    customer  External id; None for all customers together.
    zone      Where buckets lie.
    filters   Beside the feature's own, as pairs of key and canonical texts.
    sources   Events of these alone; of any, if empty.
    group_by  `source`, or names of properties with `properties.` before them.
    """

    feature: Feature
    customer: str | None
    zone: ZoneInfo = UTC
    filters: tuple[tuple[str, frozenset[str]], ...] = ()
    sources: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ()

    @property
    def in_states(self) -> bool:
        """Whether the states hold it."""
        return self.feature.id != "" and not (self.filters or self.sources or self.group_by)

    def measures(self, ranges: Ranges) -> list[Measure]:
        """What to ask `measure` for each range, where the states hold it."""
        return [
            Measure(self.feature, self.customer, start, end, self.zone.key) for start, end in ranges
        ]

    def over(self, client: Client, ranges: Ranges) -> list[Amount]:
        """The amount of each range; without `group_by`."""
        if self.group_by:
            raise ValueError("in groups there is no one amount")
        return self.groups(client, ranges)[()]

    def groups(self, client: Client, ranges: Ranges) -> dict[Labels, list[Amount]]:
        """The amounts of each range, by group: every group that has an event in one of them.

        Without `group_by` there is one group, whose labels are (), even of no events.
        """
        asked = self.measures(ranges)
        if self.in_states:
            return {(): _amounts(measure(client, asked, rows_max=ROWS_MAX), asked)}
        cells: dict[Labels, list[Cell]] = {} if self.group_by else {(): []}
        for labels, cell in self._cells(client, asked):
            cells.setdefault(labels, []).append(cell)
        return {labels: _amounts(answer(asked, own), asked) for labels, own in cells.items()}

    def _cells(self, client: Client, asked: Sequence[Measure]) -> Iterator[tuple[Labels, Cell]]:
        """The cells of what counts, each of events with equal values, with their groups' labels."""
        feature = msgspec.structs.replace(
            self.feature, filters=(*self.feature.filters, *self.filters)
        )
        grouping = [name.removeprefix(PROPERTY_PREFIX) for name in self.group_by if name != SOURCE]
        keys = {feature.field, feature.group_by, *(key for key, _ in feature.filters), *grouping}
        names = sorted(key for key in keys if key is not None)
        escaped = any(_ESCAPED.search(name) for name in names)
        cuts, grain = _cuts(asked)
        parameters = {
            "account": feature.account,
            "event_name": feature.event_name,
            "feature": feature.id,
            "customer": self.customer or "",
            "start": cuts[0],
            "end": cuts[-1],
            "cuts": cuts,
            "grain": grain,
            "sources": list(self.sources),
            "by_source": SOURCE in self.group_by,
            "keys": [] if escaped else [f'"{name}"' for name in names],
            "whole_properties": escaped,
        }
        with client.query_row_block_stream(query("usage_rows"), parameters=parameters) as blocks:
            for block in blocks:
                rows = list(block)
                matches = matcher(feature).match([row[2].encode() for row in rows])
                for place, row in enumerate(rows):
                    match = matches if isinstance(matches, Match) else matches[place]
                    if match.verdict is Verdict.COUNTED:
                        yield self._labels(row[1], row[2]), _cell(match, row)

    def _labels(self, source: str, properties: str) -> Labels:
        if not self.group_by:
            return ()
        found = _properties.decode(properties) if properties else {}
        return tuple(
            source if name == SOURCE else _label(found.get(name.removeprefix(PROPERTY_PREFIX)))
            for name in self.group_by
        )


def _label(raw: msgspec.Raw | None) -> str | None:
    """The canonical text of a property, or the JSON text of what has none; None if it is absent."""
    if raw is None:
        return None
    text = canonical(bytes(raw))
    return text.text if text.is_text else text.text or bytes(raw).decode()


def _cell(match: Match, row: Sequence[Any]) -> Cell:
    """The cell of a row of `usage_rows`, whose events have equal values."""
    at, _, _, count, times, last = row
    value = to_decimal(int.from_bytes(match.value, "little", signed=True))
    return Cell(
        at,
        match.group,
        count,
        EXACT.multiply(value, Decimal(count)),
        EXACT.multiply(value, Decimal(times)),
        value,
        (*last, match.is_text, value, match.text),
        frozenset((match.text,)),
    )


def _cuts(asked: Sequence[Measure]) -> tuple[list[int], int]:
    """The cuts of some ranges and their buckets, and how long a piece may be for short buckets."""
    size = asked[0].feature.bucket_size
    cuts = {0} if is_level(asked[0]) else set()
    grain = 0
    if size is not None and size in FINE:
        grain = min(GRAINS.get(size, HOUR) * 1000, _FINEST_MS)
    for each in asked:
        cuts |= {each.start, each.end}
        if size is not None:
            runs = bucket_runs(each)
            cuts |= set(runs.cuts_off(each.end, grain) if grain else runs.cuts(each.end))
    return sorted(cuts), grain


def _amounts(measured: Measured, asked: Sequence[Measure]) -> list[Amount]:
    return [Amount(measured.quantities[each], measured.counts[each]) for each in asked]
