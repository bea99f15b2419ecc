"""Packing: source records in, blocks out. Pure: no clock, no I/O.

A Pool gathers what was read in columns; `cut` regroups it by claim key into one or more blocks a
partition. The record is the unit on the way in, the block on the way out, never the event.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeVar, cast
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas import resent
from schemas.block import COLUMNS, RESENT_COLUMNS, VERSION, Block, DeadLetter, encoded, ipc
from schemas.event import ABSENT, Columns, Event, Flaw, Unread, Unreadable, read, read_all, texts
from schemas.ids import event_id_at, native_event_id
from schemas.limits import BLOCK_BYTES_MAX, BODY_BYTES_MAX
from schemas.position import INDEX_MASK, Log, Range, position
from schemas.resent import Resent

DIGEST_BYTES = 32
KEY_BYTES = 16
"""The key of a claim: half of the SHA-256 over account, NUL and event_id, as ClickHouse has it in
`substring(SHA256(concat(account, '\\0', event_id)), 1, 16)`."""
ROW_BYTES = 112
"""What an event weighs in a block at most, besides its texts."""
TEXTS = ("account", "event_name", "external_customer_id", "event_id", "source", "properties")
DEAD_LETTER_BYTES_MAX = 12 << 20
"""A record too large to be set aside whole is cut, and its detail says so."""

T = TypeVar("T")
Resolve = Callable[[str, str], str | None]
"""(account, customer_id) -> external_customer_id, or None when there is no such customer.

