"""What the counter asks and tells ClickHouse: owner, progress and claims of a partition."""

import logging
import secrets
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.external import ExternalData
from urllib3.exceptions import HTTPError

from clickhouse.queries import query
from clickhouse.views import states_over
from schemas.balance import NOTHING, Balance
from schemas.block import ipc
from schemas.position import slot_of
from stream_workers.claims import KEY_BYTES, Claims, Keys, claims_at, no_claims
from stream_workers.coverage import Coverage, from_text

OWNER_RANDOM_BITS = 20
HOLD_S = 60.0
"""How long a repair keeps counters away, should it die before it says that it is done."""
HOLD = 15 << OWNER_RANDOM_BITS - 4
"""From here on random bits are a repair's: they stay when it is renewed. Its moment is its end."""
RANDOM = (1 << OWNER_RANDOM_BITS) - 1
HELD_POLL_S = 0.2
SETTLE_TIMEOUT_S = 60.0
SETTLE_POLL_S = 0.05
PAGE_ROWS = 1 << 22
"""Every page may read the whole table again, for rows lie by customer: few pages, large ones."""
NO_ANSWER = (ClickHouseError, HTTPError, pa.ArrowException, OSError)
"""What a question raises when the store is away, or its answer breaks off: ask again."""
CLAIMS_RULE = 2
"""What claims are kept under (docs/decisions/0020); those of another rule are read back anew."""
IDS = pa.schema([("account", pa.utf8()), ("event_id", pa.utf8())])
log = logging.getLogger(__name__)


class NotOwner(Exception):
    """Another worker has taken the partition over: the tables refuse our rows."""


class StoreBehind(Exception):
    """Store and log disagree in a way that no retry mends: an operator has to look."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a block partition is counted.

    offset    The last block's (-1: none), and `time` when it was appended (ms).
    coverage  What the partition holds of the source logs.
    balance   How much that is; None where a counter that kept no balance wrote the last marker.
    """

    offset: int
    coverage: Coverage
    time: int = 0
    balance: Balance | None = NOTHING


def _is_held(owner: int) -> bool:
    """Whether an owner number is a repair's that goes on."""
    return owner & RANDOM >= HOLD and _left_s(owner) > 0


def _left_s(held: int) -> float:
    """How long a hold goes on."""
    return (held >> OWNER_RANDOM_BITS) / 1000 - time.time()


def _until(seconds: float) -> int:
    """The moment of an owner number."""
    return int((time.time() + seconds) * 1000) << OWNER_RANDOM_BITS


