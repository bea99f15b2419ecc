"""Packing: source records in, blocks out. Pure: no clock, no I/O.

A Pool gathers what was read in columns; `cut` regroups it by claim key into one or more blocks a
partition. The record is the unit on the way in, the block on the way out, never the event.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple, cast
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas import resent
from schemas.block import COLUMNS, RESENT_COLUMNS, VERSION, Block, DeadLetter, encoded, ipc
from schemas.event import ABSENT, Event, Reading, Unreadable, read, texts
from schemas.ids import event_id_at, native_event_id
from schemas.limits import BLOCK_BYTES_MAX, BODY_BYTES_MAX
from schemas.position import INDEX_MASK, Log, Range, position
from schemas.resent import Resent

DIGEST_BYTES = 32
KEY_BYTES = 16
"""The key of a claim: half of the SHA-256 over account, NUL and event_id, as ClickHouse has it in
`substring(SHA256(concat(account, '\\0', event_id)), 1, 16)`."""
ROW_BYTES = 160
"""What an event weighs in a block besides its properties, roughly."""
DEAD_LETTER_BYTES_MAX = 12 << 20
"""A record too large to be set aside whole is cut, and its detail says so."""

Resolve = Callable[[str, str], str | None]
"""(account, customer_id) -> external_customer_id, or None when there is no such customer."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a source topic.

    account      Whose it is: the topic's, or the gateway's header.
    received_at  ms since 1970: `ingested_at`, and the timestamp of events without one.
    first_id     ULID from which missing ids count up; None: they come from the position.
    """

    log: Log
    offset: int
    account: str
    received_at: int
    value: bytes | None
    first_id: str | None = None


def partitions_of(keys: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint32]:
    """The block partition of each key (rows of 16 bytes): its first four, little-endian, modulo."""
    heads = np.ascontiguousarray(keys[:, :4]).view("<u4").ravel()
    return (heads % np.uint32(count)).astype(np.uint32)


class _Run(NamedTuple):
    """What so many events that follow on one another have in common."""

    events: int
    account: str
    ingested_at: int
    log: int


@dataclass(slots=True)
class Pool:
    """Events and dead letters read but not yet cut into blocks, in order of arrival."""

    logs: dict[Log, int] = field(default_factory=dict)
    stops: dict[Log, int] = field(default_factory=dict)
    weight: int = 0
    _digests: list[bytes] = field(default_factory=list)  # SHA-256; its first half is the key
    _contents: list[int] = field(default_factory=list)  # CRC of the properties
    _names: list[str] = field(default_factory=list)
    _customers: list[str] = field(default_factory=list)
    _ids: list[str] = field(default_factory=list)
    _times: list[npt.NDArray[np.int64]] = field(default_factory=list)  # ABSENT where not given
    _sources: list[str] = field(default_factory=list)
    _properties: list[bytes] = field(default_factory=list)
    _positions: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    _runs: list[_Run] = field(default_factory=list)
    _resent: dict[int, Resent] = field(default_factory=dict)
    _dead: list[tuple[int, DeadLetter]] = field(default_factory=list)  # (events before it, letter)

    def __len__(self) -> int:
        return len(self._digests) + len(self._dead)

    def add(self, record: Record, resolve: Resolve) -> None:
        """Take in a producer's record; what can't be read in it becomes dead letters."""
        log = self._enter(record.log, record.offset)
        value = record.value
        try:
            if not record.account:
                raise Unreadable("no_account", "no gateway wrote this: it names no account")
            if value is None:
                raise Unreadable("empty", "the record has no value: send a JSON event")
            if len(value) > BODY_BYTES_MAX:
                raise Unreadable(
                    "too_large", f"{len(value)} bytes: a record has at most {BODY_BYTES_MAX}"
                )
            reading = read(value, now_ms=None)
            if not reading.events:
                raise Unreadable("empty", "the record holds no event")
        except Unreadable as error:
            self._bury(record, log, 0, error.flaw.code, error.flaw.detail, value or b"")
            return
        if any(e is None or e.external_customer_id is None for e in reading.events):
            self._add_one_by_one(record, log, reading, resolve)
        else:
            events = cast(list[Event], reading.events)
            indexes = range(len(events))
            self._extend(record, log, events, indexes, reading.times, reading.properties)

    def _add_one_by_one(self, record: Record, log: int, reading: Reading, resolve: Resolve) -> None:
        """Take in, in order, the good events of a record, and bury the others."""
        flaws = {flaw.index: flaw for flaw in reading.flaws}
        elements = texts(record.value or b"")
        for index, event in enumerate(reading.events):
            if event is None:
                flaw = flaws[index]
                self._bury(record, log, index, flaw.code, flaw.detail, elements[index])
                continue
            if event.external_customer_id is None:
                external = resolve(record.account, event.customer_id or "")
                if external is None:
                    detail = f"no customer has the id {event.customer_id!r}"
                    self._bury(record, log, index, "unknown_customer_id", detail, elements[index])
                    continue
                event.external_customer_id = external
            times, properties = reading.times[index : index + 1], reading.properties[index]
            self._extend(record, log, [event], [index], times, [properties])

    def note_gap(self, first: Record, gap: str) -> None:
        """Set aside, as a dead letter without bytes, that the log before `first` was lost.

        To be called after `first` itself was added: the letter stands behind its events.
        """
        code, _, detail = gap.partition(": ")
        log = self._enter(first.log, first.offset)
        place = position(first.offset, INDEX_MASK)
        self._dead.append(
            (
                len(self._digests),
                DeadLetter(first.account, log, place, first.received_at, code, detail, b""),
            )
        )

    def _enter(self, log: Log, offset: int) -> int:
        self.stops[log] = position(offset + 1)
        return self.logs.setdefault(log, len(self.logs))

    def _bury(
        self, record: Record, log: int, index: int, code: str, detail: str, content: bytes
    ) -> None:
        if len(content) > DEAD_LETTER_BYTES_MAX:
            detail += f" (cut from {len(content)} bytes)"
            content = content[:DEAD_LETTER_BYTES_MAX]
        place = position(record.offset, index)
        letter = DeadLetter(
            record.account, log, place, record.received_at, code, detail, bytes(content)
        )
        self._dead.append((len(self._digests), letter))
        self.weight += ROW_BYTES + len(content)

    def _extend(
        self,
        record: Record,
        log: int,
        events: list[Event],
        indexes: Sequence[int],
        times: npt.NDArray[np.int64],
        properties: list[bytes],
    ) -> None:
        """Append the columns of a record's events: one comprehension a column."""
        count = len(events)
        ids = [event.event_id for event in events]
        if None in ids:
            ids = [i or _made_id(record, n) for i, n in zip(ids, indexes, strict=True)]
        given = cast(list[str], ids)
        fresh = sha256(f"{record.account}\0".encode()).copy
        digests = self._digests
        for event_id in given:
            digest = fresh()
            digest.update(event_id.encode())
            digests.append(digest.digest())
        names = [event.event_name for event in events]
        customers = [cast(str, event.external_customer_id) for event in events]
        sources = [event.source or "" for event in events]
        self._contents += map(crc32, properties)
        self._names += names
        self._customers += customers
        self._ids += given
        self._times.append(times)
        self._sources += sources
        self._properties += properties
        self._positions.append(np.array(indexes, np.uint64) + np.uint64(position(record.offset)))
        self._runs.append(_Run(count, record.account, record.received_at, log))
        self.weight += ROW_BYTES * count + sum(map(len, properties))

    def add_resent(self, record: Record) -> None:
        """Take in a record of the topic `resent`: stored events with their identity and times."""
        log = self._enter(record.log, record.offset)
        try:
            events = resent.decode(record.value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            detail = f"not what the console writes: {error}"
            self._bury(record, log, 0, "invalid_json", detail, record.value or b"")
            return
        for index, event in enumerate(events):
            text = event.properties.encode()
            self.logs.setdefault(event.home, len(self.logs))
            self._resent[len(self._digests)] = event
            self._digests.append(sha256(f"{event.account}\0{event.event_id}".encode()).digest())
            self._contents.append(crc32(text))
            self._names.append(event.event_name)
            self._customers.append(event.external_customer_id)
            self._ids.append(event.event_id)
            time = event.timestamp if event.timestamp_given else ABSENT
            self._times.append(np.array([time], dtype=np.int64))
            self._sources.append(event.source)
            self._properties.append(text)
            self._positions.append(np.array([position(record.offset, index)], np.uint64))
            self._runs.append(_Run(1, event.account, event.ingested_at, log))
            self.weight += ROW_BYTES + len(text)

    def cut(
        self,
        partitions: int,
        *,
        epoch: int,
        catalog_version: int,
        starts: dict[tuple[int, Log], int],
        bytes_max: int = BLOCK_BYTES_MAX,
    ) -> Iterator[tuple[int, Block]]:
        """Yield (partition, block) in the order in which they must be in the log.

        `starts[partition, log]` is where the partition's coverage of a log ended before (absent:
        at its beginning); it is moved on. A partition without events gets no block: what it missed
        is covered by its next one.
        """
        keys = self._keys()
        parts = partitions_of(keys, partitions)
        batch = self._batch(keys)
        weights = pc.binary_length(batch.column("properties")).to_numpy() + ROW_BYTES
        logs = list(self.logs)
        for part in range(partitions):
            rows = np.flatnonzero(parts == part)
            dead = [
                (at, letter)
                for at, letter in self._dead
                if logs[letter.log].partition % partitions == part
            ]
            if not len(rows) and not dead:
                continue
            pieces = _pieces(rows, weights[rows], dead, bytes_max)
            for number, (chosen, letters) in enumerate(pieces):
                if number == len(pieces) - 1:
                    stops = self.stops
                else:
                    stops = _stops_within(logs, batch, chosen, letters)
                ranges = []
                for log, stop in stops.items():
                    start = starts.get((part, log), 0)
                    if stop > start:
                        ranges.append(Range(self.logs[log], start, stop))
                        starts[part, log] = stop
                events = ipc(batch.take(pa.array(chosen)))
                yield (
                    part,
                    Block(VERSION, epoch, catalog_version, logs, ranges, events, letters),
                )

    def _keys(self) -> npt.NDArray[np.uint8]:
        """The claim keys, a row of 16 bytes each."""
        digests = np.frombuffer(b"".join(self._digests), dtype=np.uint8)
        return np.ascontiguousarray(digests.reshape(-1, DIGEST_BYTES)[:, :KEY_BYTES])

    def _batch(self, keys: npt.NDArray[np.uint8]) -> pa.RecordBatch:
        """Everything in the pool as one Arrow batch."""
        times = np.concatenate(self._times, dtype=np.int64) if self._times else _NO_TIMES
        given = times != ABSENT
        ingested = self._repeated([run.ingested_at for run in self._runs], np.int64)
        accounts = list(dict.fromkeys(run.account for run in self._runs))
        codes = {account: code for code, account in enumerate(accounts)}
        names, sources = encoded(self._names), encoded(self._sources)
        # What the client sent, before defaults: claims.sql computes the same.
        contents = np.array(self._contents, dtype=np.uint32)
        contents ^= np.fromiter(map(crc32, map(str.encode, self._customers)), np.uint32)
        contents ^= _crc_each(names) * np.uint32(3) ^ _crc_each(sources) * np.uint32(5)
        contents ^= np.where(given, times, 0).astype(np.uint32)  # the low 32 bits
        columns: list[Any] = [
            pa.Array.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, pa.py_buffer(keys)]),
            pa.array(contents),
            pa.DictionaryArray.from_arrays(
                self._repeated([codes[run.account] for run in self._runs], np.int32),
                pa.array(accounts, pa.utf8()),
            ),
            names,
            pa.array(self._customers, pa.utf8()),
            pa.array(self._ids, pa.utf8()),
            pa.array(np.where(given, times, ingested)),
            pa.array(given),
            pa.array(ingested),
            sources,
            pa.array(self._properties, pa.binary()),
            pa.array(self._repeated([run.log for run in self._runs], np.uint16)),
            pa.array(np.concatenate(self._positions) if self._positions else _NO_POSITIONS),
        ]
        schema = COLUMNS
        if self._resent:
            columns += self._resent_columns(columns[-2], columns[-1])
            schema = pa.schema([*COLUMNS, *RESENT_COLUMNS])
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _repeated(self, values: list[int], kind: Any) -> npt.NDArray[Any]:
        """A column from one value a run."""
        return np.repeat(np.array(values, dtype=kind), [run.events for run in self._runs])

    def _resent_columns(self, logs: Any, positions: Any) -> list[Any]:
        """Home and superseded row of each event; an ordinary event is at home where it is read."""
        home_logs, home_positions = logs.to_numpy().copy(), positions.to_numpy().copy()
        epochs = np.zeros(len(self._digests), dtype=np.uint16)
        offsets = np.full(len(self._digests), -1, dtype=np.int64)
        indexes = np.zeros(len(self._digests), dtype=np.uint32)
        for row, event in self._resent.items():
            home_logs[row] = self.logs[event.home]
            home_positions[row] = event.home_position
            epochs[row], offsets[row], indexes[row] = event.superseded
        return [pa.array(x) for x in (home_logs, home_positions, epochs, offsets, indexes)]


