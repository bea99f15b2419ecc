"""Which stored events have to go through the log again, and how they are written to it. Pure.

An event is late when its feature came after it: its row says `unknown_event_name` or
`feature_archived` although the name has an active feature now, and no later row supersedes it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import pyarrow as pa

from schemas import resent
from schemas.catalog import Feature
from schemas.position import Log, Point, position, slot_of
from schemas.resent import Resent
from schemas.topics import RESENT

RECORD_EVENTS = 500
RECORD_BYTES = 1 << 20
"""A record of re-sent events ends before it gets heavier, or holds one single event."""
ROW_BYTES = 300
"""What a re-sent event weighs besides its properties, roughly."""
TIME_MARGIN_MS = 600_000
"""How far the log's clock may have been set back between two blocks of a partition."""


class Name(NamedTuple):
    """What late events have in common."""

    account: str
    event_name: str


class Key(NamedTuple):
    """A place in the primary key of a name's events: they are worked off in this order."""

    customer: str = ""
    timestamp: int = -1


class Slot(NamedTuple):
    """One partition of the log of blocks."""

    epoch: int
    partition: int


class Mark(NamedTuple):
    """The last block of a slot that is stored, its time in ms, and what the slot covers."""

    offset: int
    time: int
    covered: str = "[]"


class Newer(NamedTuple):
    """The question for unmatched events that were stored since the last look."""

    since: int
    lowest: int
    slots: list[int]
    afters: list[int]


@dataclass(slots=True)
class Pass:
    """One way through a name's events: those in blocks from `since` (ms; 0: all) on.

    after  Everything up to this key is done.
    again  Where the next pass has to start, as events came meanwhile; None: no need.
    """

    since: int
    after: Key | None = None
    again: int | None = None


@dataclass(slots=True)
class Worklist:
    """The names that may hold late events.

    A name gets on it when its feature becomes active (all its events are looked through), and
    when events of it are stored unmatched although its feature is active (they were packed at an
    older catalog version). Blocks are stored in the order of their offsets, so what is stored
    after a look stands behind the marks of that look, whatever clocks say.
    """

    passes: dict[Name, Pass] = field(default_factory=dict)
    _marks: Mapping[Slot, Mark] | None = None
    _active: dict[Name, int] = field(default_factory=dict)

    def see_features(self, features: Iterable[Feature]) -> None:
        """Take in the catalog as it is now."""
        active = {Name(f.account, f.event_name): f.version for f in features if f.active}
        for name in [name for name in self.passes if name not in active]:
            del self.passes[name]
        for name, version in active.items():
            if self._active.get(name) != version:
                self.passes[name] = Pass(since=0)
        self._active = active

    def newer(self, marks: Mapping[Slot, Mark]) -> Newer | None:
        """What to ask for, now that the log is counted up to these marks; None: nothing."""
        known = self._marks
        if known is None:
            return None  # the first look: every active feature is looked through anyway
        times = [
            known[slot].time if slot in known else 0
            for slot, mark in marks.items()
            if slot not in known or known[slot].offset < mark.offset
        ]
        if not times:
            return None
        return Newer(
            since=max(0, min(times) - TIME_MARGIN_MS),
            lowest=min((mark.offset for mark in known.values()), default=-1)
            if marks.keys() <= known.keys()
            else -1,
            slots=[slot_of(slot.epoch, slot.partition) for slot in known],
            afters=[mark.offset for mark in known.values()],
        )

    def reached(self, marks: Mapping[Slot, Mark]) -> None:
        """Everything up to these marks was looked at."""
        self._marks = marks

    def found(self, name: Name, since: int) -> None:
        """Note unmatched events of a name in blocks from `since` on; others than ours are none."""
        if name not in self._active:
            return
        under_way = self.passes.get(name)
        if under_way is None:
            self.passes[name] = Pass(since)
        elif under_way.after is None:
            under_way.since = min(under_way.since, since)
        elif under_way.again is None or since < under_way.again:
            under_way.again = since

    def is_active(self, name: Name) -> bool:
        """Whether the name's events count."""
        return name in self._active

    def finish(self, name: Name, done: Pass) -> None:
        """A pass is through: begin the next one, or forget the name."""
        if self.passes.get(name) is done:  # else a change of the feature has begun another
            del self.passes[name]
            if done.again is not None:
                self.passes[name] = Pass(done.again)


