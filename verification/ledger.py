"""The ledger: each block of a partition is stored, once and whole, and nothing is left out."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from clickhouse_connect.driver import Client

from clickhouse.queries import query
from schemas.balance import Balance
from schemas.position import Log, index_of, offset_of
from stream_workers.coverage import from_text

ROWS_MAX = 100


class Flaw(NamedTuple):
    """Something that the ledger of a block partition shows.

    kind  `blocks_missing`, `block_twice`, `rows_differ`, `source_gap`.
    """

    kind: str
    block_epoch: int
    block_partition: int
    detail: str


def flaws(client: Client) -> list[Flaw]:
    """Everything that is wrong with the ledger. Raises ClickHouseError."""
    found: list[Flaw] = []
    for row in client.query(query("verify_ledger")).result_rows:
        epoch, partition, first, last, blocks, markers, covered, balance = row
        told = [
            *_offsets(client, epoch, partition, first, last, blocks, markers),
            *_rows(client, epoch, partition, last, Balance.from_text(balance)),
            *_gaps(covered),
        ]
        found += [Flaw(kind, epoch, partition, detail) for kind, detail in told]
    return found


def _offsets(
    client: Client, epoch: int, partition: int, first: int, last: int, blocks: int, markers: int
) -> Iterator[tuple[str, str]]:
    if blocks != last - first + 1:
        rows = client.query(
            query("verify_holes"),
            {"epoch": epoch, "partition": partition, "rows_max": ROWS_MAX},
        ).result_rows
        for after, before in rows:
            yield "blocks_missing", f"blocks {after + 1} to {before - 1} are not stored"
    if markers != blocks:
        yield "block_twice", f"{markers} markers for {blocks} blocks"


def _rows(
    client: Client, epoch: int, partition: int, last: int, balance: Balance | None
) -> Iterator[tuple[str, str]]:
    """A partition whose first blocks had no balance yet begins with what was there then."""
    if balance is None:
        return
    parameters = {"epoch": epoch, "partition": partition, "upto": last}
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


def _named(log: Log) -> str:
    return f"{log.topic}/{log.partition}" + (f" (epoch {log.epoch})" if log.epoch else "")


def _at(place: int) -> str:
    return f"offset {offset_of(place)}, event {index_of(place)}"
