"""Verifying all the time: now and then, whether some customers' states are what their rows make."""

import asyncio
import logging
import time

from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import Gauge

from clickhouse.views import UnknownView
from console.store import Store
from schemas.errors import Rejection
from verification.states import Difference, differences, sample

EVERY_S = 60.0
CUSTOMERS = 20
log = logging.getLogger(__name__)

DIFFERENCES = Gauge(
    "verification_differing_states",
    "States that are not what their rows make, of the customers looked at last",
    multiprocess_mode="mostrecent",
)
LOOKED_AT = Gauge(
    "verification_looked_at_seconds",
    "When states were last compared with their rows, in seconds since 1970",
    multiprocess_mode="mostrecent",
)


class Verifying:
    """Looks at some customers a minute, at random. `tallylog verify` looks at all of them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Look for ever; a store that is away is looked at the next time."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await asyncio.to_thread(self.look)
            except (Rejection, ClickHouseError, UnknownView) as error:
                log.warning("states were not compared with their rows: %s", error)

    def look(self) -> list[Difference]:
        """Compare some customers' states with their rows, and show what differs. For threads."""
        with self._store.reading() as client:
            found = differences(client, sample(client, CUSTOMERS))
        DIFFERENCES.set(len(found))
        LOOKED_AT.set(time.time())
        for each in found:
            log.error("states are not what their rows make: %s", each)
        if found:
            log.error("`tallylog verify --repair` makes them anew")
        return found
