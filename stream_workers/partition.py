"""One block partition while this worker owns it: fold, insert, and know what is in."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import count as attempts
from typing import TypeVar

import numpy as np
import pyarrow as pa
from prometheus_client import Histogram

from catalog.database import CatalogUnavailable
from catalog.follower import Follower
from catalog.snapshot import Snapshot
from clickhouse.client import InsertFailed
from schemas.balance import NOTHING
from schemas.block import COLUMNS, VERSION, Block, DeadLetter, UnreadableBlock, decode, ipc
from schemas.failpoint import failpoint
from schemas.position import Log, position
from schemas.topics import block_topic
from stream_workers.claim_runs import Run, look_up
from stream_workers.claim_store import ClaimStore
from stream_workers.claims import Claims, Keys, Table, later, no_claims
from stream_workers.coverage import Coverage
from stream_workers.dedupe import Place
from stream_workers.folding import Folded, fold
from stream_workers.group_commit import GroupCommit, Piece
from stream_workers.ingest_delay import INGEST_DELAY
from stream_workers.monitor import ROWS
from stream_workers.refill import Refill
from stream_workers.settings import WorkerSettings
from stream_workers.store import NO_ANSWER, NotOwner, Progress, Store

VIOLATED_CONSTRAINT = 469
BLOCK_ROWS = Histogram("counter_block_rows", "Rows of a block", buckets=ROWS)
RETRY_S = (0.1, 0.5, 1.0, 2.0, 5.0)
log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Parts:
    """What every partition of a worker shares.

    core     The one thread that folds: several would only fight for the interpreter's lock. While
             it folds for one partition, the inserts of the others are under way. Nothing else
             touches open claims.
    refills  The one thread that reads lost claims back, of one partition after the other.
    merges   The one thread that merges what claims are on disk.
    """

    settings: WorkerSettings
    store: Store
    commits: GroupCommit
    follower: Follower
    core: Executor
    refills: Executor
    merges: Executor


class Partition:
    """The owner's view of one block partition.

    `next_offset` is the block to count next. `prepare` takes the partition over and finds it out;
    `open` opens its claims; `count` counts one block and is called in offset order, one call at a
    time.
    """

    def __init__(self, number: int, parts: Parts) -> None:
        self.number = number
        self.next_offset = 0
        self._parts = parts
        self._coverage: Coverage = {}
        self._balance = NOTHING
        self._counted_until = 0
        self._owner = 0
        self._claims: ClaimStore | None = None
        self._refill: Refill | None = None

    def prepare(self) -> int:
        """Take the partition over: fence off the last owner, mend what it left half done.

        Returns the offset to count next. Synchronous: call it from a thread.
        """
        store = self._parts.store
        self._owner = store.acquire(self.number)
        failpoint("counter.owned")
        progress = store.mend(self.number, self._owner)
        self._coverage = progress.coverage
        self._balance = progress.balance or store.opening_balance(self.number)
        self._counted_until = progress.time
        self.next_offset = progress.offset + 1
        return self.next_offset

    def open(self) -> None:
        """Open the claims, and start to read back those that this disk lacks. Synchronous."""
        settings, store = self._parts.settings, self._parts.store
        folder = settings.claims / f"{settings.block_epoch}-{self.number}"
        self._claims = ClaimStore(
            folder,
            identity=store.identity,
            horizon_ms=settings.horizon_ms,
            background=self._parts.merges,
        )
        upto = self.next_offset - 1
        if self._claims.reached > upto:  # the store came back from an older copy of itself
            log.warning("block partition %d: claims are ahead of the store", self.number)
            self._claims.clear()
        if self._claims.reached < upto:
            since = self._counted_until - settings.horizon_ms  # by the log's time: it may be behind
            self._refill = Refill(self.number, self._claims, upto, since, store, self._parts.core)
            self._refill.start(self._parts.refills)

    async def count(self, offset: int, block_time: int, value: bytes) -> Counter[str]:
        """Count the block at `offset`, appended at `block_time` (ms): rows by verdict.

        Returns once every row and every state is stored. Raises NotOwner.
        """
        settings = self._parts.settings
        place = Place(settings.block_epoch, self.number, offset, block_time)
        block = read_block(value, place)
        catalog = await self._catalog_at(block.catalog_version)
        stored = await self._stored_claims(block, place)
        failpoint("counter.read")
        loop, core = asyncio.get_running_loop(), self._parts.core
        with self._parts.commits.coming():
            folded = await loop.run_in_executor(core, self._fold, block, place, catalog, stored)
            failpoint("counter.folded")
            inserted = self._insert(folded.rows, offset)
        await self._until_in(inserted, folded.rows, offset)
        failpoint("counter.inserted")
        INGEST_DELAY.observe_all((time.time() * 1000 - folded.received) / 1000)
        BLOCK_ROWS.observe(folded.rows.num_rows)
        await loop.run_in_executor(core, self._claim, place, folded)
        failpoint("counter.claimed")
        self._coverage, self._balance = folded.coverage, folded.balance
        self.next_offset = offset + 1
        return folded.tally

    async def _stored_claims(self, block: Block, place: Place) -> Claims:
        """The claims of a block's ids that this disk may lack: none when nothing is read back.

        Asks until the store answers: without them nothing can be decided.
        """
        refill, since = self._refill, place.time - self._parts.settings.horizon_ms
        if refill is None:
            return no_claims()
        if refill.done:
            self._refill = None
            return no_claims()
        return await self._ask(lambda: refill.look_up(block.table(), since))

    def _fold(self, block: Block, place: Place, catalog: Snapshot, stored: Claims) -> Folded:
        claims = self._opened_claims()

        def found(keys: Keys) -> Table:
            on_disk = claims.look_up(keys, place.time)
            if not len(stored):
                return on_disk
            return later(on_disk, look_up([Run.of(stored.latest())], keys))

        return fold(
            self._coverage,
            block,
            place,
            found,
            catalog,
            owner=self._owner,
            horizon_ms=self._parts.settings.horizon_ms,
            balance=self._balance,
        )

    def _claim(self, place: Place, folded: Folded) -> None:
        """Write the claims of a block whose rows are stored; after a crash they are read back."""
        self._opened_claims().write(place.offset, place.time, folded.claims)

    def _opened_claims(self) -> ClaimStore:
        if self._claims is None:
            raise RuntimeError("open() comes before count()")
        return self._claims

    async def _catalog_at(self, version: int) -> Snapshot:
        """The catalog, once it has reached the version that the block was stamped with."""
        follower = self._parts.follower
        if follower.snapshot.version >= version:
            return follower.snapshot
        for attempt in attempts():
            try:
                return await asyncio.to_thread(follower.reach, version)
            except CatalogUnavailable as error:
                log.warning("block partition %d waits for the catalog: %s", self.number, error)
                await _pause(attempt)
        raise AssertionError("unreachable")

    def _insert(self, rows: pa.RecordBatch, offset: int) -> "asyncio.Future[None]":
        """Give the rows of a block to the engine, once."""
        mark = self._parts.store.mark(self.number, f"{offset}-{self._owner}")
        return self._parts.commits.insert(Piece(rows, mark))

    async def _until_in(
        self, inserted: "asyncio.Future[None]", rows: pa.RecordBatch, offset: int
    ) -> None:
        """Return when the rows of a block and their states are in; insert them again if need be."""
        for attempt in attempts():
            try:
                await inserted
                return
            except InsertFailed as error:
                if error.code == VIOLATED_CONSTRAINT:
                    raise NotOwner(f"block partition {self.number}") from error
                log.warning("block %d:%d was not stored: %s", self.number, offset, error)
            await _pause(attempt)
            if await self._landed(offset):
                return
            rows = _owned(rows, self._owner)
            inserted = self._insert(rows, offset)
        raise AssertionError("unreachable")

    async def _landed(self, offset: int) -> bool:
        """Whether a block whose insert failed is in after all, its states mended then.

        Takes a new owner number first: should the failed insert still wait somewhere, it is void.
        An insert in doubt is never sent again before the store has answered.
        """

        def mended() -> Progress:
            store = self._parts.store
            self._owner = store.acquire(self.number, self._owner)
            failpoint("counter.doubted")
            return store.mend(self.number, self._owner)

        reached = (await self._ask(mended)).offset
        if reached > offset:
            raise NotOwner(f"block partition {self.number}: another owner has counted on")
        return reached == offset

    async def _ask(self, question: Callable[[], Answer]) -> Answer:
        """What the store says to a question, put to it in a thread until it answers."""
        for attempt in attempts():
            try:
                return await asyncio.to_thread(question)
            except NO_ANSWER as error:
                log.warning("block partition %d: no word from the store: %s", self.number, error)
                await _pause(attempt)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Let go of the claims on disk. Synchronous."""
        if self._refill is not None:
            self._refill.stop()
            self._refill = None
        if self._claims is not None:
            self._parts.core.submit(self._claims.close).result()
            self._claims = None


def read_block(value: bytes, place: Place) -> Block:
    """A block from the log; what no packer wrote becomes a block of one dead letter."""
    try:
        return decode(value)
    except UnreadableBlock as error:
        topic = Log(block_topic(place.epoch), place.epoch, place.partition)
        letter = DeadLetter(
            "", 0, position(place.offset), place.time, "unreadable_block", str(error), value
        )
        nothing = ipc(pa.RecordBatch.from_pylist([], schema=COLUMNS))
        return Block(VERSION, place.epoch, 0, [topic], [], nothing, [letter])


def _owned(rows: pa.RecordBatch, owner: int) -> pa.RecordBatch:
    """The rows with another owner number."""
    column = rows.schema.get_field_index("owner")
    owners = pa.array(np.full(rows.num_rows, owner, dtype=np.uint64))
    return rows.set_column(column, "owner", owners)


async def _pause(attempt: int) -> None:
    await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
