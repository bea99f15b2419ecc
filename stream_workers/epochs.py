"""Epochs of source topics: a topic that was made anew starts its offsets again.

The packer's commit carries a bookmark: offset, timestamp and checksum of the last record read.
When that record is no longer there, or is another one, the log is not the one we knew.
"""

import asyncio
import logging
from dataclasses import dataclass
from zlib import crc32

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.bookmark import Bookmark as Bookmark

LOOK_MS = 10_000
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A source partition ready to be read.

    epoch   How often its topic was made anew; `gap` says in words what was lost before it.
    events  How many events and dead letters were read of this epoch before; None: nobody counted.
    """

    epoch: int
    gap: str | None = None
    events: int | None = None


async def open_epochs(
    consumer: AIOKafkaConsumer, tps: list[TopicPartition]
) -> dict[TopicPartition, Opened]:
    """Seek every partition to where its committed reader stopped, and say in which epoch it is."""
    if not tps:
        return {}
    committed = await consumer._coordinator.fetch_committed_offsets(tps)
    earliest = await consumer.beginning_offsets(tps)
    ends = await consumer.end_offsets(tps)
    opened = {}
    for tp in tps:
        commit = committed.get(tp)
        bookmark = None if commit is None else Bookmark.from_text(commit.metadata)
        if commit is None or commit.offset < 0:
            consumer.seek(tp, earliest[tp])
            opened[tp] = Opened(0, events=0)
            continue
        epoch, events = (0, None) if bookmark is None else (bookmark.epoch, bookmark.events)
        gap = None
        start = commit.offset
        if commit.offset > ends[tp] or not await _still_there(consumer, tp, bookmark, earliest[tp]):
            epoch, start, events = epoch + 1, earliest[tp], 0
            gap = (
                f"log_recreated: {tp.topic}/{tp.partition} was made anew: epoch {epoch} begins at"
                f" offset {start}; the log before it was read up to offset {commit.offset - 1}"
            )
        elif earliest[tp] > commit.offset:
            start = earliest[tp]
            gap = (
                f"log_truncated: {tp.topic}/{tp.partition}: offsets {commit.offset} to {start - 1}"
                " were deleted before they were read"
            )
        if gap is not None:
            log.error(gap)
        consumer.seek(tp, start)
        opened[tp] = Opened(epoch, gap, events)
    return opened


async def _still_there(
    consumer: AIOKafkaConsumer, tp: TopicPartition, bookmark: Bookmark | None, earliest: int
) -> bool:
    """Whether the bookmarked record is still the one it was; unknown counts as yes."""
    if bookmark is None or bookmark.offset < earliest:
        return True
    consumer.seek(tp, bookmark.offset)
    try:
        async with asyncio.timeout(LOOK_MS / 1000):
            record = await consumer.getone(tp)
    except TimeoutError:
        return True
    return (record.offset, record.timestamp, crc32(record.value or b"")) == (
        bookmark.offset,
        bookmark.timestamp,
        bookmark.crc,
    )
