"""The ledger: what producers sent, and what has to be true of it in the end. It shares no code
with the rules that it judges: rows are looked at as anybody could by SQL."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

from aiokafka import TopicPartition

from schemas import resent
from schemas.block import decode
from schemas.position import INDEX_BITS
from tests.simulation.catalog import Catalog
from tests.simulation.engine import Engine, Usage, total
from tests.simulation.log import BLOCKS, RESENT, Log
from tests.stream_workers.worlds import HORIZON_MS, Row, origin, point

Place = tuple[str, int, int, int, int]  # topic, epoch, partition, offset, index


class Wrong(AssertionError):
    """The simulation found something that must never be."""


@dataclass
class Ledger:
    """Everything that was sent, by its place; `since` is the catalog's version at that time."""

    log: Log
    engine: Engine
    catalog: Catalog
    sent: dict[Place, tuple[Mapping[str, Any] | None, int]] = field(default_factory=dict)
    wrong: Wrong | None = None

    def note(self, partition: int, offset: int, events: Iterable[Mapping[str, Any] | None]) -> None:
        """Note what a producer sent in one record; None is something unreadable."""
        for index, event in enumerate(events):
            place = ("events.acme", 0, partition, offset, index)
            self.sent[place] = event, self.catalog.version

    def packed(self, offsets: Mapping[Any, Any]) -> None:
        """Judge a packer's commit: everything before it is in a block."""
        found: set[tuple[str, int, int]] = set()
        for tp, records in self.log.records.items():
            if tp.topic == BLOCKS:
                found = found.union(*(_records_in(record.value) for record in records))
        for tp, commit in offsets.items():
            for offset in range(commit.offset):
                if (tp.topic, tp.partition, offset) not in found:
                    self._wrong(f"{tp} is committed up to {commit.offset}, {offset} in no block")

    def acknowledged(self, partition: int, offset: int) -> None:
        """Judge an acknowledgement: the block's rows and states are in."""
        stored = {(row["block_partition"], row["block_offset"]) for row in self.engine.rows()}
        states = {block for each in self.engine.states for block in each.reached.items()}
        for name, found in (("events", stored), ("the states", states)):
            if (partition, offset) not in found:
                self._wrong(f"block {partition}/{offset} is acknowledged and not in {name}")

    def repaired(self) -> None:
        """Judge a repair that says it is done: states are what the rows of their blocks come to."""
        if wrong := self.engine.differing():
            self._wrong(f"after a repair the states of {wrong} differ from their rows")

    def _wrong(self, what: str) -> None:
        """Note it here, as the worker may take what is raised in it for a fault of its own."""
        self.wrong = Wrong(what)
        raise self.wrong

    def check(self) -> None:
        """Judge the end: everything was sent, packed and counted."""
        rows = list(self.engine.rows())
        self._blocks(rows)
        self._balance(rows)
        events = [row for row in rows if row["verdict"] != "marker"]
        self._conservation(events)
        self._sent_again(events)
        self._once(events)
        self._verdicts(events)
        self._states(events)

    def _blocks(self, rows: list[Row]) -> None:
        """Each block of the log has one marker in each table, none twice, none missing."""
        for name, found in (
            ("events", [(r["block_partition"], r["block_offset"])
                        for r in rows if r["verdict"] == "marker"]),
            ("the states", [block for each in self.engine.states
                            for block in each.reached.items()]),
        ):  # fmt: skip
            wanted = {
                (tp.partition, record.offset)
                for tp, records in self.log.records.items()
                if tp.topic == BLOCKS
                for record in records
            }
            _equal(f"blocks in {name}", Counter(found), Counter(wanted))
        for row in rows:
            tp = TopicPartition(BLOCKS, row["block_partition"])
            block = self.log.records[tp][row["block_offset"]]
            _equal("time", _time(row), block.timestamp)
            _equal("catalog of a block", row["catalog_version"], _version_of(block.value))
        _equal("rows at a place", max(Counter(map(_at, rows)).values(), default=1), 1)

    def _balance(self, rows: list[Row]) -> None:
        """Commits and markers say how much was read and stored, and so it is."""
        sent = Counter((topic, partition) for topic, _, partition, *_ in self.sent)
        for record in self.log.records[RESENT]:
            sent[RESENT.topic, RESENT.partition] += len(json.loads(record.value))
        read = {
            (tp.topic, tp.partition): json.loads(commit.metadata)["events"]
            for tp, commit in self.log.packers.commits.items()
        }
        _equal("read by the packers", Counter(read), sent)
        last: dict[int, Row] = {}
        for row in rows:
            number = row["block_partition"]
            if row["verdict"] == "marker" and _at(row) > _at(last.setdefault(number, row)):
                last[number] = row
        taken: Counter[tuple[str, int]] = Counter()
        for number, row in last.items():
            balance = json.loads(row["detail"])
            stored = sum(each["block_partition"] == number for each in rows)
            _equal(f"rows of partition {number}", balance["rows"], stored)
            for (topic, _, partition), count in balance["taken"]:
                taken[topic, partition] += count
        _equal("taken by the counters", taken, sent)

    def _conservation(self, events: list[Row]) -> None:
        """Each thing that was sent has one row that no other supersedes."""
        superseded = Counter(_superseded(row) for row in events if row["superseded_offset"] >= 0)
        _equal("superseded twice", [at for at, n in superseded.items() if n > 1], [])
        _equal("superseded rows that are none", set(superseded) - set(map(_at, events)), set())
        last = [row for row in events if _at(row) not in superseded]
        _equal("rows of what was sent", Counter(map(origin, last)), Counter(list(self.sent)))

    def _sent_again(self, events: list[Row]) -> None:
        """Each event that was sent again has taken the place of its row, or an earlier one has."""
        taken = {(row["event_id"], *_superseded(row)[1:]) for row in events}
        sent = {
            (event.event_id, *event.superseded)
            for record in self.log.records[RESENT]
            for event in resent.decode(record.value)
        }
        _equal("sent again and still there", sent - taken, set())

    def _once(self, events: list[Row]) -> None:
        """The first of an id in the log is it; the others are duplicates, until it is forgotten."""
        by_id: dict[tuple[int, str], list[Row]] = defaultdict(list)
        for row in events:
            if row["verdict"] != "dead_letter":
                by_id[row["block_partition"], row["event_id"]].append(row)
        if len(by_id) != len({event_id for _, event_id in by_id}):
            raise Wrong("an id is in two block partitions")
        for (_, event_id), rows in by_id.items():
            first: Row | None = None
            for row in sorted(rows, key=_at):
                if row["superseded_offset"] >= 0:
                    continue  # it stands for another row, and was judged with all that do
                known = first is not None and _time(row) - _time(first) <= HORIZON_MS
                if (row["verdict"] == "duplicate") != known:
                    raise Wrong(f"{event_id} at {_at(row)} is {row['verdict']}, first {first}")
                if row["verdict"] != "duplicate":
                    first = row
                elif first is not None:
                    _equal(f"first of {event_id}", _first(row), _at(first)[1:])

    def _verdicts(self, events: list[Row]) -> None:
        """Verdict and value are what the event says, by the catalog that its block names."""
        for row in events:
            event, since = self.sent[origin(row)]
            if event is None or row["verdict"] == "dead_letter":
                _equal(f"verdict of {origin(row)}", row["verdict"], "dead_letter")
                _equal(f"event of {origin(row)}", event, None)
                continue
            if row["catalog_version"] < since and not self.catalog.was_away:
                raise Wrong(f"{origin(row)} was sent at catalog {since}, later than its block's")
            for name in ("event_id", "event_name", "external_customer_id"):
                _equal(f"{name} of {origin(row)}", row[name], event[name])
            if row["verdict"] == "duplicate":
                continue
            known = self.catalog.knows(row["event_name"], row["catalog_version"])
            wanted = "counted" if known else "unknown_event_name"
            _equal(f"verdict of {origin(row)}", row["verdict"], wanted)
            value = Decimal(event["properties"]["v"]) if known else Decimal()
            _equal(f"value of {origin(row)}", row["value"], value)
            _equal("properties", json.loads(row["properties"]), event["properties"])

    def _states(self, events: list[Row]) -> None:
        """The states are what the rows come to."""
        wanted: dict[Usage, tuple[int, Decimal]] = {}
        for row in events:
            if row["verdict"] == "counted":
                usage = row["account"], row["feature_id"], row["external_customer_id"]
                n, value = wanted.get(usage, (0, Decimal()))
                wanted[usage] = n + 1, value + row["value"]
        found = {usage: sums for usage, sums in total(self.engine.states).items() if sums[0]}
        _equal("states", found, wanted)


