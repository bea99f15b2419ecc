"""What tests of the workers' cores share: records, a catalog of a few features, a log of blocks."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from schemas.balance import NOTHING, Balance
from schemas.block import Block, decode, encode
from schemas.catalog import Aggregation, Feature, Reset, Status, Window
from schemas.limits import BLOCK_BYTES_MAX
from schemas.position import Log, Point
from schemas.resent import Resent
from stream_workers.claims import CLAIM, NOWHERE, Claim, Claims, Keys, Table, absent, listed
from stream_workers.coverage import Coverage
from stream_workers.dedupe import Place
from stream_workers.folding import Folded, fold
from stream_workers.packing import Pool, Record

NOW = 1_763_700_000_000
HORIZON_MS = 35 * 24 * 3_600_000
BYTES_MAX = BLOCK_BYTES_MAX
SOURCE = Log("gateway-events", 0, 0)
Row = dict[str, Any]


def make_feature(
    aggregation: str = "COUNT",
    field: str | None = None,
    *,
    event_name: str = "calls",
    filters: tuple[tuple[str, frozenset[str]], ...] = (),
    bucket_size: Window | None = None,
    group_by: str | None = None,
    multiplier: Decimal | None = None,
    status: Status = Status.PUBLISHED,
) -> Feature:
    """A feature; its id is its event name with `feat_` before it."""
    return Feature(
        id=f"feat_{event_name}",
        meter_id="meter",
        account="acme",
        event_name=event_name,
        aggregation=Aggregation(aggregation),
        field=field,
        multiplier=multiplier,
        bucket_size=bucket_size,
        group_by=group_by,
        filters=filters,
        reset_usage=Reset.BILLING_PERIOD,
        status=status,
        created_version=1,
        version=1,
    )


@dataclass
class FakeCatalog:
    """Features by event name, each from a version on; customers by external id."""

    features: dict[str, tuple[int, Feature]] = field(default_factory=dict)
    customers: dict[str, str] = field(default_factory=dict)
    version: int = 1

    def feature_at(self, account: str, event_name: str, version: int) -> Feature | None:
        since, feature = self.features.get(event_name, (0, None))
        return feature if version >= since else None

    def customer_status(self, account: str, external_id: str, version: int) -> str:
        return self.customers.get(external_id, "active")


def make_catalog(*features: Feature, since: int = 0) -> FakeCatalog:
    """A catalog with these features from a version on."""
    return FakeCatalog({feature.event_name: (since, feature) for feature in features})


def make_event(event_id: str | None = None, **changed: Any) -> dict[str, Any]:
    """An event as a producer sends it."""
    event = {"event_name": "calls", "external_customer_id": "cust", **changed}
    return event if event_id is None else event | {"event_id": event_id}


def make_record(
    offset: int,
    events: Sequence[dict[str, Any]] | bytes | None,
    *,
    log: Log = SOURCE,
    account: str = "acme",
    received_at: int = NOW,
) -> Record:
    """A record of events, or of any bytes."""
    value = events if isinstance(events, bytes | None) else json.dumps(list(events)).encode()
    return Record(log, offset, account, received_at, value)


def no_customer(account: str, customer_id: str) -> None:
    """A catalog without customers of ours."""


def pool_of(records: Iterable[Record]) -> Pool:
    """A pool with producers' records in it."""
    pool = Pool()
    pool.add(list(records), no_customer)
    return pool


def cut(
    pool: Pool,
    partitions: int = 1,
    starts: dict[tuple[int, Log], int] | None = None,
    *,
    catalog_version: int = 1,
    bytes_max: int = BYTES_MAX,
) -> list[tuple[int, Block]]:
    """The blocks of a pool, as they come out of the log."""
    blocks = pool.cut(
        partitions,
        epoch=0,
        catalog_version=catalog_version,
        starts={} if starts is None else starts,
        bytes_max=bytes_max,
    )
    return [(partition, decode(encode(block))) for partition, block in blocks]


