"""The counter's core: `fold(coverage, block, ...) -> rows, claims, coverage, balance`. Pure.

No clock, no randomness, no I/O: what a block becomes is a function of the log before it, so
whoever folds it again, after a crash or as a zombie, comes to the same rows.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.matching import HOUR, Match, matcher
from schemas.balance import NOTHING, Balance
from schemas.block import Block, DeadLetter, encoded
from schemas.catalog import Aggregation, Feature, Status
from schemas.limits import FUTURE_MS_MAX
from schemas.position import INDEX_BITS, INDEX_MASK, Log, Point, index_of, offset_of
from schemas.verdict import Verdict, Warn
from stream_workers.claims import Claims, Keys, Table, claims_at, put, resent_key
from stream_workers.coverage import Coverage, covers, extended, holds, to_text
from stream_workers.dedupe import Decision, Place, Standing, decide

LookUp = Callable[[Keys], Table]
"""The claim of each key, or one that isn't there; the keys come in their own order."""


class Catalog(Protocol):
    """What matching reads: the catalog as it stood at a version."""

    def feature_at(self, account: str, event_name: str, version: int) -> Feature | None: ...

    def customer_status(self, account: str, external_id: str, version: int) -> str: ...


@dataclass(frozen=True, slots=True)
class Folded:
    """What a block became.

    rows      One Arrow batch for one INSERT: events, dead letters, and the block's marker.
    claims    What to write once the rows are in, in the order of the keys.
    coverage  What the partition holds after this block.
    balance   What it has taken so far, and how many rows that has to be.
    tally     Rows by verdict, for metrics.
    received  When its events were received (ms), for metrics; nothing of a block with re-sent ones.
    """

    rows: pa.RecordBatch
    claims: Claims
    coverage: Coverage
    balance: Balance
    tally: Counter[str]
    received: npt.NDArray[np.int64]


def fold(
    coverage: Coverage,
    block: Block,
    place: Place,
    look_up: LookUp,
    catalog: Catalog,
    *,
    owner: int,
    horizon_ms: int,
    balance: Balance = NOTHING,
) -> Folded:
    """Fold one block: drop what is covered, dedupe, match, and lay out its rows.

    `coverage` and `balance` are what the partition held before it.
    """
    events = block.table()
    total = events.num_rows
    indexes = np.arange(total, dtype=np.uint32)
    kept = _uncovered(coverage, block, events)
    if kept is not None:
        events, indexes = events.filter(pa.array(kept)), indexes[kept]
    letters = [
        (block_index, letter)
        for block_index, letter in enumerate(block.dead_letters, start=total)
        if not holds(coverage.get(block.logs[letter.log], ()), letter.position)
    ]
    taken = _taken(block, events, letters)
    superseded = _superseded(events)
    keys = _claim_keys(events, superseded)
    order = np.argsort(keys.heads)
    found = put(look_up(keys.take(order)), order)
    contents = events.column("content").to_numpy()
    again = (
        None
        if superseded is None
        else np.array([row is not None for row in superseded], dtype=bool)
    )
    decision = decide(keys, contents, indexes, again, found, place, horizon_ms, order)
    by_key = order[decision.standings[order] == Standing.ACCEPTED]
    table = claims_at(place.epoch, place.offset, indexes[by_key], place.time, contents[by_key])
    claims = Claims(keys.take(by_key), table)
    dropped = int(np.count_nonzero(decision.standings == Standing.DROPPED))
    balance = balance.with_block(taken, sum(taken.values()) - dropped + 1)
    if dropped:
        events, indexes, decision = _without_dropped(events, indexes, decision)
    accepted = np.flatnonzero(decision.standings == Standing.ACCEPTED)
    after = extended(coverage, ((block.logs[r.log], r.start, r.stop) for r in block.ranges))
    sheet = _Sheet(events, indexes, block, place, owner)
    sheet.mark_duplicates(decision)
    sheet.match(accepted, catalog)
    rows = sheet.rows(letters, to_text(after), balance.to_text())
    resent = "home_log" in events.schema.names
    received = events.column("ingested_at").to_numpy()[: 0 if resent else None]
    tally = sheet.tally() + Counter(dead_letter=len(letters))
    return Folded(rows, claims, after, balance, tally, received)