Raises Unresolved where that isn't known yet.
"""


class Unresolved(Exception):
    """Somebody has to be asked whether there is such a customer: what names it is left."""


class Record(NamedTuple):
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


@dataclass(slots=True)
class _Texts:
    """A column of texts without NUL, kept as joined pieces: small objects cost more to reach."""

    _pieces: list[str] = field(default_factory=list)

    def extend(self, texts: Sequence[str]) -> int:
        """Append texts, at least one; what they weigh, in bytes."""
        joined = "\0".join(texts)
        self._pieces.append(joined)
        return len(joined) if joined.isascii() else len(joined.encode())

    def column(self) -> pa.StringArray:
        """All of them."""
        data = "\0".join([*self._pieces, ""]).encode()
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0)
        offsets = np.zeros(len(ends) + 1, np.int32)
        offsets[1:] = ends - np.arange(len(ends))
        return pa.StringArray.from_buffers(
            len(ends), pa.py_buffer(offsets), pa.py_buffer(data.replace(b"\0", b""))
        )


@dataclass(slots=True)
class Pool:
    """Events and dead letters read but not yet cut into blocks, in order of arrival.

    What the events of one record have in common stands in the columns of runs: `_counts` says how
    many events follow on one another, `_accounts`, `_ingested` and `_homes` what they share.
    """

    logs: dict[Log, int] = field(default_factory=dict)
    stops: dict[Log, int] = field(default_factory=dict)
    weight: int = 0
    _events: int = 0
    _digests: list[bytes] = field(default_factory=list)  # one after the other
    _contents: list[int] = field(default_factory=list)  # CRC of the properties
    _names: _Texts = field(default_factory=_Texts)
    _customers: _Texts = field(default_factory=_Texts)
    _ids: _Texts = field(default_factory=_Texts)
    _times: list[npt.NDArray[np.int64]] = field(default_factory=list)  # ABSENT where not given
    _sources: _Texts = field(default_factory=_Texts)
    _properties: list[bytes] = field(default_factory=list)  # one after the other
    _lengths: list[npt.NDArray[np.int64]] = field(default_factory=list)  # of each one's properties
    _positions: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)
    _accounts: list[str] = field(default_factory=list)
    _ingested: list[int] = field(default_factory=list)
    _homes: list[int] = field(default_factory=list)  # numbers of source logs
    _resent: dict[int, Resent] = field(default_factory=dict)
    _dead: list[tuple[int, DeadLetter]] = field(default_factory=list)  # (events before it, letter)

    def __len__(self) -> int:
        return self._events + len(self._dead)

    def add(self, records: Sequence[Record], resolve: Resolve) -> Sequence[Record]:
        """Take in producers' records; what can't be read in them becomes dead letters.

        Many are read at once; where one of them has a flaw, those around it one by one. What is
        left is answered: the records from the first one that `resolve` leaves Unresolved.
        """
        taken = 0
        try:
            for stretch in _stretches(records):
                columns = None
                if _promising(stretch[0]):
                    columns = read_all([cast(bytes, record.value) for record in stretch])
                if columns is not None and self._add_columns(stretch, columns, resolve):
                    taken += len(stretch)
                    continue
                for record in stretch:
                    self._add_one(record, resolve)
                    taken += 1
        except Unresolved:
            return records[taken:]
        return ()

    def _add_columns(self, records: Sequence[Record], columns: Columns, resolve: Resolve) -> bool:
        """Take in records without a flaw, or nothing when one names a customer that isn't known."""
        counts, events = columns.counts, columns.events
        customers = [event.external_customer_id for event in events]
        if None in customers:
            owners = _each([record.account for record in records], counts)
            customers = [
                customer or resolve(account, event.customer_id or "")
                for customer, account, event in zip(customers, owners, events, strict=True)
            ]
            if None in customers:
                return False
        logs = [self._enter(record.log, record.offset) for record in records]
        starts = np.cumsum(counts) - counts
        indexes = np.arange(len(events)) - np.repeat(starts, counts)
        self._extend(records, logs, columns, cast(list[str], customers), indexes)
        return True

    def _add_one(self, record: Record, resolve: Resolve) -> None:
        """Take in, in order, the good events of a record, and bury the others."""
        value = record.value
        try:
            if isinstance(value, Unread):
                raise Unreadable(value.code, value.detail)
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
            log = self._enter(record.log, record.offset)
            self._bury(record, log, 0, error.flaw.code, error.flaw.detail, value or b"")
            return
        named = [event and _customer(record.account, event, resolve) for event in reading.events]
        log = self._enter(record.log, record.offset)
        flaws = {flaw.index: flaw for flaw in reading.flaws}
        elements = texts(value)
        good: list[int] = []
        customers: list[str] = []
        for index, customer in enumerate(named):
            if isinstance(customer, str):
                good.append(index)
                customers.append(customer)
            else:
                flaw = customer or flaws[index]
                self._bury(record, log, index, flaw.code, flaw.detail, elements[index], len(good))
        if good:
            events = [cast(Event, reading.events[index]) for index in good]
            properties = [bytes(event.properties) for event in events]
            lengths = np.fromiter(map(len, properties), np.int64, len(good))
            columns = Columns(
                [len(good)], events, reading.times[good], b"".join(properties), lengths
            )
            self._extend([record], [log], columns, customers, np.array(good))

    def note_gap(self, first: Record, gap: str) -> None:
        """Set aside, as a dead letter without bytes, that the log before `first` was lost.

        To be called after `first` itself was added: the letter stands behind its events.
        """
        code, _, detail = gap.partition(": ")
        log = self._enter(first.log, first.offset)
        place = position(first.offset, INDEX_MASK)
        self._dead.append(
            (
                self._events,
                DeadLetter(first.account, log, place, first.received_at, code, detail, b""),
            )
        )

    def _enter(self, log: Log, offset: int) -> int:
        self.stops[log] = position(offset + 1)
        return self.logs.setdefault(log, len(self.logs))

    def _bury(
        self,
        record: Record,
        log: int,
        index: int,
        code: str,
        detail: str,
        content: bytes,
        behind: int = 0,
    ) -> None:
        """Set one event or record aside, behind so many events that are about to be taken in."""
        if len(content) > DEAD_LETTER_BYTES_MAX:
            detail += f" (cut from {len(content)} bytes)"
            content = content[:DEAD_LETTER_BYTES_MAX]
        place = position(record.offset, index)
        letter = DeadLetter(
            record.account, log, place, record.received_at, code, detail, bytes(content)
        )
        self._dead.append((self._events + behind, letter))
        self.weight += ROW_BYTES + len(content)

    def _extend(
        self,
        records: Sequence[Record],
        logs: list[int],
        columns: Columns,
        customers: list[str],
        indexes: npt.NDArray[np.int64],
    ) -> None:
        """Append records' events: one comprehension a column."""
        counts, events = columns.counts, columns.events
        accounts = [record.account for record in records]
        ids = [event.event_id for event in events]
        if None in ids:
            owners = _each(records, counts)
            ids = [
                event_id or _made_id(owner, index)
                for event_id, owner, index in zip(ids, owners, indexes.tolist(), strict=True)
            ]
        given = cast(list[str], ids)
        self._events += len(events)
        self._digests.append(_digests(accounts, counts, given))
        self._contents += [crc32(event.properties) for event in events]
        self.weight += self._names.extend([event.event_name for event in events])
        self.weight += self._customers.extend(customers)
        self.weight += self._ids.extend(given)
        self._times.append(columns.times)
        self.weight += self._sources.extend([event.source or "" for event in events])
        self._properties.append(columns.properties)
        self._lengths.append(columns.lengths)
        places = np.array([position(record.offset) for record in records], np.uint64)
        self._positions.append(np.repeat(places, counts) + indexes.astype(np.uint64))
        self._counts += counts
        self._accounts += accounts
        self._ingested += [record.received_at for record in records]
        self._homes += logs
        self.weight += ROW_BYTES * len(events) + len(columns.properties)

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
            self._resent[self._events] = event
            self._events += 1
            self._digests.append(_digests([event.account], [1], [event.event_id]))
            self._contents.append(crc32(text))
            self.weight += self._names.extend([event.event_name])
            self.weight += self._customers.extend([event.external_customer_id])
            self.weight += self._ids.extend([event.event_id])
            self._times.append(np.array([event.timestamp if event.timestamp_given else ABSENT]))
            self.weight += self._sources.extend([event.source])
            self._properties.append(text)
            self._lengths.append(np.array([len(text)]))
            self._positions.append(np.array([position(record.offset, index)], np.uint64))
            self._counts.append(1)
            self._accounts.append(event.account)
            self._ingested.append(event.ingested_at)
            self._homes.append(log)
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
        weights = np.sum([_lengths(batch.column(name)) for name in TEXTS], axis=0) + ROW_BYTES
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
                events = ipc(_taken(batch, chosen))
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
        times = _joined(self._times, np.int64)
        given = times != ABSENT
        ingested = self._repeated(self._ingested, np.int64)
        accounts = encoded(self._accounts)
        customers = self._customers.column()
        names = self._names.column().dictionary_encode()
        sources = self._sources.column().dictionary_encode()
        # What the client sent, before defaults: claims.sql computes the same.
        contents = np.array(self._contents, dtype=np.uint32)
        contents ^= _crc_each(customers.dictionary_encode())
        contents ^= _crc_each(names) * np.uint32(3) ^ _crc_each(sources) * np.uint32(5)
        contents ^= np.where(given, times, 0).astype(np.uint32)  # the low 32 bits
        columns: list[Any] = [
            pa.Array.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, pa.py_buffer(keys)]),
            pa.array(contents),
            pa.DictionaryArray.from_arrays(
                self._repeated(accounts.indices.to_numpy(), np.int32), accounts.dictionary
            ),
            names,
            customers,
            self._ids.column(),
            pa.array(np.where(given, times, ingested)),
            pa.array(given),
            pa.array(ingested),
            sources,
            self._property_texts(),
            pa.array(self._repeated(self._homes, np.uint16)),
            pa.array(_joined(self._positions, np.uint64)),
        ]
        schema = COLUMNS
        if self._resent:
            columns += self._resent_columns(columns[-2], columns[-1])
            schema = pa.schema([*COLUMNS, *RESENT_COLUMNS])
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _repeated(self, values: Any, kind: Any) -> npt.NDArray[Any]:
        """A column from one value a run."""
        return np.repeat(np.asarray(values, dtype=kind), self._counts)

    def _property_texts(self) -> Any:
        """The column of properties, which may hold any byte."""
        lengths = _joined(self._lengths, np.int64)
        offsets = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(self._properties))]
        return pa.Array.from_buffers(pa.binary(), len(lengths), buffers)

    def _resent_columns(self, logs: Any, positions: Any) -> list[Any]:
        """Home and superseded row of each event; an ordinary event is at home where it is read."""
        home_logs, home_positions = logs.to_numpy().copy(), positions.to_numpy().copy()
        epochs = np.zeros(self._events, dtype=np.uint16)
        offsets = np.full(self._events, -1, dtype=np.int64)
        indexes = np.zeros(self._events, dtype=np.uint32)
        for row, event in self._resent.items():
            home_logs[row] = self.logs[event.home]
            home_positions[row] = event.home_position
            epochs[row], offsets[row], indexes[row] = event.superseded
        return [pa.array(x) for x in (home_logs, home_positions, epochs, offsets, indexes)]


