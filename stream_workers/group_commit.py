"""Group commit: blocks that partitions have ready at the same time are stored by one INSERT.

An INSERT of three rows costs the engine nearly what one of a thousand does, and large ones make
large parts, which are merged less often. One INSERT is one part: its blocks are in together, or
none is. A block that nobody else is about to follow waits for nothing.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from clickhouse.client import Inserts
from schemas.block import ipc, joined

ENOUGH_ROWS = 64_000
"""So many rows wait for no others. It is what the packer sends at once when it is busy: the larger
the parts, the less often each row is merged (docs/decisions/0030)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a partition has to insert: a block's rows, and the mark of this one attempt at it.

    mark  Names partition, block and owner. No two attempts have the same: the engine notes tokens
          before parts, and one without a part, of an attempt that died in between, would swallow
          the next.
    """

    rows: pa.RecordBatch
    mark: str


class GroupCommit:
    """The inserts of a worker's partitions. For one event loop."""

    def __init__(self, inserts: Inserts) -> None:
        self._inserts = inserts
        self._coming = 0
        self._waiting: list[tuple[Piece, asyncio.Future[None]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Rows are being made that will be inserted before this ends: worth waiting for."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._send_what_waits()

    def insert(self, piece: Piece) -> asyncio.Future[None]:
        """Insert a piece, with others if there are any; done once its rows and states are in.

        The future raises InsertFailed: then it isn't known of any of them whether they are.
        """
        inserted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((piece, inserted))
        self._send_what_waits()
        return inserted

    def _send_what_waits(self) -> None:
        rows = sum(piece.rows.num_rows for piece, _ in self._waiting)
        if not self._waiting or (self._coming and rows < ENOUGH_ROWS):
            return
        waiting, self._waiting = self._waiting, []
        task = asyncio.create_task(self._send(waiting))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, waiting: Sequence[tuple[Piece, "asyncio.Future[None]"]]) -> None:
        pieces = [piece for piece, _ in waiting]
        name = "-".join(["tallylog", *(piece.mark for piece in pieces)])
        try:
            stream = ipc(joined([piece.rows for piece in pieces]), compression=None)
            await self._inserts.insert("events", stream, token=name, query_id=name)
        except BaseException as error:
            for _, inserted in waiting:
                if not inserted.done():
                    inserted.set_exception(error)
            return
        for _, inserted in waiting:
            if not inserted.done():
                inserted.set_result(None)
