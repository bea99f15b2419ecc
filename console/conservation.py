"""Conservation: all that was received became a row, and every row is still there.

Three figures that are kept apart meet here, and no event is read for it. The packer's bookmarks say
how many events the log's records hold up to its commit. The markers of blocks say how many were
taken from each log up to the block, and how many rows that makes. The store knows how many rows it
has.
"""

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
from clickhouse_connect.driver import Client
from prometheus_client import Gauge

from clickhouse.queries import query
from console.store import Store
from console.watermarks import Sample
from schemas.balance import Balance
from schemas.position import Log, position

EVERY_S = 5.0
BLOCKS_BACK = 32
"""Blocks of a partition that are looked back on for the last one before a commit."""
BLOCKS_AHEAD = 8
"""Blocks whose rows may be in before their states are."""
TRIES = 5
Place = tuple[int, int]
"""Epoch and number of a block partition."""

SOURCE_EVENTS = Gauge(
    "pipeline_source_events",
    "Events and dead letters in the records of a source topic that are packed",
    ["topic"],
    multiprocess_mode="mostrecent",
)
GAP_EVENTS = Gauge(
    "pipeline_conservation_gap_events",
    "Events of a topic that were packed and never counted, nor set aside; NaN: not known",
    ["topic"],
    multiprocess_mode="mostrecent",
)
GAP_ROWS = Gauge(
    "pipeline_conservation_gap_rows",
    "Rows counted that the store doesn't hold; below 0: that nobody counted; NaN: not known",
    multiprocess_mode="mostrecent",
)


class Gaps(NamedTuple):
    """What two looks, one after the other, both found.

    at      All that was received before it (ms) was compared.
    events  By source topic, what was read and became nothing; None where that isn't known.
    rows    Rows that should be in the store and aren't.
    """

    at: int
    events: Mapping[str, int | None]
    rows: int | None


class Marker(NamedTuple):
    """A block's marker: its offset, up to where it covers each log, and the balance until there."""

    offset: int
    stops: Mapping[Log, int]
    balance: Balance | None


class Conservation:
    """Compares, now and then, what was read with what was taken and with what is stored."""

    def __init__(self, store: Store, epoch: int) -> None:
        self._store = store
        self._epoch = epoch
        self._due: Sample | None = None
        self._next = 0.0
        self._before: Gaps | None = None
        self.gaps: Gaps | None = None

    def due(self, sample: Sample) -> Sample | None:
        """The sample to compare: an earlier one, once all its blocks are counted."""
        if self._due is None and time.monotonic() >= self._next:
            self._due = sample
        if self._due is None or not sample.has_counted(self._due.blocks):
            return None
        due, self._due = self._due, None
        self._next = time.monotonic() + EVERY_S
        return due

    def compare(self, sample: Sample) -> None:
        """Compare, and show what this look and the one before agree on. For threads.

        One look alone may be wrong: after a packer died, blocks of its may lie ahead of what the
        next one has committed. Raises what Store.reading raises.
        """
        with self._store.reading() as client:
            events = gap_events(client, sample, self._epoch)
            rows = gap_rows(client)
        found = Gaps(sample.at, events, rows)
        before, self._before = self._before or found, found
        self.gaps = Gaps(
            sample.at,
            {topic: _lasting(before.events.get(topic), gap) for topic, gap in events.items()},
            _lasting(before.rows, rows),
        )
        self._show(sample)

    def _show(self, sample: Sample) -> None:
        if self.gaps is None:
            return
        for topic, count in _by_topic(_read(sample)).items():
            SOURCE_EVENTS.labels(topic).set(_figure(count))
        for topic, gap in self.gaps.events.items():
            GAP_EVENTS.labels(topic).set(_figure(gap))
        GAP_ROWS.set(_figure(self.gaps.rows))


