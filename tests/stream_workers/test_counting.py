"""The partitions of a worker, and what it takes for a dead consumer."""

import asyncio
from types import SimpleNamespace
from typing import Any

from stream_workers.counter import QUEUE_BLOCKS, Counting


def counting_of(**lanes: Any) -> Counting:
    """A worker that has partitions; lanes are named p0, p1, …"""
    parts: Any = None
    counting = Counting(parts, "event-blocks")
    counting._lanes = {int(name[1:]): lane for name, lane in lanes.items()}
    return counting


def lane(next_offset: int, *, idle: bool = True) -> Any:
    """A partition that waits for a block, or is busy with one."""
    queue: asyncio.Queue[Any] = asyncio.Queue(QUEUE_BLOCKS)
    return SimpleNamespace(next_offset=next_offset, idle=idle, queue=queue)


def block(partition: int) -> Any:
    return SimpleNamespace(message=SimpleNamespace(partition=partition))


def test_an_idle_partition_whose_log_goes_on_waits_for_its_next_block() -> None:
    counting = counting_of(p0=lane(5), p1=lane(7), p2=lane(3, idle=False))
    assert counting.unread({0: 6, 1: 7, 2: 9, 3: 1}) == {0: 5, 3: 0}


async def test_while_a_block_waits_for_the_store_nothing_is_silent() -> None:
    """All blocks come one after the other: those of others stand behind one that can't be stored.

    A consumer that is waited for so long is not dead.
    """
    counting = counting_of(p0=lane(5), p1=lane(7, idle=False))
    for _ in range(QUEUE_BLOCKS):
        await counting.put(block(1))
    handing = asyncio.create_task(counting.put(block(1)))
    await asyncio.sleep(0)
    assert counting.unread({0: 6, 1: 10}) == {}
    counting._lanes[1].queue.get_nowait()
    await handing
    assert counting.unread({0: 6, 1: 10}) == {0: 5}