class Row(NamedTuple):
    """A late event, and where its row is."""

    event: Resent
    slot: Slot


_COLUMNS = (
    "event_id", "external_customer_id", "timestamp_ms", "timestamp_given", "ingested_at_ms",
    "source", "properties", "log_topic", "log_epoch", "log_partition", "log_offset", "log_index",
    "block_epoch", "block_partition", "block_offset", "block_index",
)  # fmt: skip


def rows(name: Name, batch: pa.RecordBatch) -> list[Row]:
    """The late events of a batch of the query `sweep_page`."""
    columns = [batch.column(column).to_pylist() for column in _COLUMNS]
    logs: dict[tuple[str, int, int], Log] = {}
    found = []
    for (
        event_id, customer, timestamp, given, ingested_at, source, properties,
        topic, log_epoch, log_partition, log_offset, log_index,
        epoch, partition, offset, index,
    ) in zip(*columns, strict=True):  # fmt: skip
        at = topic, log_epoch, log_partition
        home = logs.get(at) or logs.setdefault(at, Log(*at))
        event = Resent(
            account=name.account,
            event_id=event_id,
            event_name=name.event_name,
            external_customer_id=customer,
            timestamp=timestamp,
            timestamp_given=bool(given),
            ingested_at=ingested_at,
            source=source,
            properties=properties,
            home=home,
            home_position=position(log_offset, log_index),
            superseded=Point(epoch, offset, index),
        )
        found.append(Row(event, Slot(epoch, partition)))
    return found


class Record(NamedTuple):
    """A record for the topic `resent`: its value, how many events, and the last index by slot."""

    value: bytes
    size: int
    last: dict[Slot, int]


def records(late: Iterable[Row]) -> Iterator[Record]:
    """The late events as records, in order, within the limits of a record."""
    events: list[Resent] = []
    last: dict[Slot, int] = {}
    weight = 0
    for event, slot in late:
        heavy = ROW_BYTES + len(event.properties)
        if events and (len(events) == RECORD_EVENTS or weight + heavy > RECORD_BYTES):
            yield Record(resent.encode(events), len(events), last)
            events, last, weight = [], {}, 0
        last[slot] = len(events)
        events.append(event)
        weight += heavy
    if events:
        yield Record(resent.encode(events), len(events), last)


@dataclass(slots=True)
class Sent:
    """What of a page was written where: by slot and partition of `resent` the last position.

    vague  Whether for some events nobody can say in which slot, or at which offset, they arrive.
    """

    count: int = 0
    vague: bool = False
    last: dict[tuple[Slot, int], int] = field(default_factory=dict)

    def add(self, record: Record, partition: int, offset: int) -> None:
        """Note that a record was acknowledged at this place (offset -1: at some place)."""
        self.count += record.size
        if offset < 0:
            self.vague = True
            return
        for slot, index in record.last.items():
            place = position(offset, index)
            at = slot, partition
            self.last[at] = max(self.last.get(at, -1), place)

    def is_counted(self, marks: Mapping[Slot, Mark]) -> bool:
        """Whether every event of the page went through the log, as far as the marks say.

        Its slot then covers its place in `resent`: its row is superseded, or never will be.
        """
        if self.vague:
            return False
        newest = max((slot.epoch for slot in marks), default=0)
        covered: dict[Slot, dict[int, _Spans]] = {}
        for (slot, partition), place in self.last.items():
            mark = marks.get(slot)
            if mark is None or slot.epoch != newest:
                return False
            if slot not in covered:
                covered[slot] = _resent_spans(mark.covered)
            spans = covered[slot].get(partition, ())
            if not any(start <= place < stop for start, stop in spans):
                return False
        return True


_Spans = tuple[tuple[int, int], ...]
_covered = msgspec.json.Decoder(list[tuple[Log, _Spans]])


def _resent_spans(covered: str) -> dict[int, _Spans]:
    """By partition of the topic `resent`, as it is now, the positions that a marker covers."""
    logs = [(log, spans) for log, spans in _covered.decode(covered) if log.topic == RESENT]
    newest = max((log.epoch for log, _ in logs), default=0)
    return {log.partition: spans for log, spans in logs if log.epoch == newest}
