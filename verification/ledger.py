"""The ledger: each block of a partition is stored, once and whole, and nothing is left out."""

import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from clickhouse_connect.driver import Client

from clickhouse.queries import query
from schemas.balance import Balance
from schemas.position import SLOTS_PER_EPOCH, Log, index_of, offset_of, slot_of
from stream_workers.coverage import from_text
from stream_workers.store import Store
from verification.states import reached

ROWS_MAX = 100
MENDED_S = 6.0
"""In this time a counter has mended what a failed insert left in `events` alone."""
INSERTED_S = 60.0
POLL_S = 0.1
ROWS_AMISS = ("blocks_missing", "rows_differ", "states_ahead")
"""Flaws of the rows themselves: what was made of them may be what is right."""
BEHIND = "states_behind"


class Flaw(NamedTuple):
    """Something that the ledger of a block partition shows.

    kind  `blocks_missing`, `block_twice`, `rows_differ`, `source_gap`; `states_behind` where the
          states lack the last blocks, `states_ahead` where they have blocks that aren't stored.
    """

    kind: str
    block_epoch: int
    block_partition: int
    detail: str

    @property
    def slot(self) -> int:
        """Which block partition, as `owners` has it."""
        return slot_of(self.block_epoch, self.block_partition)


class Extent(NamedTuple):
    """From where to where a partition's ledger goes, and how many blocks and markers it has."""

    epoch: int
    partition: int
    first: int
    last: int
    blocks: int
    markers: int

    @property
    def slot(self) -> int:
        """Which block partition, as `owners` has it."""
        return slot_of(self.epoch, self.partition)


def flaws(client: Client) -> list[Flaw]:
    """Everything that is wrong with the ledger.

    Raises ClickHouseError, and TimeoutError when inserts are under way for INSERTED_S.
    """
    return _flaws(client, count_rows=True, patience_s=INSERTED_S)


def flaws_of_markers(client: Client) -> list[Flaw]:
    """What is wrong, as far as markers tell: no other row is read.

    Raises ClickHouseError, and TimeoutError when inserts are under way for MENDED_S.
    """
    return _flaws(client, count_rows=False, patience_s=MENDED_S)


def _flaws(client: Client, *, count_rows: bool, patience_s: float) -> list[Flaw]:
    states = reached(client)
    extents = [Extent._make(row) for row in client.query(query("verify_ledger")).result_rows]
    found: list[Flaw] = []
    for extent in extents:
        covered, balance = _last_marker(client, extent)
        told = [*_offsets(client, extent), *_gaps(covered)]
        if count_rows:
            told += _rows(client, extent, Balance.from_text(balance))
        found += [Flaw(kind, extent.epoch, extent.partition, detail) for kind, detail in told]
    ends = {extent.slot: extent.last + 1 for extent in extents}
    found += [_ahead(slot, states[slot], ends.get(slot, 0)) for slot in _less(ends, states)]
    lagging = _lagging(client, ends, patience_s)
    found += [_behind(slot, before, ends[slot]) for slot, before in lagging.items()]
    return found


def _last_marker(client: Client, extent: Extent) -> tuple[str, str]:
    """What a partition covers of the source logs, and the balance of its rows."""
    parameters = {
        "epochs": [extent.epoch],
        "partitions": [extent.partition],
        "offsets": [extent.last],
    }
    *_, covered, balance = client.query(query("markers_at"), parameters).result_rows[0]
    return covered, balance


def _offsets(client: Client, extent: Extent) -> Iterator[tuple[str, str]]:
    epoch, partition, first, last, blocks, markers = extent
    if blocks != last - first + 1:
        rows = client.query(
            query("verify_holes"),
            {"epoch": epoch, "partition": partition, "rows_max": ROWS_MAX},
        ).result_rows
        for after, before in rows:
            yield "blocks_missing", f"blocks {after + 1} to {before - 1} are not stored"
    if markers != blocks:
        yield "block_twice", f"{markers} markers for {blocks} blocks"


def _rows(client: Client, extent: Extent, balance: Balance | None) -> Iterator[tuple[str, str]]:
    """A partition whose first blocks had no balance yet begins with what was there then."""
    if balance is None:
        return
    last = extent.last
    parameters = {"epoch": extent.epoch, "partition": extent.partition, "upto": last}
    stored = int(client.query(query("verify_count"), parameters).result_rows[0][0])
    if stored == balance.rows:
        return
    yield "rows_differ", f"{stored} rows up to block {last}; its marker says {balance.rows}"
    rows = client.query(query("verify_blocks"), {**parameters, "rows_max": ROWS_MAX}).result_rows
    for offset, held, due in rows:
        yield "rows_differ", f"block {offset} has {held} rows; its marker says {due}"


def _gaps(covered: str) -> Iterator[tuple[str, str]]:
    for log, spans in from_text(covered).items():
        for (_, stop), (start, _) in pairwise(spans):
            yield "source_gap", f"{_named(log)}: nothing is taken from {_at(stop)} to {_at(start)}"


def _lagging(client: Client, ends: Mapping[int, int], patience_s: float) -> dict[int, int]:
    """The partitions whose states don't reach these ends for good, and how far they reach.

    An INSERT comes into `events` first. So it is waited for those under way, and then for as long
    as a counter needs to mend what one that failed has left.
    """
    mended = time.monotonic() + MENDED_S
    patience = time.monotonic() + patience_s
    behind = dict.fromkeys(ends, 0)
    while True:
        inserting = any(_is_inserting(client, slot) for slot in behind)  # first: then it is in
        states = reached(client)
        behind = {slot: states.get(slot, 0) for slot in _less(states, ends)}
        if not behind or (time.monotonic() >= mended and not inserting):
            return behind
        if time.monotonic() >= patience:
            raise TimeoutError(f"inserts have been under way for {patience_s:g} s")
        time.sleep(POLL_S)


def _is_inserting(client: Client, slot: int) -> bool:
    epoch, partition = divmod(slot, SLOTS_PER_EPOCH)
    mark = Store(client, epoch).mark(partition)
    return bool(client.query(query("inserts_running"), {"mark": mark}).result_rows[0][0])


def _less(some: Mapping[int, int], others: Mapping[int, int]) -> list[int]:
    """The partitions where `some` are before `others`."""
    return sorted(slot for slot, end in others.items() if some.get(slot, 0) < end)


def _behind(slot: int, before: int, end: int) -> Flaw:
    detail = f"the states lack blocks {before} to {end - 1}, which are stored"
    return Flaw(BEHIND, *divmod(slot, SLOTS_PER_EPOCH), detail)


def _ahead(slot: int, before: int, end: int) -> Flaw:
    detail = f"the states have blocks {end} to {before - 1}, which are not stored"
    return Flaw("states_ahead", *divmod(slot, SLOTS_PER_EPOCH), detail)


def _named(log: Log) -> str:
    return f"{log.topic}/{log.partition}" + (f" (epoch {log.epoch})" if log.epoch else "")


def _at(place: int) -> str:
    return f"offset {offset_of(place)}, event {index_of(place)}"
