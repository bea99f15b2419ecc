"""Deeds: what producers, operators, time and chance do to a world, one after the other.

`pick(n)` chooses one of n: a random number generator's choice, or hypothesis'.
"""

import random
from collections.abc import Callable
from typing import Any

from schemas.limits import BLOCK_BYTES_MAX
from stream_workers.topics import RETENTION_MS
from tests.simulation.faults import possible
from tests.simulation.histories import event
from tests.simulation.ledger import Wrong
from tests.simulation.runs import Failed
from tests.simulation.world import Step, World, new_world, told
from tests.stream_workers.worlds import HORIZON_MS

Pick = Callable[[int], int]
IDS = 12
EFFECTS = 8


def produce(world: World, pick: Pick) -> None:
    """A record of a few events of few ids; now and then something unreadable."""
    events = [
        None if number == IDS else event(f"id{number}", 1 + pick(3), ("calls", "late")[pick(2)])
        for number in (pick(IDS + 1) for _ in range(1 + pick(4)))
    ]
    world.produce(*events, partition=pick(world.log.sources))


def create(world: World, pick: Pick) -> None:
    """The feature that comes late; then others."""
    name = "late" if "late" not in world.catalog.since else f"other{world.catalog.version}"
    world.create(name)


def sweep(world: World, pick: Pick) -> None:
    """Late events are sent again."""
    world.sweep()


def pass_time(world: World, pick: Pick) -> None:
    """An hour, nearly the horizon, or more; for so long nothing stays in the log."""
    ms = (3_600_000, HORIZON_MS - 20_000, HORIZON_MS + 1)[pick(3)]
    if ms > RETENTION_MS:
        world.settle()
    world.pass_time(ms)


def go_on(world: World, pick: Pick) -> None:
    """A few effects, of anybody's."""
    for _ in range(1 + pick(EFFECTS)):
        if actors := world.actors():
            world.step(actors[pick(len(actors))])


def strike(world: World, pick: Pick) -> None:
    """A fault in somebody's next effect."""
    actors = [actor for actor in world.actors() if actor.effect is not None]
    if actors:
        actor = actors[pick(len(actors))]
        who = "engine" if actor in world.engine.statements else ""
        faults = possible(Step(who, actor.effect or "", None))
        world.step(actor, faults[pick(len(faults))])


def rebalance(world: World, pick: Pick) -> None:
    """Partitions change hands."""
    world.rebalance(("packer", "counter")[pick(2)])


def go_on_after_a_pause(world: World, pick: Pick) -> None:
    """A stopped process goes on."""
    paused = [process for process in world.processes.values() if process.paused]
    if paused:
        world.resume(paused[pick(len(paused))])


def wake(world: World, pick: Pick) -> None:
    """A statement that hangs goes on."""
    asleep = [statement for statement in world.engine.statements if statement.asleep]
    if asleep:
        asleep[pick(len(asleep))].asleep = False


def land(world: World, pick: Pick) -> None:
    """A send that its producer has given up lands."""
    if world.log.late:
        world.log.append(*world.log.late.pop(pick(len(world.log.late))))


def damage(world: World, pick: Pick) -> None:
    """States are spoilt, and repaired meanwhile."""
    world.damage(pick(10))


def settle(world: World, pick: Pick) -> None:
    """Everything comes to rest."""
    world.settle()


DEEDS: tuple[Callable[[World, Pick], None], ...] = (
    produce, create, sweep, pass_time, go_on, strike, rebalance, go_on_after_a_pause, wake, land,
    damage, settle,
)  # fmt: skip
WEIGHTS = (6, 1, 2, 1, 12, 4, 1, 1, 1, 1, 1, 1)


def shape_of(pick: Pick) -> dict[str, Any]:
    """How large the world is."""
    return {
        "sources": 1 + pick(2),
        "blocks": 1 + pick(2),
        "packers": 1 + pick(2),
        "counters": 1 + pick(2),
        "poll": 1 + pick(3),
        "slow_refills": pick(2),
        "bytes_max": (400, BLOCK_BYTES_MAX)[pick(2)],
    }


def chaos(seed: int, deeds: int) -> int:
    """So many deeds by chance, and then their end; how many effects there were. Raises Failed."""
    chance = random.Random(seed)
    with new_world(**shape_of(chance.randrange)) as world:
        try:
            for deed in chance.choices(DEEDS, WEIGHTS, k=deeds):
                deed(world, chance.randrange)
            world.settle()
            world.check()
        except Wrong as error:
            again = f"python -m tests.simulation --seed {seed} --deeds {deeds}"
            raise Failed(f"{again}\n{told(world.trail)}\n{error}") from error
        return len(world.trail)
