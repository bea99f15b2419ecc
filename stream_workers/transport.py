"""Faust's Kafka transport with three fixed waits removed and the start position asked of the store.

Private names of faust-streaming 0.15.3 and aiokafka 0.14.0 are overridden here and nowhere else;
the versions are pinned, and tests/stream_workers/test_transport.py fails when the names move.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from faust.tables import TableManager
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

FETCH_MAX_WAIT_MS = 50
IDLE_S = 0.02

Assigned = Callable[[set[TP], Mapping[TP, int], Mapping[TP, int]], Awaitable[Mapping[TP, int]]]
"""(partitions, earliest offsets, ends) -> the offset to read next of each."""


class _Thread(AIOKafkaConsumerThread):
    """Long polls return soon: a partition that was paused is fetched again at once."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer


class StoreConsumer(Consumer):
    """Starts every assignment where `assigned` says, whatever the group has committed."""

    assigned: Assigned

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seeking = asyncio.Lock()

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109
        return await super()._getmany(active_partitions, min(timeout, IDLE_S))

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109
        # What comes while the flow is stopped is dropped: whoever stopped it seeks before it goes
        # on. Faust would seek at once, and take over what another worker has been given by now.
        fetched = await super()._wait_next_records(timeout)
        return fetched if self.flow_active else (None, None)

    async def sleep(self, n: Any, **options: Any) -> None:
        await super().sleep(IDLE_S if n == 1 else n, **options)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        # Two rebalances in a row may both be here: one after the other, each with what is
        # assigned by then.
        async with self._seeking:
            partitions = set(self.assignment())
            earliest = await self.earliest_offsets(*partitions)
            ends = await self.highwaters(*partitions)
            starts = await self.assigned(partitions, earliest, ends)
            await self.seek_wait(starts)
            return starts


class NoTables(TableManager):
    """Starts without a second's wait for tables to be declared: there are none."""

    async def sleep(self, n: Any, **options: Any) -> None:
        await super().sleep(IDLE_S if n == 1 else n, **options)


def transport(app: Any, assigned: Assigned) -> Transport:
    """The transport of a Faust app whose start positions come from `assigned`."""
    consumer = type("BoundConsumer", (StoreConsumer,), {"assigned": staticmethod(assigned)})
    kind = type("StoreTransport", (Transport,), {"Consumer": consumer})
    made: Transport = kind([app.conf.broker[0]], app)
    return made
