"""Packer and counter as they are, with the simulated log, store, disk and catalog around them."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count as count_up
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from stream_workers import (
    claim_runs,
    claim_store,
    counter,
    packer,
    packing,
    partition,
    refill,
    store,
)
from stream_workers.counter import Counting
from stream_workers.group_commit import GroupCommit
from stream_workers.pace import Pace
from stream_workers.packer import Packer
from stream_workers.partition import Parts
from stream_workers.settings import PackerSettings, WorkerSettings
from tests.simulation import disks, log, repairing
from tests.simulation.catalog import Follower
from tests.simulation.engine import SimulatedInserts, SimulatedStore
from tests.simulation.fibers import Calls, Crash, Process, Thread, current, effect, idle, run, wait
from verification import repair


def pack(process: Process) -> None:
    """A packer's main thread."""
    world = process.world
    settings = PackerSettings.model_construct(blocks_per_s=1e9, data_dir=world.folder)
    follower: Any = Follower(world.catalog)
    made = Packer(settings, world.log.blocks, follower)

    async def main() -> None:
        follower.refresh()
        await made.run()

    run(main)


def count(process: Process) -> None:
    """A counter's main thread: what Faust does around the agent."""
    world = process.world
    settings = WorkerSettings.model_construct(data_dir=world.folder, worker=process.name)
    inserts: Any = SimulatedInserts(world.engine)
    follower: Any = Follower(world.catalog)
    parts = Parts(
        settings,
        SimulatedStore(world.engine),
        GroupCommit(inserts),
        follower,
        Calls(),
        Thread(process),
        Calls(),
    )
    counting = Counting(parts, log.BLOCKS)

    async def main() -> None:
        follower.refresh()
        await _Faust(process, counting).read()

    run(main)


class _Faust:
    """Assigns, feeds blocks, and commits what was acknowledged."""

    def __init__(self, process: Process, counting: Counting) -> None:
        self._log: log.Log = process.world.log
        self._world = process.world
        self._counting = counting
        self._member = self._log.counters.join(process)
        self._positions: dict[TP, int] = {}
        self._acked: dict[TP, int] = {}

    async def read(self) -> None:
        while True:
            if self._member.coming is not None:
                coming, self._member.coming = self._member.coming, None
                self._acked.clear()
                tps = {TP(*tp) for tp in coming}
                ends = {TP(*tp): end for tp, end in self._log.ends().items()}
                starts = await self._counting.assigned(tps, dict.fromkeys(ends, 0), ends)
                self._positions = dict(starts)
            elif await self._feed():
                await asyncio.sleep(0)
            else:
                await idle()
                if self._acked:
                    self._commit()
                elif self._member.coming is None and not self._waiting():
                    wait(lambda: self._member.coming is not None or bool(self._waiting()))

    async def _feed(self) -> bool:
        waiting = self._waiting()
        for tp in waiting:
            record = self._log.records[tp][self._positions[tp]]
            self._positions[tp] += 1
            message = SimpleNamespace(
                partition=tp.partition,
                offset=record.offset,
                timestamp=record.timestamp / 1000,
                value=record.value,
            )
            event: Any = SimpleNamespace(message=message, ack=partial(self._ack, tp, record.offset))
            await self._counting.put(event)
        return bool(waiting)

    def _waiting(self) -> list[TP]:
        ends = self._log.ends()
        return [tp for tp, at in sorted(self._positions.items()) if ends[tp] > at]

    def _ack(self, tp: TP, offset: int) -> None:
        self._world.ledger.acknowledged(tp.partition, offset)
        self._acked[tp] = offset + 1

    def _commit(self) -> None:
        effect("commit of blocks")
        self._acked.clear()


def _end_process() -> None:
    process = current().process
    process.dead = True
    raise Crash


def _monotonic() -> float:
    """A clock that goes on only while somebody sleeps."""
    return float(current().process.world.slept_s)


def _nap(seconds: float) -> None:
    """Wait for a repair, or, without one, for as long as anybody waits for one."""
    world = current().process.world
    if seconds:
        wait(lambda: not world.repairing)
        world.slept_s += store.HOLD_S


@contextmanager
def replaced(bytes_max: int) -> Iterator[None]:
    """The workers' I/O, and whatever makes them wait for real, replaced by what is simulated.

    `bytes_max` is what a block may weigh.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim_store, "Files", disks.Files)
        patch.setattr(claim_store, "RECENT_MAX", disks.RECENT_MAX)
        patch.setattr(claim_runs, "FAN", disks.FAN)
        patch.setattr(claim_runs, "SMALL", disks.SMALL)
        patch.setattr(packer, "BoundedConsumer", log.Consumer)
        patch.setattr(packer, "AIOKafkaProducer", log.Producer)
        patch.setattr(packer, "Pace", partial(Pace, clock=lambda: 0.0))
        patch.setattr(packer, "RESTART_S", 0.0)
        patch.setattr(counter, "end_process", _end_process)
        patch.setattr(partition, "RETRY_S", (0.0,))
        patch.setattr(refill, "RETRY_S", 0.0)
        patch.setattr(store, "SETTLE_POLL_S", 0.0)
        patch.setattr(repair, "Store", lambda engine, epoch: SimulatedStore(engine, epoch))
        patch.setattr(repair, "reached", repairing.reached)
        patch.setattr(repair, "_rebuild", repairing.rebuild)
        numbers = count_up()
        clock = SimpleNamespace(
            **vars(time) | {"time": lambda: 0.0, "monotonic": _monotonic, "sleep": _nap}
        )
        patch.setattr(store, "secrets", SimpleNamespace(randbelow=lambda _: next(numbers)))
        patch.setattr(store, "time", clock)
        patch.setitem(packing.Pool.cut.__kwdefaults__ or {}, "bytes_max", bytes_max)
        yield