def _uncovered(
    coverage: Coverage, block: Block, events: pa.RecordBatch
) -> npt.NDArray[np.bool_] | None:
    """Which events no earlier block brought; None when that is all of them."""
    logs = events.column("log").to_numpy()
    positions = events.column("position").to_numpy()
    kept: npt.NDArray[np.bool_] | None = None
    for number in np.unique(logs).tolist():
        spans = coverage.get(block.logs[number], ())
        of_log = logs == number
        if not spans or positions[of_log].min() >= spans[-1][1]:
            continue
        if kept is None:
            kept = np.ones(len(logs), dtype=bool)
        kept[of_log] = ~covers(spans, positions[of_log])
    return kept


def _taken(
    block: Block, events: pa.RecordBatch, letters: list[tuple[int, DeadLetter]]
) -> dict[Log, int]:
    """How many events and dead letters come from each source log."""
    counts = np.bincount(events.column("log").to_numpy(), minlength=len(block.logs))
    for _, letter in letters:
        counts[letter.log] += 1
    return {block.logs[number]: int(counts[number]) for number in np.flatnonzero(counts)}


def _claim_keys(events: pa.RecordBatch, superseded: list[Point | None] | None) -> Keys:
    """What each event claims: its id, or, when it is re-sent, the row that it supersedes."""
    column = events.column("key")
    keys = Keys.of(column.buffers()[1], column.offset, len(column))
    if superseded is None:
        return keys
    return Keys.of(
        b"".join(
            key if row is None else resent_key(key, row)
            for key, row in zip(keys.texts(), superseded, strict=True)
        )
    )


def _superseded(events: pa.RecordBatch) -> list[Point | None] | None:
    """For each event the row that it supersedes; None when the block holds no re-sent event."""
    if "superseded_offset" not in events.schema.names:
        return None
    columns = (
        events.column(name).to_pylist()
        for name in ("superseded_epoch", "superseded_offset", "superseded_index")
    )
    return [
        Point(epoch, offset, index) if offset >= 0 else None
        for epoch, offset, index in zip(*columns, strict=True)
    ]


def _without_dropped(
    events: pa.RecordBatch, indexes: npt.NDArray[np.uint32], decision: Decision
) -> tuple[pa.RecordBatch, npt.NDArray[np.uint32], Decision]:
    kept = np.flatnonzero(decision.standings != Standing.DROPPED)
    standings, first, differs = decision
    decision = Decision(standings[kept], first[kept], differs[kept])
    return events.take(pa.array(kept)), indexes[kept], decision