def _lengths(column: Any) -> npt.NDArray[np.int64]:
    """The bytes of each text of a column."""
    if isinstance(column, pa.DictionaryArray):
        each: npt.NDArray[np.int64] = _lengths(column.dictionary)[column.indices.to_numpy()]
        return each
    lengths: npt.NDArray[np.int64] = pc.binary_length(column).to_numpy().astype(np.int64)
    return lengths


def _taken(batch: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """Some rows of a batch, with those texts in its dictionaries alone that they have."""
    taken = batch.take(pa.array(rows))
    columns = [
        _without_unused(column) if isinstance(column, pa.DictionaryArray) else column
        for column in taken.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _without_unused(column: pa.DictionaryArray) -> pa.DictionaryArray:
    codes = column.indices.to_numpy()
    used = np.zeros(len(column.dictionary), dtype=bool)
    used[codes] = True
    if used.all():
        return column
    numbers = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return pa.DictionaryArray.from_arrays(
        pa.array(numbers[codes]), column.dictionary.filter(pa.array(used))
    )


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


STRETCH_BYTES = 1 << 17
"""So much is read at once: enough that a record costs little, so little that a bad one does too."""


def _stretches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Records in order, in stretches of which each is promising as a whole, or a single record."""
    start = weight = 0
    for number, record in enumerate(records):
        size = len(record.value or b"")
        if not _promising(record):
            if number > start:
                yield records[start:number]
            yield records[number : number + 1]
            start, weight = number + 1, 0
        elif number > start and weight + size > STRETCH_BYTES:
            yield records[start:number]
            start, weight = number, size
        else:
            weight += size
    if start < len(records):
        yield records[start:]


def _customer(account: str, event: Event, resolve: Resolve) -> str | Flaw:
    """Whose event it is, or that there is no such customer."""
    customer = event.external_customer_id or resolve(account, event.customer_id or "")
    detail = f"no customer has the id {event.customer_id!r}"
    return customer or Flaw(None, "customer_id", "unknown_customer_id", detail)


def _promising(record: Record) -> bool:
    """Whether the record as a whole may be read."""
    return bool(record.account and record.value) and len(record.value or b"") <= BODY_BYTES_MAX


def _each(values: Sequence[T], counts: list[int]) -> Iterator[T]:
    """Each value so many times."""
    return chain.from_iterable(map(repeat, values, counts))


def _digests(accounts: list[str], counts: list[int], ids: list[str]) -> bytes:
    """The SHA-256 of account, NUL and event_id of each, one after the other."""
    fresh = {account: sha256(f"{account}\0".encode()).copy for account in set(accounts)}
    makers = _each([fresh[account] for account in accounts], counts)
    digests = []
    for make, event_id in zip(makers, ids, strict=True):
        digest = make()
        digest.update(event_id.encode())
        digests.append(digest.digest())
    return b"".join(digests)


def _joined(pieces: list[npt.NDArray[Any]], kind: Any) -> npt.NDArray[Any]:
    return np.concatenate(pieces, dtype=kind) if pieces else np.zeros(0, kind)


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
