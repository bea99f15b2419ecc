"""The topic `resent` as the console writes to it: a producer, made when it is first needed."""

import asyncio
import contextlib

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from console.settings import Settings
from schemas.limits import MESSAGE_BYTES_MAX
from schemas.topics import RESENT

ACK_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 1.0
AWAY = (KafkaError, OSError, TimeoutError)
"""What says that the broker is away."""


class ResentLog:
    """An idempotent producer. After a failure it is to be discarded: the next append makes one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def append(self, value: bytes) -> "asyncio.Future[RecordMetadata]":
        """Hand over a record; the future ends when the broker has it. Raises one of AWAY."""
        producer = await self._connected()
        async with asyncio.timeout(ACK_TIMEOUT_S):
            acked: asyncio.Future[RecordMetadata] = await producer.send(RESENT, value)
            return acked

    async def discard(self) -> None:
        """End the producer: an idempotent one that failed can't be trusted with more."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(*AWAY):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await producer.stop()

    async def _connected(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._settings.kafka,
                    acks="all",
                    enable_idempotence=True,
                    compression_type="lz4",
                    linger_ms=5,
                    max_request_size=MESSAGE_BYTES_MAX,
                    max_batch_size=1 << 20,
                )
                self._producer = producer
                async with asyncio.timeout(ACK_TIMEOUT_S):
                    await producer.start()
            return self._producer
