"""Native producers: records straight into an account's topic, from a process of their own."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from multiprocessing.connection import Connection as Pipe
from multiprocessing.sharedctypes import Synchronized

from aiokafka import AIOKafkaProducer

from benchmarks.load import READY, TICK_S, Body, Running, Sent, working

UNDER_WAY = 32
"""Records that are not acknowledged yet, at most."""
BATCH_BYTES = 1 << 20


def producing(
    kafka: str, topic: str, bodies: Sequence[Body], seconds: float
) -> AbstractContextManager[Running]:
    """Write records with new ids for so long, as many events as the driver allows."""
    return working(_produce, kafka, topic, bodies, seconds)


def _produce(
    kafka: str,
    topic: str,
    bodies: Sequence[Body],
    seconds: float,
    pipe: Pipe,
    allowed: "Synchronized[int]",
    sent: "Synchronized[int]",
) -> None:
    import uvloop

    async def write() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=kafka,
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            max_batch_size=1 << 20,
            max_request_size=16 << 20,
        )
        await producer.start()
        await producer.partitions_for(topic)
        makers = cycle([body.maker() for body in bodies])
        pipe.send(READY)
        while not allowed.value:  # noqa: ASYNC110 - another process says so
            await asyncio.sleep(TICK_S)
        events, under_way = 0, asyncio.Semaphore(UNDER_WAY)
        begun, cpu = time.perf_counter(), time.process_time()
        times: list[float] = []
        while time.perf_counter() < begun + seconds:
            if events >= allowed.value:
                await asyncio.sleep(TICK_S)
                continue
            maker = next(makers)
            await under_way.acquire()
            started = time.perf_counter()
            acknowledged = await producer.send(topic, maker.make())

            def note(_: object, started: float = started) -> None:
                under_way.release()
                times.append((time.perf_counter() - started) * 1000)

            acknowledged.add_done_callback(note)
            events += maker.events
            sent.value = events
        await producer.flush()
        spent = time.process_time() - cpu
        await producer.stop()
        seconds_taken = time.perf_counter() - begun
        pipe.send(Sent(seconds_taken, events, Counter({202: len(times)}), times, spent))

    uvloop.run(write())


async def fill(kafka: str, topic: str, bodies: Sequence[Body], records: int) -> int:
    """Write so many records as fast as one can, in batches; how many events they hold."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka,
        acks="all",
        compression_type="zstd",
        max_batch_size=BATCH_BYTES,
        max_request_size=2 * BATCH_BYTES,
    )
    await producer.start()
    try:
        partitions = cycle(sorted(await producer.partitions_for(topic)))
        makers = cycle([body.maker() for body in bodies])
        batch, events = producer.create_batch(), 0
        for _ in range(records):
            maker = next(makers)
            value = maker.make()
            if batch.append(key=None, value=value, timestamp=None) is None:
                await producer.send_batch(batch, topic, partition=next(partitions))
                batch = producer.create_batch()
                batch.append(key=None, value=value, timestamp=None)
            events += maker.events
        await producer.send_batch(batch, topic, partition=next(partitions))
    finally:
        await producer.stop()
    return events