def gap_events(client: Client, sample: Sample, epoch: int) -> dict[str, int | None]:
    """By source topic, how many events its records hold more than were taken from them.

    Each block partition is asked for its last block up to the commit, so it doesn't matter how
    many more are under way. None: a figure is missing.
    """
    wanted = [
        (epoch, partition, offset)
        for partition, end in sample.blocks.items()
        for offset in range(max(0, end - BLOCKS_BACK), end)
    ]
    last = [place for place in states_reached(client) if place[0] != epoch]
    markers = markers_at(client, [*wanted, *last])
    places = {(epoch, partition) for partition, end in sample.blocks.items() if end}
    places |= {(old, partition) for old, partition, _ in last}
    gaps: dict[Log, int | None] = {}
    for log, bookmark in sample.bookmarks.items():
        stop = position(bookmark.offset + 1)
        taken = [_taken(markers.get(place, []), log, stop) for place in places]
        if bookmark.events is None or None in taken:
            gaps[log] = None
        else:
            gaps[log] = bookmark.events - sum(each for each in taken if each is not None)
    return _by_topic(gaps)


def _taken(markers: list[Marker], log: Log, stop: int) -> int | None:
    """How much a partition took of a log up to a position; None: its blocks here don't say."""
    for marker in reversed(markers):
        if marker.stops.get(log, 0) <= stop:
            return None if marker.balance is None else marker.balance.taken.get(log, 0)
    return 0 if markers and markers[0].offset == 0 else None


def gap_rows(client: Client) -> int | None:
    """How many rows the store should hold but doesn't; below 0: how many it has too many.

    Blocks go on being stored meanwhile. The markers are read before and behind; when they never
    agree, it is what is missing, or too much, by both. None: a figure is missing.
    """
    gap = 0
    before = rows_told(client)
    for _ in range(TRIES):
        stored = int(client.query(query("rows_stored")).result_rows[0][0])
        after = rows_told(client)
        if before is None or after is None:
            return None
        gap = max(0, before - stored) or min(0, after - stored)
        if before == after:
            break
        before = after
    return gap


def rows_told(client: Client) -> int | None:
    """How many rows the markers say that there are; None where one doesn't say."""
    reached = states_reached(client)
    points = [
        (epoch, partition, offset + ahead)
        for epoch, partition, offset in reached
        for ahead in range(BLOCKS_AHEAD)
    ]
    total = 0
    markers = markers_at(client, points)
    for epoch, partition, _ in reached:
        found = markers.get((epoch, partition))
        if not found or found[-1].balance is None:
            return None
        total += found[-1].balance.rows
    return total


def states_reached(client: Client) -> list[tuple[int, int, int]]:
    """Of each block partition (its epoch, its number) the last block whose states are in."""
    rows = client.query(query("states_reached")).result_rows
    return [(int(epoch), int(partition), int(offset)) for epoch, partition, offset in rows]


def markers_at(client: Client, points: Iterable[tuple[int, int, int]]) -> dict[Place, list[Marker]]:
    """The markers of blocks (epoch, partition, offset), by partition and in their order."""
    epochs, partitions, offsets = [list(each) for each in zip(*points, strict=True)] or ([], [], [])
    parameters = {"epochs": epochs, "partitions": partitions, "offsets": offsets}
    found: dict[Place, list[Marker]] = {}
    for epoch, partition, offset, covered, balance in client.query(
        query("markers_at"), parameters
    ).result_rows:
        stops = {log: spans[-1][1] for log, spans in _covered.decode(covered.encode()) if spans}
        marker = Marker(int(offset), stops, Balance.from_text(balance))
        found.setdefault((int(epoch), int(partition)), []).append(marker)
    return found


def _read(sample: Sample) -> dict[Log, int | None]:
    return {log: bookmark.events for log, bookmark in sample.bookmarks.items()}


def _by_topic(counts: Mapping[Log, int | None]) -> dict[str, int | None]:
    """The sum over a topic's logs; None where one is missing."""
    total: dict[str, int | None] = {}
    for log, count in counts.items():
        before = total.get(log.topic, 0)
        total[log.topic] = None if before is None or count is None else before + count
    return total


def _lasting(before: int | None, now: int | None) -> int | None:
    """What two looks agree on: the lesser gap of the same sign."""
    if before is None or now is None:
        return now
    if before * now <= 0:
        return 0
    return min(before, now, key=abs)


def _figure(count: int | None) -> float:
    return float("nan") if count is None else count


_covered = msgspec.json.Decoder(list[tuple[Log, list[tuple[int, int]]]])
