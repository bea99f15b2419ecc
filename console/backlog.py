"""What waits in the log, read from it: an account's events that are not packed, or not counted."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from aiokafka import ConsumerRecord, TopicPartition

from console.settings import Settings
from console.watermarks import Sample
from schemas import block, resent
from schemas.batches import BoundedConsumer
from schemas.census import rows_of
from schemas.topics import GATEWAY_EVENTS, HEADER_ACCOUNT, RESENT, block_topic

BYTES_MAX = 16 << 20
LOOK_BYTES = 1 << 20
"""So much is taken from the log at once, or one batch."""
READ_S = 1.0
POLL_MS = 200
Counter = Callable[[ConsumerRecord], int]


class Backlog(NamedTuple):
    """How many events wait; at least so many where not `exact`."""

    events: int
    exact: bool


async def unpacked(
    settings: Settings, sample: Sample, account: str, topics: Iterable[str]
) -> Backlog:
    """The account's events in source topics that the packer has not packed. Raises KafkaError."""
    spans = {
        TopicPartition(topic, partition): (sample.packed.get(topic, {}).get(partition, 0), end)
        for topic in topics
        for partition, end in sample.sources[topic].items()
    }

    def count(record: ConsumerRecord) -> int:
        if record.topic == RESENT:
            return _resent(record.value, account)
        if record.topic == GATEWAY_EVENTS and _account_of(record) != account:
            return 0
        return rows_of(record.value)

    return await _read(settings, spans, count)


async def uncounted(settings: Settings, sample: Sample, account: str) -> Backlog:
    """The account's events in blocks that are not counted. Raises KafkaError."""
    topic = block_topic(settings.block_epoch)
    spans = {
        TopicPartition(topic, partition): (sample.counted.get(partition, 0), end)
        for partition, end in sample.blocks.items()
    }
    return await _read(settings, spans, lambda record: _of_block(record.value, account))


async def _read(
    settings: Settings, spans: Mapping[TopicPartition, tuple[int, int]], count: Counter
) -> Backlog:
    """Count the events of stretches of the log, as far as time and bytes allow."""
    waiting = {tp: span for tp, span in spans.items() if span[0] < span[1]}
    if not waiting:
        return Backlog(0, True)
    consumer = BoundedConsumer(
        bytes_max=LOOK_BYTES,
        bootstrap_servers=settings.kafka,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    events = weight = 0

    async def tally(batches: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        """Count, and hold nothing of it while others read. Producers wait for a record at most."""
        nonlocal events, weight
        for tp, records in batches.items():
            for record in records:
                weight += len(record.value or b"")
                if tp in waiting and record.offset < waiting[tp][1]:
                    events += count(record)
                    await asyncio.sleep(0)

    deadline = time.monotonic() + READ_S
    async with asyncio.timeout(2 * READ_S + 5), consumer:
        consumer.assign(list(waiting))
        for tp, (start, _) in waiting.items():
            consumer.seek(tp, start)
        while waiting and weight < BYTES_MAX and time.monotonic() < deadline:
            await tally(await consumer.getmany(timeout_ms=POLL_MS))
            for tp in [tp for tp in waiting if await consumer.position(tp) >= waiting[tp][1]]:
                del waiting[tp]
    return Backlog(events, not waiting)


def _account_of(record: ConsumerRecord) -> str:
    headers: dict[str, bytes] = {key: value for key, value in record.headers if value}
    return headers.get(HEADER_ACCOUNT, b"").decode("ascii", "replace")


def _resent(value: bytes | None, account: str) -> int:
    try:
        return sum(event.account == account for event in resent.decode(value or b""))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0


def _of_block(value: bytes | None, account: str) -> int:
    try:
        read = block.decode(value or b"")
    except block.UnreadableBlock:
        return 0
    column = read.table().column("account")
    codes = [code for code, own in enumerate(column.dictionary.to_pylist()) if own == account]
    rows = int(np.isin(column.indices.to_numpy(), codes).sum())
    return rows + sum(letter.account == account for letter in read.dead_letters)
