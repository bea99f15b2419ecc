"""Packing: source records in, blocks out. Pure: no clock, no I/O.

A Pool gathers what was read in columns; `cut` regroups it by claim key into one or more blocks a
partition. The record is the unit on the way in, the block on the way out, never the event.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import UNSET

from schemas import resent
from schemas.block import COLUMNS, RESENT_COLUMNS, VERSION, Block, DeadLetter, ipc
from schemas.event import Event, Unreadable, read, texts
from schemas.ids import event_id_at, native_event_id
from schemas.limits import BLOCK_BYTES_MAX, BODY_BYTES_MAX
from schemas.position import INDEX_MASK, Log, Range, position
from schemas.resent import Resent

KEY_BYTES = 16
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


def claim_key(account: str, event_id: str) -> bytes:
    """The key of a claim: 128 bits of SHA-256 over account, NUL and event_id.

    ClickHouse computes the same: `substring(SHA256(concat(account, '\\0', event_id)), 1, 16)`.
    """
    return sha256(f"{account}\0{event_id}".encode()).digest()[:KEY_BYTES]


def content_crc(
    event_name: str, customer: str, source: str, properties: bytes, timestamp: int | None
) -> int:
    """A checksum of what the client sent, before defaults; equal content has an equal one."""
    head = crc32(f"{event_name}\0{customer}\0{source}\0".encode())
    return crc32(properties, head) ^ ((timestamp or 0) & 0xFFFFFFFF)


def partitions_of(keys: list[bytes], count: int) -> npt.NDArray[np.uint32]:
    """The block partition of each key: its first four bytes, little-endian, modulo `count`."""
    table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), KEY_BYTES)
    heads = np.ascontiguousarray(table[:, :4]).view("<u4").ravel()
    return (heads % np.uint32(count)).astype(np.uint32)


@dataclass(slots=True)
class Pool:
    """Events and dead letters read but not yet cut into blocks, in order of arrival."""

    logs: dict[Log, int] = field(default_factory=dict)
    stops: dict[Log, int] = field(default_factory=dict)
    weight: int = 0
    _keys: list[bytes] = field(default_factory=list)
    _contents: list[int] = field(default_factory=list)
    _accounts: list[str] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _customers: list[str] = field(default_factory=list)
    _ids: list[str] = field(default_factory=list)
    _times: list[int] = field(default_factory=list)
    _given: list[bool] = field(default_factory=list)
    _ingested: list[int] = field(default_factory=list)
    _sources: list[str] = field(default_factory=list)
    _properties: list[bytes] = field(default_factory=list)
    _logs: list[int] = field(default_factory=list)
    _positions: list[int] = field(default_factory=list)
    _resent: dict[int, Resent] = field(default_factory=dict)
    _dead: list[tuple[int, DeadLetter]] = field(default_factory=list)  # (events before it, letter)
    _heads: dict[tuple[str, str | None, str | None], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._keys) + len(self._dead)

    def names(self) -> set[tuple[str, str]]:
        """The (account, event name) pairs in the pool."""
        return set(zip(self._accounts, self._names, strict=True))

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
        flaws = {flaw.index: flaw for flaw in reading.flaws}
        elements = texts(value) if flaws else []
        events: list[tuple[int, Event, int | None]] = []
        for index, (event, time) in enumerate(zip(reading.events, reading.times, strict=True)):
            if event is None:
                flaw = flaws[index]
                self._bury(record, log, index, flaw.code, flaw.detail, elements[index])
                continue
            if event.external_customer_id is None:
                external = resolve(record.account, event.customer_id or "")
                if external is None:
                    detail = f"no customer has the id {event.customer_id!r}"
                    text = (elements or texts(value))[index]
                    self._bury(record, log, index, "unknown_customer_id", detail, text)
                    continue
                event.external_customer_id = external
            events.append((index, event, time))
        self._extend(record, log, events)

    def note_gap(self, first: Record, gap: str) -> None:
        """Set aside, as a dead letter without bytes, that the log before `first` was lost."""
        code, _, detail = gap.partition(": ")
        log = self._enter(first.log, first.offset)
        place = position(first.offset, INDEX_MASK)
        self._dead.append(
            (
                len(self._keys),
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
        self._dead.append((len(self._keys), letter))
        self.weight += ROW_BYTES + len(content)

    def _extend(
        self, record: Record, log: int, events: list[tuple[int, Event, int | None]]
    ) -> None:
        """Append the columns of a record's events: one comprehension a column."""
        account, received_at, offset = record.account, record.received_at, record.offset
        if record.first_id is not None:
            first_id = record.first_id
            ids = [e.event_id or event_id_at(first_id, i) for i, e, _ in events]
        else:
            topic, epoch, partition = record.log.topic, record.log.epoch, record.log.partition
            ids = [
                e.event_id or native_event_id(topic, epoch, partition, offset, i)
                for i, e, _ in events
            ]
        start = sha256(f"{account}\0".encode())
        keys = self._keys
        for event_id in ids:
            digest = start.copy()
            digest.update(event_id.encode())
            keys.append(digest.digest()[:KEY_BYTES])
        properties = [b"" if e.properties is UNSET else bytes(e.properties) for _, e, _ in events]
        heads = self._heads
        if len(heads) > 1 << 16:
            heads.clear()
        contents = self._contents
        for (_, event, time), text in zip(events, properties, strict=True):
            who = (event.event_name, event.external_customer_id, event.source)
            head = heads.get(who)
            if head is None:
                text_head = f"{who[0]}\0{who[1]}\0{who[2] or ''}\0"
                head = heads[who] = crc32(text_head.encode())
            contents.append(crc32(text, head) ^ ((time or 0) & 0xFFFFFFFF))
        count = len(events)
        self._accounts += [account] * count
        self._names += [e.event_name for _, e, _ in events]
        self._customers += [e.external_customer_id or "" for _, e, _ in events]
        self._ids += ids
        self._times += [received_at if time is None else time for _, _, time in events]
        self._given += [time is not None for _, _, time in events]
        self._ingested += [received_at] * count
        self._sources += [e.source or "" for _, e, _ in events]
        self._properties += properties
        self._logs += [log] * count
        first = position(offset)
        self._positions += [first + index for index, _, _ in events]
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
            given = event.timestamp if event.timestamp_given else None
            self.logs.setdefault(event.home, len(self.logs))
            self._resent[len(self._keys)] = event
            self._keys.append(claim_key(event.account, event.event_id))
            self._contents.append(
                content_crc(event.event_name, event.external_customer_id, event.source, text, given)
            )
            self._accounts.append(event.account)
            self._names.append(event.event_name)
            self._customers.append(event.external_customer_id)
            self._ids.append(event.event_id)
            self._times.append(event.timestamp)
            self._given.append(event.timestamp_given)
            self._ingested.append(event.ingested_at)
            self._sources.append(event.source)
            self._properties.append(text)
            self._logs.append(log)
            self._positions.append(position(record.offset, index))
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
        batch = self._batch()
        parts = partitions_of(self._keys, partitions) if self._keys else np.zeros(0, np.uint32)
        weights = np.array([len(text) + ROW_BYTES for text in self._properties], dtype=np.int64)
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
                    stops = self._stops_within(logs, chosen, letters)
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

    def _stops_within(
        self, logs: list[Log], rows: npt.NDArray[np.int64], letters: list[DeadLetter]
    ) -> dict[Log, int]:
        """Up to where a piece that others follow covers each log: just past its last event."""
        stops: dict[Log, int] = {}
        places = [(self._logs[row], self._positions[row]) for row in rows.tolist()]
        places += [(letter.log, letter.position) for letter in letters]
        for number, place in places:
            log = logs[number]
            stops[log] = max(stops.get(log, 0), place + 1)
        return stops

    def _batch(self) -> pa.RecordBatch:
        """Everything in the pool as one Arrow batch."""
        columns: list[Any] = [
            pa.array(self._keys, pa.binary(KEY_BYTES)),
            pa.array(self._contents, pa.uint32()),
            pa.array(self._accounts, pa.utf8()).dictionary_encode(),
            pa.array(self._names, pa.utf8()).dictionary_encode(),
            pa.array(self._customers, pa.utf8()),
            pa.array(self._ids, pa.utf8()),
            pa.array(np.array(self._times, dtype=np.int64)),
            pa.array(np.array(self._given, dtype=bool)),
            pa.array(np.array(self._ingested, dtype=np.int64)),
            pa.array(self._sources, pa.utf8()).dictionary_encode(),
            pa.array(self._properties, pa.binary()),
            pa.array(np.array(self._logs, dtype=np.uint16)),
            pa.array(np.array(self._positions, dtype=np.uint64)),
        ]
        schema = COLUMNS
        if self._resent:
            columns += self._resent_columns()
            schema = pa.schema([*COLUMNS, *RESENT_COLUMNS])
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _resent_columns(self) -> list[Any]:
        """Home and superseded row of each event; an ordinary event is at home where it is read."""
        home_logs = np.array(self._logs, dtype=np.uint16)
        home_positions = np.array(self._positions, dtype=np.uint64)
        epochs = np.zeros(len(self._keys), dtype=np.uint16)
        offsets = np.full(len(self._keys), -1, dtype=np.int64)
        indexes = np.zeros(len(self._keys), dtype=np.uint32)
        for row, event in self._resent.items():
            home_logs[row] = self.logs[event.home]
            home_positions[row] = event.home_position
            epochs[row], offsets[row], indexes[row] = event.superseded
        return [pa.array(x) for x in (home_logs, home_positions, epochs, offsets, indexes)]


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
    # (arrival, 0 for a dead letter as it comes before the event of its number, weight, number)
    items = [(at, 0, len(letter.content) + ROW_BYTES, i) for i, (at, letter) in enumerate(dead)]
    items += [
        (row, 1, weight, row) for row, weight in zip(rows.tolist(), weights.tolist(), strict=True)
    ]
    items.sort()
    pieces: list[tuple[list[int], list[DeadLetter]]] = [([], [])]
    filled = 0
    for _, is_row, weight, number in items:
        if filled and filled + weight > bytes_max:
            pieces.append(([], []))
            filled = 0
        filled += weight
        if is_row:
            pieces[-1][0].append(number)
        else:
            pieces[-1][1].append(dead[number][1])
    return [(np.array(chosen, dtype=np.int64), letters) for chosen, letters in pieces]