@lru_cache(maxsize=1024)
def _records_in(value: bytes) -> frozenset[tuple[str, int, int]]:
    """Topic, partition and offset of all records of which a block has something."""
    block = decode(value)
    table = block.table()
    columns = (table.column(name).to_pylist() for name in ("log", "position"))
    places = [
        *zip(*columns, strict=True),
        *((each.log, each.position) for each in block.dead_letters),
    ]
    return frozenset(
        (block.logs[log].topic, block.logs[log].partition, place >> INDEX_BITS)
        for log, place in places
    )


@lru_cache(maxsize=1024)
def _version_of(value: bytes) -> int:
    return decode(value).catalog_version


def _equal(what: str, found: object, wanted: object) -> None:
    if found == wanted:
        return
    if isinstance(found, Counter) and isinstance(wanted, Counter):
        raise Wrong(f"{what}: too many {found - wanted}, missing {wanted - found}")
    raise Wrong(f"{what}: {found}, not {wanted}")


def _at(row: Row) -> tuple[int, int, int, int]:
    return row["block_partition"], *point(row)


def _superseded(row: Row) -> tuple[int, int, int, int]:
    return (
        row["block_partition"],
        row["superseded_epoch"], row["superseded_offset"], row["superseded_index"],
    )  # fmt: skip


def _first(row: Row) -> tuple[int, int, int]:
    return row["first_epoch"], row["first_offset"], row["first_index"]


def _time(row: Row) -> int:
    return int(row["block_time"].timestamp() * 1000)