def _stops_within(
    logs: list[Log],
    batch: pa.RecordBatch,
    rows: npt.NDArray[np.int64],
    letters: list[DeadLetter],
) -> dict[Log, int]:
    """Up to where a piece that others follow covers each log: just past its last event."""
    chosen = batch.select(["log", "position"]).take(pa.array(rows))
    places = list(zip(*(column.to_pylist() for column in chosen.columns), strict=True))
    places += [(letter.log, letter.position) for letter in letters]
    stops: dict[Log, int] = {}
    for number, place in places:
        log = logs[number]
        stops[log] = max(stops.get(log, 0), place + 1)
    return stops


_NO_TIMES = np.zeros(0, np.int64)
_NO_POSITIONS = np.zeros(0, np.uint64)


def _made_id(record: Record, index: int) -> str:
    """The id of an event that came without one."""
    if record.first_id is not None:
        return event_id_at(record.first_id, index)
    log = record.log
    return native_event_id(log.topic, log.epoch, log.partition, record.offset, index)


def _crc_each(column: Any) -> npt.NDArray[np.uint32]:
    """The CRC of each text of a dictionary-encoded column."""
    crcs = [crc32(text.encode()) for text in column.dictionary.to_pylist()]
    each: npt.NDArray[np.uint32] = np.array(crcs, dtype=np.uint32)[column.indices.to_numpy()]
    return each


