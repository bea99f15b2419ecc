"""How long blocks have waited for the counter, as the log tells: the packer makes them larger."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.topics import block_topic, counter_group
from stream_workers.settings import WorkerSettings

LOOK_S = 1.0
ANSWER_S = 10.0
LOOKS_MAX = 120
log = logging.getLogger(__name__)

Offsets = Mapping[int, int]
"""By block partition, the offset that comes next."""


class CountingLag:
    """The age of the oldest block that isn't counted, to a second or two.

    seconds  0 while the counter keeps up. It commits once a second, so what it has just counted
             looks up to two seconds old.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._looks: deque[tuple[float, Offsets]] = deque()

    def look(self, ends: Offsets, committed: Offsets) -> None:
        """Take in where the block topic ends now, and up to where it is counted."""
        now = self._clock()
        if not self._looks or self._looks[-1][1] != ends:
            self._looks.append((now, ends))
        while self._looks and all(
            committed.get(partition, 0) >= end for partition, end in self._looks[0][1].items()
        ):
            self._looks.popleft()
        self.seconds = now - self._looks[0][0] if self._looks else 0.0
        if len(self._looks) > LOOKS_MAX:
            self._looks = deque(list(self._looks)[::2])

    async def follow(self, settings: WorkerSettings, partitions: int) -> None:
        """Look once a second, for ever; while the broker is away the lag stays as it was."""
        topic = block_topic(settings.block_epoch)
        tps = [TopicPartition(topic, number) for number in range(partitions)]
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=settings.kafka,
                group_id=counter_group(settings.block_epoch),
                enable_auto_commit=False,
            )
            try:
                async with asyncio.timeout(ANSWER_S):
                    await consumer.start()
                while True:
                    async with asyncio.timeout(ANSWER_S):
                        commits = await consumer._coordinator.fetch_committed_offsets(tps)
                        ends = await consumer.end_offsets(tps)
                    committed = {tp.partition: max(0, at.offset) for tp, at in commits.items()}
                    self.look({tp.partition: end for tp, end in ends.items()}, committed)
                    await asyncio.sleep(LOOK_S)
            except (KafkaError, OSError, TimeoutError) as error:
                log.info("no word of what is counted: %r", error)
            finally:
                await consumer.stop()
            await asyncio.sleep(LOOK_S)