class _Sheet:
    """The columns of a block's rows while they are filled in."""

    def __init__(
        self,
        events: pa.RecordBatch,
        indexes: npt.NDArray[np.uint32],
        block: Block,
        place: Place,
        owner: int,
    ) -> None:
        count = events.num_rows
        self.events, self.indexes, self.block, self.place = events, indexes, block, place
        self.owner = owner
        self.verdicts = np.zeros(count, dtype=np.int32)  # codes: numbers in VERDICTS
        self.details = [""] * count
        self.warnings = [""] * count
        self.features = np.zeros(count, dtype=np.int32)  # numbers in feature_ids
        self.feature_ids = {"": 0}
        self.aggregations = np.zeros(count, dtype=np.int32)  # numbers in AGGREGATIONS
        self.texts = [""] * count
        self.groups = [""] * count
        self.values = np.zeros((count, 2), dtype="<i8")
        self.grains = np.full(count, HOUR, dtype=np.uint16)
        self.is_text = np.zeros(count, dtype=bool)
        self.first_epoch = np.zeros(count, dtype=np.uint16)
        self.first_offset = np.zeros(count, dtype=np.uint64)
        self.first_index = np.zeros(count, dtype=np.uint32)

    def mark_duplicates(self, decision: Decision) -> None:
        """Fill in the rows of duplicates: where the first one is, and whether it differed."""
        rows = np.flatnonzero(decision.standings == Standing.DUPLICATE)
        first = decision.first[rows]
        self.verdicts[rows] = CODES[Verdict.DUPLICATE]
        self.first_epoch[rows], self.first_offset[rows] = first["epoch"], first["offset"]
        self.first_index[rows] = first["row"]
        for row in rows[decision.differs[rows]].tolist():
            self.warnings[row] = Warn.CONTENT_DIFFERS

    def match(self, accepted: npt.NDArray[np.int64], catalog: Catalog) -> None:
        """Match the accepted events, one group of (account, event name) after the other."""
        if not len(accepted):
            return
        accounts, names = self.events.column("account"), self.events.column("event_name")
        account_codes = accounts.indices.to_numpy().astype(np.int64)[accepted]
        name_codes = names.indices.to_numpy().astype(np.int64)[accepted]
        account_texts, name_texts = accounts.dictionary.to_pylist(), names.dictionary.to_pylist()
        pairs = account_codes * len(name_texts) + name_codes
        order = np.argsort(pairs, kind="stable")
        bounds = np.flatnonzero(np.diff(pairs[order])) + 1
        properties = self.events.column("properties")
        late = self._out_of_range()
        for group in np.split(order, bounds):
            rows = accepted[group]
            account, name = divmod(int(pairs[group[0]]), len(name_texts))
            feature = catalog.feature_at(
                account_texts[account], name_texts[name], self.block.catalog_version
            )
            if feature is None:
                self._put_all(rows, Match(Verdict.UNKNOWN_EVENT_NAME))
                continue
            self.features[rows] = self.feature_ids.setdefault(feature.id, len(self.feature_ids))
            if feature.status is not Status.PUBLISHED:
                self._put_all(rows, Match(Verdict.FEATURE_ARCHIVED))
                continue
            of_feature = matcher(feature)
            chosen = properties if len(rows) == len(properties) else properties.take(pa.array(rows))
            matches = of_feature.columns(chosen.to_pylist())
            self.aggregations[rows] = AGGREGATIONS.index(feature.aggregation)
            self.grains[rows] = of_feature.grain
            if isinstance(matches, Match):
                self._put_all(rows, matches)
            elif isinstance(matches, list):
                self._put_each(rows, matches)
            else:
                self.values[rows] = matches
            for row in rows[late[rows]].tolist():
                if self.verdicts[row] != CODES[Verdict.FILTERED]:
                    self._refuse_future(row)
            self._warn_of_customers(account_texts[account], rows, catalog)

    def _out_of_range(self) -> npt.NDArray[np.bool_]:
        """Events more than 24 h after their own receipt: only Kafka brings them, HTTP refuses."""
        times = self.events.column("timestamp").to_numpy()
        ahead: npt.NDArray[np.bool_] = (
            times - self.events.column("ingested_at").to_numpy() > FUTURE_MS_MAX
        )
        return ahead

    def _refuse_future(self, row: int) -> None:
        self.verdicts[row] = CODES[Verdict.OUT_OF_RANGE]
        self.details[row] = "timestamp is more than 24 hours after its receipt"
        self.warnings[row] = self.texts[row] = self.groups[row] = ""
        self.values[row] = 0

    def _put_all(self, rows: npt.NDArray[np.int64], match: Match) -> None:
        self.verdicts[rows] = CODES[match.verdict]

    def _put_each(self, rows: npt.NDArray[np.int64], matches: list[Match]) -> None:
        """Copy one match a row; values go in as one array."""
        values = b"".join([match.value for match in matches])
        self.values[rows] = np.frombuffer(values, dtype="<i8").reshape(-1, 2)
        pairs = zip(rows.tolist(), matches, strict=True)
        for row, match in [(row, match) for row, match in pairs if match.special]:
            self.verdicts[row] = CODES[match.verdict]
            self.details[row] = match.detail
            self.warnings[row] = ",".join(match.warnings)
            self.texts[row] = match.text
            self.is_text[row] = match.is_text
            self.groups[row] = match.group

    def _warn_of_customers(
        self, account: str, rows: npt.NDArray[np.int64], catalog: Catalog
    ) -> None:
        version = self.block.catalog_version
        customers = self.events.column("external_customer_id")
        chosen = customers if len(rows) == len(customers) else customers.take(pa.array(rows))
        encoded = chosen.dictionary_encode()
        warnings = [
            _CUSTOMER_WARNINGS.get(catalog.customer_status(account, text, version))
            for text in encoded.dictionary.to_pylist()
        ]
        if not any(warnings):
            return
        for row, code in zip(rows.tolist(), encoded.indices.to_pylist(), strict=True):
            warning = warnings[code]
            if warning and self.verdicts[row] == CODES[Verdict.COUNTED]:
                self.warnings[row] += f",{warning}" if self.warnings[row] else warning

    def tally(self) -> Counter[str]:
        """Events by verdict."""
        counts = np.bincount(self.verdicts, minlength=len(VERDICTS)).tolist()
        return Counter({verdict: n for verdict, n in zip(VERDICTS, counts, strict=True) if n})

    def rows(
        self, letters: list[tuple[int, DeadLetter]], covered: str, balance: str
    ) -> pa.RecordBatch:
        """The rows of the block: its events, its dead letters, and last its marker."""
        tail = [self._dead_letter(index, letter) for index, letter in letters]
        tail.append(self._marker(covered, balance))
        columns = self._event_columns()
        arrays = [
            _with_tail(array, [row.get(name, _ZEROS[name]) for row in tail])
            for name, array in columns.items()
        ]
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def _event_columns(self) -> dict[str, Any]:
        events, place, count = self.events, self.place, self.events.num_rows
        resent = "home_log" in events.schema.names
        home = events.column("home_log" if resent else "log").to_numpy()
        positions = events.column("home_position" if resent else "position").to_numpy()
        logs = self.block.logs
        topic_codes = {topic: code for code, topic in enumerate({log.topic: 0 for log in logs})}
        codes = np.array([topic_codes[log.topic] for log in logs], dtype=np.int32)
        topics = pa.DictionaryArray.from_arrays(
            pa.array(codes[home]), pa.array(list(topic_codes), pa.utf8())
        )
        epochs = np.array([log.epoch for log in logs], dtype=np.uint16)
        partitions = np.array([log.partition for log in logs], dtype=np.uint16)
        value = pa.Array.from_buffers(
            pa.decimal128(38, 18), count, [None, pa.py_buffer(self.values.tobytes())]
        )

        def constant(number: int, kind: Any) -> Any:
            return np.full(count, number, dtype=kind)

        def superseded(name: str, default: int, kind: Any) -> Any:
            return events.column(name).to_numpy() if resent else constant(default, kind)

        return {
            "account": events.column("account"),
            "event_name": events.column("event_name"),
            "external_customer_id": events.column("external_customer_id"),
            "timestamp": events.column("timestamp").view(_MOMENT),
            "event_id": events.column("event_id"),
            "ingested_at": events.column("ingested_at").view(_MOMENT),
            "timestamp_given": events.column("timestamp_given"),
            "source": events.column("source"),
            "properties": events.column("properties"),
            "verdict": _coded(self.verdicts, VERDICTS),
            "detail": pa.array(self.details, pa.utf8()),
            "warnings": encoded(self.warnings),
            "feature_id": _coded(self.features, list(self.feature_ids)),
            "aggregation": _coded(self.aggregations, AGGREGATIONS),
            "value": value,
            "text": pa.array(self.texts, pa.utf8()),
            "is_text": pa.array(self.is_text),
            "group_key": pa.array(self.groups, pa.utf8()),
            "grain": pa.array(self.grains),
            "first_epoch": pa.array(self.first_epoch),
            "first_offset": pa.array(self.first_offset),
            "first_index": pa.array(self.first_index),
            "log_topic": topics,
            "log_epoch": pa.array(epochs[home]),
            "log_partition": pa.array(partitions[home]),
            "log_offset": pa.array(positions >> np.uint64(INDEX_BITS)),
            "log_index": pa.array((positions & np.uint64(INDEX_MASK)).astype(np.uint32)),
            "superseded_epoch": pa.array(superseded("superseded_epoch", 0, np.uint16)),
            "superseded_offset": pa.array(superseded("superseded_offset", -1, np.int64)),
            "superseded_index": pa.array(superseded("superseded_index", 0, np.uint32)),
            "block_epoch": pa.array(constant(place.epoch, np.uint16)),
            "block_partition": pa.array(constant(place.partition, np.uint16)),
            "block_offset": pa.array(constant(place.offset, np.uint64)),
            "block_index": pa.array(self.indexes),
            "block_time": pa.array(constant(place.time, np.int64)).view(_MOMENT),
            "catalog_version": pa.array(constant(self.block.catalog_version, np.uint32)),
            "owner": pa.array(constant(self.owner, np.uint64)),
        }

    def _of_block(self) -> dict[str, Any]:
        """What every row of the block has in common."""
        place = self.place
        return {
            "block_epoch": place.epoch,
            "block_partition": place.partition,
            "block_offset": place.offset,
            "block_time": place.time,
            "catalog_version": self.block.catalog_version,
            "owner": self.owner,
            "grain": HOUR,
            "superseded_offset": -1,
        }

    def _dead_letter(self, index: int, letter: DeadLetter) -> dict[str, Any]:
        log: Log = self.block.logs[letter.log]
        return self._of_block() | {
            "account": letter.account,
            "timestamp": letter.ingested_at,
            "ingested_at": letter.ingested_at,
            "properties": letter.content,
            "verdict": Verdict.DEAD_LETTER,
            "detail": f"{letter.code}: {letter.detail}",
            "log_topic": log.topic,
            "log_epoch": log.epoch,
            "log_partition": log.partition,
            "log_offset": offset_of(letter.position),
            "log_index": index_of(letter.position),
            "block_index": index,
        }

    def _marker(self, covered: str, balance: str) -> dict[str, Any]:
        return self._of_block() | {
            "timestamp": self.place.time,
            "ingested_at": self.place.time,
            "properties": covered.encode(),
            "verdict": Verdict.MARKER,
            "detail": balance,
            "block_index": MARKER_INDEX,
        }


