"""Reading claims back that this disk lacks, while their partition counts."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from prometheus_client import Counter, Gauge

from stream_workers.claim_store import ClaimStore
from stream_workers.claims import Claims, no_claims
from stream_workers.store import NO_ANSWER, Store

SLICE = 16384
"""Claims that are added at once: a block waits some ms for them."""
RETRY_S = 2.0
log = logging.getLogger(__name__)

REFILLING = Gauge("counter_refilling_partitions", "Partitions whose claims are being read back")
READ_BACK = Counter("counter_claims_read_back_total", "Claims read back from ClickHouse")


@dataclass
class Refill:
    """Reads the claims of a partition's blocks up to `upto` back, page by page, in a thread.

    The claims themselves are touched on `core` alone, a slice at a time between the blocks that
    are counted meanwhile. Their `reached` moves with each page, so a process that dies goes on
    from there. Until it has come to `upto`, `look_up` knows what this disk lacks.

    since  Block time (ms) of the oldest claim that still counts.
    """

    partition: int
    claims: ClaimStore
    upto: int
    since: int
    store: Store
    core: Executor

    def start(self, thread: Executor) -> None:
        """Read in this thread, after what it has to do already."""
        REFILLING.inc()
        self._stopped = threading.Event()
        self._reading = thread.submit(self._run)
        self._reading.add_done_callback(lambda _: REFILLING.dec())

    def stop(self) -> None:
        """Touch the claims no more: what is given to `core` from now on has them for itself."""
        self._stopped.set()
        self._reading.cancel()

    @property
    def done(self) -> bool:
        """Whether all claims are read back. Raises the fault that ended it before."""
        return self._reading.done() and self._reading.result() is None

    def look_up(self, ids: pa.RecordBatch, since: int) -> Claims:
        """The claims of ids (`account`, `event_id`) of which this disk may lack the latest.

        Who looks on the disk afterwards, and takes the later of the two, has the claim: what is
        read back in between is on both. Raises one of NO_ANSWER.
        """
        after = self.claims.reached
        if after >= self.upto:
            return no_claims()
        return self.store.claims_of(ids, self.partition, after, self.upto, since)

    def _run(self) -> None:
        started, count = time.monotonic(), 0
        log.info(
            "block partition %d: reading back the claims of blocks %d to %d",
            self.partition, self.claims.reached + 1, self.upto,
        )  # fmt: skip
        try:
            while self.claims.reached < self.upto:
                try:
                    count += self._page()
                except NO_ANSWER as error:
                    log.warning("block partition %d: no claims yet: %s", self.partition, error)
                    if self._stopped.wait(RETRY_S):
                        raise _Stopped from error
        except _Stopped:
            log.info("block partition %d: reading claims back was left off", self.partition)
            return
        log.info(
            "block partition %d: %d claims read back in %.1f s",
            self.partition, count, time.monotonic() - started,
        )  # fmt: skip

    def _page(self) -> int:
        """Read one page, and say that it is in: how many claims it had."""
        span = self.partition, self.claims.reached
        end = self.store.page_end(*span, self.upto, self.since)
        count = 0
        with closing(self.store.claims(*span, end, self.since)) as chunks:
            for chunk in chunks:
                for rows in np.split(np.arange(len(chunk)), range(SLICE, len(chunk), SLICE)):
                    self._on_core(self.claims.add, chunk.take(rows))
                count += len(chunk)
                READ_BACK.inc(len(chunk))
        self._on_core(self.claims.complete, end)
        return count

    def _on_core(self, work: Callable[..., None], *args: object) -> None:
        def unless_stopped() -> None:
            if self._stopped.is_set():
                raise _Stopped
            try:
                work(*args)
            except OSError as error:  # no silence of the store's: not to be tried again
                raise ClaimsFailed(str(error)) from error

        self.core.submit(unless_stopped).result()


class ClaimsFailed(Exception):
    """The claims on disk can't be written."""


class _Stopped(Exception):
    """The partition is let go."""
