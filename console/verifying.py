"""Verifying all the time: now and then, some customers' states, and the ledger of all blocks."""

import asyncio
import logging
import time
from collections.abc import Sequence

from prometheus_client import Counter, Gauge

from clickhouse.views import UnknownView
from console.store import Store
from schemas.errors import Rejection
from stream_workers.store import NO_ANSWER
from verification.ledger import Flaw, flaws_of_markers
from verification.states import Difference, differences, sample

EVERY_S = 60.0
CUSTOMERS = 20
AGAIN_MAX = 200
"""So many customers whose states differ are looked at again, until they don't."""
SHOWN_MAX = 20
log = logging.getLogger(__name__)

DIFFERENCES = Gauge(
    "verification_differing_states",
    "States that are not what their rows make, of the customers looked at last",
    multiprocess_mode="mostrecent",
)
FLAWS = Gauge(
    "verification_ledger_flaws",
    "Blocks that are missing, stored twice, or not in the states",
    multiprocess_mode="mostrecent",
)
FOUND = Counter(
    "verification_differences",
    "What looks have found that is not as it should be, again in each look",
    ["check"],
)
LOOKED_AT = Gauge(
    "verification_looked_at_seconds",
    "When states were last compared with their rows, in seconds since 1970",
    multiprocess_mode="mostrecent",
)
for check in ("states", "ledger"):
    FOUND.labels(check)


class Verifying:
    """Looks at some customers a minute, at random. `tallylog verify` looks at all of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._again: list[tuple[str, str]] = []

    async def run(self) -> None:
        """Look for ever, whatever happens; a store that is away is looked at the next time."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await asyncio.to_thread(self.look)
            except (Rejection, UnknownView, TimeoutError, *NO_ANSWER) as error:
                log.warning("what is stored was not verified: %s", error)
            except Exception:
                log.exception("verifying what is stored failed")

    def look(self) -> tuple[list[Difference], list[Flaw]]:
        """Compare some customers' states with their rows, and blocks with each other. For threads.

        Who differed at the last look is looked at again. Shows what is wrong.
        """
        with self._store.reading() as client:
            differing = differences(client, sample(client, CUSTOMERS).with_(self._again))
            self._tell_differences(differing)
            flaws = flaws_of_markers(client)
            self._tell_flaws(flaws)
        LOOKED_AT.set(time.time())
        if differing or flaws:
            log.error("`tallylog verify` tells all, and with --repair makes states anew")
        return differing, flaws

    def _tell_differences(self, found: Sequence[Difference]) -> None:
        customers = {(each.key.account, each.key.external_customer_id) for each in found}
        self._again = sorted(customers)[:AGAIN_MAX]
        DIFFERENCES.set(len(found))
        FOUND.labels("states").inc(len(found))
        for each in found[:SHOWN_MAX]:
            log.error("states are not what their rows make: %s", each)

    def _tell_flaws(self, found: Sequence[Flaw]) -> None:
        FLAWS.set(len(found))
        FOUND.labels("ledger").inc(len(found))
        for each in found[:SHOWN_MAX]:
            log.error("the ledger is not whole: %s", each)