class Remembered(dict[bytes, Claim]):
    """Claims by their keys, in memory."""

    def look_up(self, keys: Keys) -> Table:
        """As a claim store does."""
        nowhere = absent(1)[0]
        found = [self.get(key) for key in keys.texts()]
        rows = [nowhere if one is None else (*one.point, *one[1:]) for one in found]
        return np.array(rows, dtype=CLAIM)

    def keep(self, claims: Claims) -> None:
        """Take in what a block claims."""
        self.update(claims.pairs())


def found_in(table: Table) -> list[Claim | None]:
    """Each claim of a look-up, or None."""
    return [None if one.point.offset == NOWHERE else one for one in listed(table)]


@dataclass
class Counted:
    """One block partition as its counter sees it: what it has folded, and the rows."""

    catalog: FakeCatalog
    partition: int = 0
    coverage: Coverage = field(default_factory=dict)
    balance: Balance = NOTHING
    claims: Remembered = field(default_factory=Remembered)
    next_offset: int = 0
    rows: list[Row] = field(default_factory=list)

    def fold(self, block: Block, time: int | None = None, owner: int = 1) -> Folded:
        """Fold the next block and keep what comes out."""
        place = Place(0, self.partition, self.next_offset, NOW if time is None else time)
        folded = fold(
            self.coverage,
            block,
            place,
            self.claims.look_up,
            self.catalog,
            owner=owner,
            horizon_ms=HORIZON_MS,
            balance=self.balance,
        )
        self.rows += folded.rows.to_pylist()
        self.claims.keep(folded.claims)
        self.coverage, self.balance = folded.coverage, folded.balance
        self.next_offset += 1
        return folded

    def events(self) -> list[Row]:
        """The rows without markers."""
        return [row for row in self.rows if row["verdict"] != "marker"]

    def verdicts(self) -> list[str]:
        """The verdicts of the events, in order."""
        return [row["verdict"] for row in self.events()]


def count_all(
    blocks: Iterable[tuple[int, Block]], catalog: FakeCatalog, partitions: int
) -> list[Counted]:
    """Fold every block of the log, each partition in order."""
    counters = [Counted(catalog, partition) for partition in range(partitions)]
    for partition, block in blocks:
        counters[partition].fold(block)
    return counters


def origin(row: Row) -> tuple[str, int, int, int, int]:
    """Where a row's event stands in the producer's log."""
    return (
        row["log_topic"], row["log_epoch"], row["log_partition"], row["log_offset"],
        row["log_index"],
    )  # fmt: skip


def point(row: Row) -> Point:
    """Where a row stands in the log of blocks."""
    return Point(row["block_epoch"], row["block_offset"], row["block_index"])


def resend(row: Row) -> Resent:
    """A stored row as the sweep writes it."""
    return Resent(
        account=row["account"],
        event_id=row["event_id"],
        event_name=row["event_name"],
        external_customer_id=row["external_customer_id"],
        timestamp=int(row["timestamp"].timestamp() * 1000),
        timestamp_given=row["timestamp_given"],
        ingested_at=int(row["ingested_at"].timestamp() * 1000),
        source=row["source"],
        properties=bytes(row["properties"]).decode(),
        home=Log(row["log_topic"], row["log_epoch"], row["log_partition"]),
        home_position=row["log_offset"] << 20 | row["log_index"],
        superseded=point(row),
    )


def claim(offset: int, index: int = 0, time: int = NOW, content: int = 0) -> Claim:
    """A claim."""
    return Claim(Point(0, offset, index), time, content)


@dataclass
class Packing:
    """One packer from a commit on: reads records, cuts them, sends blocks in order.

    `send` says of each block whether it lands. Once one hasn't, nothing more is committed.
    """

    records: Sequence[Record]
    read: int
    partitions: int
    bytes_max: int
    starts: dict[tuple[int, Log], int] = field(default_factory=dict)
    failed: bool = False

    def flush(self, count: int, lands: Callable[[], bool]) -> Iterator[tuple[int, Block]]:
        """Take in so many records; the blocks of them that land."""
        taken = self.records[self.read : self.read + count]
        self.read += len(taken)
        pool = pool_of(taken)
        for block in cut(pool, self.partitions, self.starts, bytes_max=self.bytes_max):
            if lands():
                yield block
            else:
                self.failed = True