MARKER_INDEX = (1 << 32) - 1
VERDICTS: list[str] = [Verdict.COUNTED, *(v for v in Verdict if v is not Verdict.COUNTED)]
CODES = {verdict: code for code, verdict in enumerate(VERDICTS)}
AGGREGATIONS: list[str] = ["", *Aggregation]
_MOMENT = pa.timestamp("ms", "UTC")
_CUSTOMER_WARNINGS = {"unknown": Warn.UNKNOWN_CUSTOMER, "archived": Warn.CUSTOMER_ARCHIVED}


class _Zeros(dict[str, Any]):
    """The empty value of a column, by its name."""

    def __missing__(self, name: str) -> Any:
        return 0


_ZEROS = _Zeros(
    dict.fromkeys(
        (
            "account", "event_name", "external_customer_id", "event_id", "source", "verdict",
            "detail", "warnings", "feature_id", "aggregation", "text", "group_key", "log_topic",
        ),
        "",
    ),
    properties=b"",
    timestamp_given=False,
    is_text=False,
)  # fmt: skip


def _coded(codes: npt.NDArray[np.int32], texts: list[str]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(texts, pa.utf8()))


def _with_tail(array: Any, tail: list[Any]) -> Any:
    """The column with a few more values at its end."""
    if isinstance(array, pa.DictionaryArray):
        known = {text: code for code, text in enumerate(array.dictionary.to_pylist())}
        codes = [known.setdefault(text, len(known)) for text in tail]
        return pa.DictionaryArray.from_arrays(
            pa.concat_arrays([array.indices, pa.array(codes, pa.int32())]),
            pa.array(list(known), array.dictionary.type),
        )
    return pa.concat_arrays([array, pa.array(tail, array.type)])
