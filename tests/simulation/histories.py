"""Histories: short stories of producers and operators; faults are tried at every effect of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.world import World
from tests.stream_workers.worlds import HORIZON_MS, make_event

Tell = Callable[[World], None]


@dataclass(frozen=True)
class History:
    """A story, the world that it happens in, and the faults that belong to it, by effect."""

    tell: Tell
    shape: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)


def event(event_id: str, value: int = 1, name: str = "calls") -> dict[str, Any]:
    """An event that counts for `value`."""
    return make_event(event_id, event_name=name, properties={"v": value})


def plain(world: World) -> None:
    """Repeats within a record, a flush and beyond; something unreadable."""
    world.produce(event("a"), event("b", 2), event("a"))
    world.produce(event("c", 3), None)
    world.settle()
    world.produce(event("b", 7), event("d", 4))
    world.settle()


def late(world: World) -> None:
    """A feature comes after its events, which are sent again twice; a repeat stands before them."""
    world.produce(event("a", 1, "late"), event("b", 2, "late"))
    world.settle()
    world.prologue_ends()
    world.create("late")
    world.produce(event("a", 3, "late"), event("c", 1, "late"))
    world.sweep()
    world.sweep()
    world.settle()
    world.produce(event("b", 2, "late"))
    world.settle()


def twice(world: World) -> None:
    """An id comes twice before its feature, behind the horizon: both its events are late."""
    world.produce(event("a", 1, "late"))
    world.settle()
    world.pass_time(HORIZON_MS + 1)
    world.produce(event("a", 2, "late"), event("b", 1, "late"))
    world.settle()
    world.prologue_ends()
    world.create("late")
    world.sweep()
    world.sweep()
    world.produce(event("a", 3, "late"))
    world.settle()


def shared(world: World) -> None:
    """Two counters share two block partitions, and change them in the middle."""
    world.produce(*(event(name) for name in "abcdef"))
    world.settle()
    world.prologue_ends()
    world.rebalance("counter")
    world.produce(*(event(name, 2) for name in "aeg"))
    world.settle()


def joint(world: World) -> None:
    """One counter stores the blocks of two partitions by one INSERT, again and again."""
    world.produce(*(event(name) for name in "abcdef"))
    world.settle()
    world.prologue_ends()
    world.produce(*(event(name, 2) for name in "aegh"))
    world.settle()
    world.produce(*(event(name, 3) for name in "abegij"))
    world.settle()


def overlapping(world: World) -> None:
    """Two packers share two source partitions, and change them while they have read some."""
    world.settle()
    world.prologue_ends()
    for number in range(2):
        world.produce(event(f"a{number}"), event("x"), partition=0)
        world.produce(event(f"b{number}"), event("y"), partition=1)
    until = len(world.trail) + 3
    while len(world.trail) < until and (actor := world.next_actor()):
        world.step(actor)
    world.rebalance("packer")
    world.settle()
    world.produce(event("z"), event("x"), partition=1)
    world.settle()


def pieces(world: World) -> None:
    """One flush is cut into several blocks of a partition."""
    world.produce(event("a"), event("b"), None, event("a"), event("c"))
    world.settle()


def forgotten(world: World) -> None:
    """An id comes back within the horizon, and once more behind it."""
    world.produce(event("a"), event("b"))
    world.settle()
    world.pass_time(HORIZON_MS - 60_000)
    world.produce(event("a", 2), event("c"))
    world.settle()
    world.produce(event("b", 3))
    world.settle()
    world.prologue_ends()
    world.pass_time(HORIZON_MS)
    world.produce(event("a", 3), event("c", 2), event("b", 4))
    world.settle()
    world.produce(event("a", 5))
    world.settle()


def reread(world: World) -> None:
    """A counter loses its claims, and counts a repeat and a re-sent event while it reads them."""
    world.produce(event("a", 1, "late"), event("b"))
    world.settle()
    world.prologue_ends()
    world.kill(world.processes["counter-0"])
    world.disks.lose("counter-0")
    world.create("late")
    world.produce(event("a", 5, "late"), event("c"))
    world.sweep()
    world.settle()
    world.produce(event("b", 3))
    world.settle()


def outdated(world: World) -> None:
    """A counter comes back with an older disk: an id on it has expired, and was claimed anew."""
    world.produce(event("a"), event("b"))
    world.settle()
    world.pass_time(HORIZON_MS + 1)
    for name in ("a", "d", "e"):
        world.produce(event(name, 2))
        world.settle()
    world.prologue_ends()
    world.kill(world.processes["counter-0"])
    world.disks.age("counter-0")  # without the last three blocks
    world.produce(event("a", 3), event("c"))
    world.settle()


def restored(world: World) -> None:
    """The store comes back as an older copy of itself, behind what the counter's disk knows.

    An id of its last block had come before, and was repeated in between.
    """
    world.produce(event("a", 1, "late"), event("b"))
    world.settle()
    world.produce(event("b", 2))
    world.settle()
    world.pass_time(HORIZON_MS)
    world.produce(event("b", 3))
    world.settle()
    world.produce(event("a", 2, "late"))
    world.settle()
    world.create("late")
    world.sweep()
    world.settle()
    world.prologue_ends()
    world.kill(world.processes["counter-0"])
    del world.engine.events[1:], world.engine.states[1:]
    world.settle()


def repaired(world: World) -> None:
    """States are spoilt, and made anew while blocks go on to come."""
    world.produce(event("a"), event("b", 2))
    world.settle()
    world.prologue_ends()
    world.damage(0)
    repair = world.processes["repair-1"].fibers[0]
    while repair.effect != "send delete of states":
        actors = [a for a in world.actors() if a is repair or a in world.engine.statements]
        if not actors:
            break  # it met a fault
        world.step(actors[0])
    world.produce(event("c", 4), event("a", 3))
    world.settle()
    world.produce(event("d", 5))
    world.settle()


HISTORIES: Mapping[str, History] = {
    "plain": History(plain),
    "late": History(late, {"poll": 4}),
    "twice": History(twice, {"poll": 4}),
    "shared": History(shared, {"blocks": 2, "counters": 2}),
    "joint": History(joint, {"blocks": 2}),
    "overlapping": History(overlapping, {"sources": 2, "packers": 2, "poll": 2}),
    "pieces": History(pieces, {"bytes_max": 400}),
    "forgotten": History(forgotten),
    "reread": History(reread, {"poll": 4}),
    "outdated": History(outdated),
    "restored": History(restored),
    "repaired": History(repaired),
    # With a fault of their own, so that a second one meets what is done about the first.
    "halved": History(plain, faults={"states part of insert 0/0": "engine"}),
    "torn": History(joint, {"blocks": 2}, {"states part of insert 0/1 and 1/1": "engine"}),
    "doubted": History(pieces, {"bytes_max": 400}, {"arrival of insert 0/0": "refuse"}),
    "stopped": History(plain, faults={"send owner of 0": "pause"}),
}
