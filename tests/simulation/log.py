"""The log: topics, consumer groups, and the clients that packer and counter use.

Each effect on it is a step of the world: a send that lands or not, with an answer or without, now
or after its producer is gone; a commit; an assignment.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from tests.simulation.fibers import Process, current, effect, idle, wait
from tests.stream_workers.worlds import NOW

APPEND_MS = 1000
BLOCKS = "event-blocks"
RESENT = TopicPartition("resent", 0)


@dataclass
class Member:
    """A process in a group. `coming` is an assignment that it has not been told yet."""

    process: Process
    partitions: frozenset[TopicPartition] = frozenset()
    coming: frozenset[TopicPartition] | None = None


class Group:
    """Shares partitions out among its members; what an expelled one commits is refused."""

    def __init__(self, log: "Log", sources: Callable[[str], bool]) -> None:
        self._log = log
        self._sources = sources
        self.members: dict[str, Member] = {}
        self._expelled: dict[str, Member] = {}
        self.commits: dict[TopicPartition, OffsetAndMetadata] = {}
        self._turn = 0

    def join(self, process: Process) -> Member:
        """Take a member in: everybody's assignment is made anew."""
        member = self.members[process.name] = Member(process)
        self.share()
        return member

    def leave(self, name: str) -> None:
        """Without this member, which may not know it."""
        member = self.members.pop(name, None)
        if member is not None:
            self._expelled[name] = member
            self.share()

    def join_again(self, name: str) -> None:
        """Take an expelled member in again, which has found out."""
        self.members[name] = self._expelled.pop(name)
        self.share()

    def turn(self) -> None:
        """Give each partition to the next member."""
        self._turn += 1
        self.share()

    def share(self) -> None:
        """Assign all partitions, by the members' names."""
        members = [self.members[name] for name in sorted(self.members)]
        tps = [tp for tp in sorted(self._log.ends()) if self._sources(tp.topic)]
        for number, member in enumerate(members):
            mine = {tp for i, tp in enumerate(tps) if (i + self._turn) % len(members) == number}
            member.partitions = member.coming = frozenset(mine)

    def commit(self, member: Member, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Note how far a member is. Raises KafkaError when the partitions aren't its own."""
        if self.members.get(member.process.name) is not member or not (
            set(offsets) <= member.partitions
        ):
            raise KafkaError("commit of a member that was expelled")
        self.commits.update(offsets)


@dataclass
class Log:
    """Records of all topics. `late` holds sends that will land after their producer gave up."""

    sources: int
    blocks: int
    now: int = NOW
    records: dict[TopicPartition, list[Any]] = field(default_factory=dict)
    late: list[tuple[TopicPartition, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(self.sources):
            self.records[TopicPartition("events.acme", number)] = []
        self.records[RESENT] = []
        for number in range(self.blocks):
            self.records[TopicPartition(BLOCKS, number)] = []
        self.packers = Group(self, lambda topic: topic != BLOCKS)
        self.counters = Group(self, lambda topic: topic == BLOCKS)

    def ends(self) -> dict[TopicPartition, int]:
        """Where each partition ends."""
        return {tp: len(records) for tp, records in self.records.items()}

    def append(self, tp: TopicPartition, value: bytes | None) -> int:
        """Append a record; its offset."""
        self.now += APPEND_MS
        records = self.records[tp]
        records.append(
            SimpleNamespace(
                topic=tp.topic,
                partition=tp.partition,
                offset=len(records),
                timestamp=self.now,
                headers=(),
                value=value,
            )
        )
        return len(records) - 1


class Producer:
    """An AIOKafkaProducer: sends go out one after the other, and are answered each by itself."""

    def __init__(self, **options: Any) -> None:
        self._log: Log = current().process.world.log
        self._sending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def send(self, topic: str, value: bytes, partition: int) -> "asyncio.Future[None]":
        task = asyncio.create_task(self._deliver(TopicPartition(topic, partition), value))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _deliver(self, tp: TopicPartition, value: bytes) -> None:
        fault = effect(f"deliver block to {tp.partition}")
        if fault in (None, "unknown"):
            self._log.append(tp, value)
        elif fault == "late":
            self._log.late.append((tp, value))
        if fault is not None:
            raise KafkaError(f"send: {fault}")

    async def stop(self) -> None:
        """What was sent is on its way."""
        await asyncio.gather(*self._sending, return_exceptions=True)


class Consumer:
    """An AIOKafkaConsumer of the packer's group."""

    def __init__(self, **options: Any) -> None:
        world = current().process.world
        self._log: Log = world.log
        self._world = world
        self._positions: dict[TopicPartition, int] = {}
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._coordinator = self
        self._timeouts = 0

    def subscribe(self, *, pattern: str, listener: Any) -> None:
        self._pattern = re.compile(pattern)
        self._listener = listener

    async def start(self) -> None:
        assert all(self._pattern.match(tp.topic) for tp in self._log.ends() if tp.topic != BLOCKS)
        self._member = self._log.packers.join(current().process)

    async def fetch_committed_offsets(
        self, tps: list[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        commits = self._log.packers.commits
        return {tp: commits[tp] for tp in tps if tp in commits}

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        ends = self._log.ends()
        return {tp: ends[tp] for tp in tps}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._positions[tp] = offset

    async def getone(self, tp: TopicPartition) -> Any:
        record = self._log.records[tp][self._positions[tp]]
        self._positions[tp] += 1
        return record

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """A few records of one partition; waits for some while nothing else is to be done."""
        await asyncio.sleep(0)
        if self._member.coming is None and not self._waiting() and timeout_ms:
            await idle()
            self._timeouts += 1
            if self._timeouts > 1:  # for ever, as far as anybody can tell
                wait(lambda: self._member.coming is not None or self._waiting())
        else:
            self._timeouts = 0
        if self._member.coming is not None:
            coming, self._member.coming = self._member.coming, None
            await self._listener.on_partitions_revoked(self._assigned)
            self._assigned = coming
            self._positions = {}
            await self._listener.on_partitions_assigned(coming)
            return {}
        for tp in sorted(self._assigned):
            at = self._positions.get(tp)
            if at is not None and (found := self._log.records[tp][at : at + self._world.poll]):
                self._positions[tp] = at + len(found)
                return {tp: found}
        return {}

    def _waiting(self) -> bool:
        ends = self._log.ends()
        return any(ends[tp] > at for tp, at in self._positions.items())

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        fault = effect(f"commit of sources {sorted(each.offset for each in offsets.values())}")
        if fault != "deny":
            self._log.packers.commit(self._member, offsets)
            self._world.ledger.packed(offsets)
        if fault is not None:
            raise KafkaError(f"commit: {fault}")

    async def stop(self) -> None:
        self._log.packers.leave(current().process.name)
