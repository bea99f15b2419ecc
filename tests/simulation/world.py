"""The world: processes, log, engine and disks, one effect after the other, with faults in between.

All that happens is a function of the history and the plan: at which effect, counted from 0, which
fault. So whatever goes wrong is told in one line and done again.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiokafka import TopicPartition

from schemas import resent
from schemas.limits import BLOCK_BYTES_MAX
from tests.simulation import workers
from tests.simulation.catalog import Catalog
from tests.simulation.disks import Disks
from tests.simulation.engine import Engine, Statement
from tests.simulation.fibers import Fiber, Process
from tests.simulation.ledger import Ledger, Wrong
from tests.simulation.log import RESENT, Log
from tests.simulation.repairing import mend_states
from tests.stream_workers.worlds import point, resend

RESTARTS_MAX = 60
EFFECTS_MAX = 5000
ROLES: Mapping[str, Callable[[Process], None]] = {
    "packer": workers.pack,
    "counter": workers.count,
    "repair": mend_states,
}
Actor = Fiber | Statement
Plan = Mapping[Any, str]
"""Faults by the effect that they meet: its number, or what it is when that happens first."""


@dataclass(frozen=True)
class Step:
    """One effect as it happened: who, what, and the fault that met it."""

    who: str
    what: str
    fault: str | None


class World:
    """Everything there is; made by `new_world`."""

    def __init__(
        self,
        folder: Path,
        plan: Plan | None = None,
        *,
        sources: int = 1,
        blocks: int = 1,
        packers: int = 1,
        counters: int = 1,
        poll: int = 1,
        slow_refills: bool = True,
    ) -> None:
        self.folder = folder
        self.poll = poll
        self.log = Log(sources, blocks)
        self.engine = Engine()
        self.disks = Disks()
        self.catalog = Catalog()
        self.catalog.create("calls")
        self.ledger = Ledger(self.log, self.engine, self.catalog)
        self.trail: list[Step] = []
        self.prologue = 0
        self.processes: dict[str, Process] = {}
        self._plan: dict[Any, str] = dict(plan or {})
        self._slow_refills = slow_refills
        self._restarts = 0
        self._standbys = 0
        self.slept_s = 0.0
        self._to_repair = False
        self._repairs = 0
        for number in range(packers):
            self.start("packer", f"packer-{number}")
        for number in range(counters):
            self.start("counter", f"counter-{number}")

    # What the outside does.

    def produce(self, *events: Mapping[str, Any] | None, partition: int = 0) -> None:
        """One record of events; None is something unreadable among them."""
        elements = [{"event_name": ""} if event is None else event for event in events]
        value = json.dumps(elements).encode()
        offset = self.log.append(TopicPartition("events.acme", partition), value)
        self.ledger.note(partition, offset, events)

    def create(self, event_name: str) -> None:
        """Create a feature."""
        self.catalog.create(event_name)

    def sweep(self) -> None:
        """Send late events again, as the console does: each names the row that it supersedes."""
        rows = list(self.engine.rows())
        superseded = {
            (row["block_partition"], row["superseded_offset"], row["superseded_index"])
            for row in rows
        }
        late = [
            resend(row) for row in rows
            if row["verdict"] == "unknown_event_name"
            and self.catalog.knows(row["event_name"], self.catalog.version)
            and (row["block_partition"], *point(row)[1:]) not in superseded
        ]  # fmt: skip
        if late:
            self.log.append(RESENT, resent.encode(late))

    def prologue_ends(self) -> None:
        """Up to here the history is like others: faults are tried from here on."""
        self.prologue = len(self.trail)

    def pass_time(self, ms: int) -> None:
        """Let time go by, for the log."""
        self.log.now += ms

    def damage(self, number: int) -> None:
        """Something spoils the states of a usage; an operator repairs them until they are right."""
        parts = [state for state in self.engine.states if state.usage]
        if parts:
            usage = parts[number % len(parts)].usage
            events, value = usage[next(iter(usage))]
            usage[next(iter(usage))] = events + 1, value + 1
            self.repair()

    def repair(self) -> None:
        """An operator repairs the states."""
        self._to_repair = True
        if not self.repairing:
            self._repairs += 1
            self.start("repair", f"repair-{self._repairs}")

    def repaired(self) -> None:
        """A repair has succeeded."""
        self._to_repair = False

    @property
    def repairing(self) -> bool:
        """Whether a repair is under way, as far as anybody can wait for it."""
        repairs = (p for p in self.processes.values() if p.role == "repair" and not p.paused)
        return any(not p.dead and not p.fibers[0].finished for p in repairs)

    def rebalance(self, role: str) -> None:
        """Give each partition to another member of the group."""
        (self.log.packers if role == "packer" else self.log.counters).turn()

    def start(self, role: str, name: str) -> None:
        """Start a process."""
        process = self.processes[name] = Process(name, role, self)
        Fiber(process, lambda: ROLES[role](process))

    # What happens then.

    def settle(self) -> None:
        """Let everybody do what there is to do, late things last."""
        self._tidy()
        while True:
            actor = self.next_actor()
            if actor is not None:
                self.step(actor)
            elif not self._come_late():
                return

    def next_actor(self) -> Actor | None:
        """Who goes on now: the engine first, then one process after the other."""
        return next(iter(self.actors()), None)

    def actors(self) -> list[Actor]:
        """All who can go on now. Whoever writes claims comes alone: one thread touches them."""
        fibers: list[Fiber] = []
        for process in self.processes.values():
            if not process.paused and not process.dead:
                fibers += [f for f in process.fibers if not f.finished and f.ready()]
        for fiber in fibers:
            if fiber.effect is not None and fiber.effect.startswith("claims:"):
                return [fiber]
        if self._slow_refills:
            fibers.sort(key=lambda fiber: fiber is not fiber.process.fibers[0])
        statements = [each for each in self.engine.statements if not each.asleep]
        return [*statements, *fibers]

    def step(self, actor: Actor, fault: str | None = None) -> None:
        """Do the next effect of one of them; the plan may have a fault for it."""
        if actor.effect is None:
            actor.resume()
        else:
            planned = self._plan.pop(actor.effect, None)
            fault = self._plan.get(len(self.trail), planned or fault)
            who = actor.process.name if isinstance(actor, Fiber) else "engine"
            self.trail.append(Step(who, actor.effect, fault))
            if len(self.trail) > EFFECTS_MAX:
                raise Wrong("it never comes to an end")
            if isinstance(actor, Fiber):
                self._do(actor, fault)
            else:
                self._execute(actor, fault)
        self._tidy()

    def _do(self, fiber: Fiber, fault: str | None) -> None:
        process = fiber.process
        if fault in ("kill", "lose", "age"):
            self.kill(process)
            if fault == "lose":
                self.disks.lose(process.name)
            elif fault == "age":
                self.disks.age(process.name)
        elif fault == "pause":
            self.pause(process)
        else:
            fiber.resume(fault)

    def _execute(self, statement: Statement, fault: str | None) -> None:
        if fault == "kill":
            self.kill(statement.client)
        elif fault == "pause":
            self.pause(statement.client)
        if fault == "hang":
            statement.asleep = True
        elif fault in ("engine", "amnesia"):
            if fault == "amnesia":
                for tokens, token in statement.tokens:
                    tokens.discard(token)
            self.engine.restart()
        else:
            statement.resume(fault)

    def kill(self, process: Process) -> None:
        """kill -9. What it has sent is on its way."""
        process.kill()

    def pause(self, process: Process) -> None:
        """Stop a process for so long that others take its partitions over."""
        process.paused = True
        if process.role == "repair":
            return
        self._group(process).leave(process.name)
        alive = (p for p in self.processes.values() if p.role == process.role and not p.paused)
        if next(alive, None) is None:
            self._standbys += 1
            self.start(process.role, f"{process.role}-standby-{self._standbys}")

    def resume(self, process: Process) -> None:
        """Let a stopped process go on. It learns later that it was given up."""
        process.paused = False

    def _group(self, process: Process) -> Any:
        return self.log.packers if process.role == "packer" else self.log.counters

    def _tidy(self) -> None:
        """Forget what is over; start again what is dead."""
        if self.ledger.wrong is not None:
            raise self.ledger.wrong
        self.engine.statements = [each for each in self.engine.statements if not each.over]
        for process in list(self.processes.values()):
            main = process.fibers[0]
            if process.role == "repair":
                if main.finished or process.dead:
                    process.kill()
                    del self.processes[process.name]
                    if self._to_repair and not any(step.fault for step in self.trail):
                        raise Wrong(f"{process.name} fails without a fault: {main.failure!r}")
            elif main.finished or process.dead:
                process.kill()
                self._group(process).leave(process.name)
                self._restarts += 1
                if self._restarts > RESTARTS_MAX:
                    raise Wrong(f"{process.name} doesn't come to life: {main.failure!r}")
                self.start(process.role, process.name)

    def _come_late(self) -> bool:
        """When nobody has anything left to do: what was held up comes now, one by one."""
        for statement in self.engine.statements:
            statement.asleep = False
            return True
        if self.log.late:
            self.log.append(*self.log.late.pop(0))
            return True
        if self._to_repair:
            self._restarts += 1
            if self._restarts > RESTARTS_MAX:
                raise Wrong("no repair comes to its end")
            self.repair()
            return True
        for process in self.processes.values():
            if process.paused:
                self.resume(process)
                return True
        for process in self.processes.values():
            if process.role != "repair" and process.name not in self._group(process).members:
                self._group(process).join_again(process.name)
                return True
        return False

    def check(self) -> None:
        """Judge what has come of it all. Raises Wrong."""
        self.ledger.check()

    def end(self) -> None:
        """Let all processes go."""
        for process in self.processes.values():
            process.kill()


_numbers = count()


@lru_cache
def _root() -> "TemporaryDirectory[str]":
    """Where all worlds have their (empty) folders, until the interpreter ends."""
    return TemporaryDirectory(prefix="worlds-")


@contextmanager
def new_world(
    plan: Plan | None = None, *, bytes_max: int = BLOCK_BYTES_MAX, **shape: Any
) -> Iterator[World]:
    """A world for the length of a block."""
    logging.disable(logging.CRITICAL)
    try:
        with workers.replaced(bytes_max):
            world = World(Path(_root().name) / str(next(_numbers)), plan, **shape)
            try:
                yield world
            finally:
                world.end()
    finally:
        logging.disable(logging.NOTSET)


def told(trail: Sequence[Step]) -> str:
    """What happened, effect by effect."""
    return "\n".join(
        f"{number:5} {step.who:18} {step.what}{f'  <- {step.fault}' if step.fault else ''}"
        for number, step in enumerate(trail)
    )