def _pieces(
    rows: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int64],
    dead: list[tuple[int, DeadLetter]],
    bytes_max: int,
) -> list[tuple[npt.NDArray[np.int64], list[DeadLetter]]]:
    """Split the rows and dead letters of one partition, in order of arrival, by weight.

    A piece ends before what would make it heavier than `bytes_max`, or holds one single thing.
    """
    dead_weight = sum(len(letter.content) + ROW_BYTES for _, letter in dead)
    if int(weights.sum()) + dead_weight <= bytes_max:
        return [(rows, [letter for _, letter in dead])]
    # (arrival, 0 for a dead letter as it comes before the event of its number, number, weight)
    items = [(at, 0, i, len(letter.content) + ROW_BYTES) for i, (at, letter) in enumerate(dead)]
    items += [
        (row, 1, row, weight) for row, weight in zip(rows.tolist(), weights.tolist(), strict=True)
    ]
    items.sort()
    pieces: list[tuple[list[int], list[DeadLetter]]] = [([], [])]
    filled = 0
    for _, is_row, number, weight in items:
        if filled and filled + weight > bytes_max:
            pieces.append(([], []))
            filled = 0
        filled += weight
        if is_row:
            pieces[-1][0].append(number)
        else:
            pieces[-1][1].append(dead[number][1])
    return [(np.array(chosen, dtype=np.int64), letters) for chosen, letters in pieces]