class Store:
    """One block topic's rows in ClickHouse. Synchronous: call it from a thread."""

    def __init__(self, client: Client, epoch: int) -> None:
        self._client = client
        self._epoch = epoch

    @property
    def identity(self) -> str:
        """Names the database itself, and the rule of claims: those of another are of no use."""
        uuid = self._client.query(
            "SELECT toString(uuid) FROM system.databases WHERE name = currentDatabase()"
        ).result_rows[0][0]
        return f"{uuid}/{self._epoch}/{CLAIMS_RULE}"

    def mark(self, partition: int, what: str = "") -> str:
        """What the query ids of a partition's inserts contain, before `what` they insert."""
        return f"block-{self._epoch}-{partition}-{what}"

    def acquire(self, partition: int, held: int | None = None) -> int:
        """Take a partition over: from here on the tables refuse every earlier owner's rows.

        Waits until no insert of an earlier owner is under way. Returns the new owner number.
        `held` is the number that the caller has: it makes its own earlier inserts void, wherever
        they still wait. Raises NotOwner when somebody else has taken the partition since.
        """
        slot = slot_of(self._epoch, partition)
        last = self._owner_of(slot)
        if held is not None and last != held:
            raise NotOwner(f"block partition {partition} has another owner")
        patience = time.monotonic() + HOLD_S  # clocks of two machines may differ by hours
        while _is_held(last) and time.monotonic() < patience:
            log.warning("block partition %d is being repaired: waiting", partition)
            time.sleep(HELD_POLL_S)
            before, last = last, self._owner_of(slot)
            if last != before:
                patience = time.monotonic() + HOLD_S
        # Random below a moment of its own: what `last` had there would make numbers alike.
        moment = max(int(time.time() * 1000), (last >> OWNER_RANDOM_BITS) + 1)
        owner = moment << OWNER_RANDOM_BITS | secrets.randbelow(HOLD)
        self._set_owner(slot, owner)
        self._settle(partition)
        return owner

    def hold(self, partition: int) -> int:
        """Take a partition over for a repair: for HOLD_S nobody counts it, unless released before.

        Returns the owner number. Waits until no insert is under way. Raises TimeoutError.
        """
        slot = slot_of(self._epoch, partition)
        owner = _until(HOLD_S) | HOLD + secrets.randbelow(RANDOM - HOLD)
        self._set_owner(slot, owner)
        self._settle(partition)
        return owner

    def renew(self, partition: int, held: int) -> int:
        """Hold a partition on, for HOLD_S at most and three quarters of it at least.

        Returns the owner number, whose random bits stay. Raises NotOwner when the time is over, or
        somebody else has taken the partition.
        """
        left = _left_s(held)
        if left >= 0.75 * HOLD_S:
            return held
        slot = slot_of(self._epoch, partition)
        if left <= 0 or self._owner_of(slot) != held:
            raise NotOwner(f"block partition {partition} was held for too long")
        owner = _until(HOLD_S) | held & RANDOM
        self._set_owner(slot, owner)
        return owner

    def release(self, partition: int, held: int) -> None:
        """Let others count a partition again. Raises NotOwner when somebody already could."""
        slot = slot_of(self._epoch, partition)
        if self._owner_of(slot) != held:
            raise NotOwner(f"block partition {partition} has another owner")
        self._set_owner(slot, _until(0))

    def _owner_of(self, slot: int) -> int:
        """The number of a slot's owner; 0: it never had one."""
        rows = self._client.query(
            "SELECT toUInt64(joinGet('owners', 'owner', {slot:UInt32}))", {"slot": slot}
        ).result_rows
        return int(rows[0][0])

    def _set_owner(self, slot: int, owner: int) -> None:
        self._client.command(  # the client's own insert imports pandas: 0.6 s at every start
            "INSERT INTO owners (slot, owner) SELECT {slot:UInt32}, {owner:UInt64}",
            {"slot": slot, "owner": owner},
        )

    def _settle(self, partition: int) -> None:
        """Wait until no insert of the partition is under way. Raises TimeoutError."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while self._is_inserting(partition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"an insert *{self.mark(partition)}* is still running")
            time.sleep(SETTLE_POLL_S)

    def _is_inserting(self, partition: int) -> bool:
        mark = self.mark(partition)
        rows = self._client.query(query("inserts_running"), {"mark": mark}).result_rows
        return bool(rows[0][0])

    def progress(self, partition: int) -> Progress:
        """The partition's last marker."""
        rows = self._last_marker(partition)
        if not rows:
            return Progress(-1, {})
        offset, covered, moment, balance = rows[0]
        return Progress(int(offset), from_text(covered), int(moment), Balance.from_text(balance))

    def opening_balance(self, partition: int) -> Balance:
        """The balance of a partition whose blocks were counted before balances were kept."""
        rows = self._client.query(
            query("rows_of_partition"), {"epoch": self._epoch, "partition": partition}
        ).result_rows
        return Balance({}, int(rows[0][0]))

    def _last_marker(self, partition: int) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = self._client.query(
            query("ledger_of"), {"epoch": self._epoch, "partition": partition}
        ).result_rows
        return rows

    def states_upto(self, partition: int) -> int:
        """Up to which block the states reach."""
        rows = self._client.query(
            query("states_upto"), {"epoch": self._epoch, "partition": partition}
        ).result_rows
        return int(rows[0][0])

    def mend(self, partition: int, owner: int) -> Progress:
        """Bring the states up to the stored events, and say how far the partition is.

        An insert that died can have landed in `events` alone: the view's own SELECT over the
        stored rows fills what is missing, nothing is decided again.
        """
        progress = self.progress(partition)
        upto = self.states_upto(partition)
        if upto < progress.offset:
            log.warning(
                "states of block partition %d reach %d, events %d: filling",
                partition, upto, progress.offset,
            )  # fmt: skip
            self.fill(partition, upto, progress.offset, owner)
        elif upto > progress.offset:
            raise StoreBehind(
                f"block partition {partition}: states reach {upto}, events only {progress.offset}"
            )
        return progress

    def fill(self, partition: int, after: int, upto: int, owner: int) -> None:
        """Run the view's SELECT over the stored rows of some blocks into the states."""
        for offset in self._blocks(partition, after, upto):
            # The next owner has to wait for it, as for any insert: it would fill the same.
            query_id = self.mark(partition, f"fill-{offset}-{owner}")
            self._fill_block(partition, offset, owner, query_id)

    def _fill_block(self, partition: int, offset: int, owner: int, query_id: str) -> None:
        stored = (  # integers of ours
            f"SELECT * REPLACE ({owner:d} AS owner) FROM events"  # noqa: S608
            f" WHERE block_epoch = {self._epoch:d} AND block_partition = {partition:d}"
            f" AND block_offset = {offset:d}"
        )
        self._client.command(
            f"INSERT INTO usage_states {states_over(self._client, stored)}",
            settings={
                "max_threads": 1,
                "min_insert_block_size_rows": 10_000_000,
                "query_id": query_id,
            },
        )

    def _blocks(self, partition: int, after: int, upto: int) -> list[int]:
        rows = self._client.query(
            "SELECT DISTINCT block_offset FROM ledger WHERE block_epoch = {epoch:UInt16}"
            " AND block_partition = {partition:UInt16} AND block_offset > {after:Int64}"
            " AND block_offset <= {upto:Int64} ORDER BY block_offset",
            {"epoch": self._epoch, "partition": partition, "after": after, "upto": upto},
        ).result_rows
        return [int(row[0]) for row in rows]

    def page_end(self, partition: int, after: int, upto: int, since: int) -> int:
        """The offset up to which to read claims at once: at most `upto`."""
        rows = self._client.query(
            query("claims_page_end"),
            {**self._span(partition, after, upto, since), "rows": PAGE_ROWS},
            settings={"max_threads": 1},
        ).result_rows
        return int(rows[0][0]) if rows else upto

    def claims(
        self, partition: int, after: int, upto: int, since: int
    ) -> Generator[Claims, None, None]:
        """Yield, in chunks, the claims of the events stored since (ms).

        In any order; the later position of a key counts. One thread of the server's works on it.
        """
        stream = self._client.raw_stream(
            query("claims"),
            self._span(partition, after, upto, since),
            settings={"max_threads": 1},
            fmt="ArrowStream",
        )
        with stream, pa.ipc.open_stream(stream) as reader:
            for batch in reader:
                yield _claims_in(batch)

    def claims_of(
        self, ids: pa.RecordBatch, partition: int, after: int, upto: int, since: int
    ) -> Claims:
        """The claims of some ids, as `claims` would have them.

        `ids` has the columns `account` and `event_id`. More keys may come than were asked for.
        """
        table = ExternalData(
            file_name="ids",
            fmt="ArrowStream",
            structure="account String, event_id String",
            data=ipc(ids.select(IDS.names).cast(IDS), compression=None),
        )
        answer = self._client.raw_query(
            query("claims_of"),
            self._span(partition, after, upto, since),
            fmt="ArrowStream",
            external_data=table,
        )
        with pa.ipc.open_stream(answer) as reader:
            return Claims.joined([no_claims(), *map(_claims_in, reader)])

    def _span(self, partition: int, after: int, upto: int, since: int) -> dict[str, int]:
        return {
            "epoch": self._epoch, "partition": partition, "after": after, "upto": upto,
            "since": since,
        }  # fmt: skip


def _claims_in(batch: pa.RecordBatch) -> Claims:
    """The claim of each row."""
    names = ("block_epoch", "block_offset", "block_index", "block_time_ms", "content")
    epochs, offsets, rows, times, contents = (batch.column(name).to_numpy() for name in names)
    column = batch.column("key").cast(pa.binary(KEY_BYTES))
    keys = Keys.of(column.buffers()[1], column.offset, len(column))
    return Claims(keys, claims_at(epochs, offsets, rows, times, contents))
