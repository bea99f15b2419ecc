"""Runs: a history, with faults or without; all runs of a history with one fault somewhere."""

import shlex
from collections.abc import Iterator

from tests.simulation.faults import possible
from tests.simulation.histories import HISTORIES
from tests.simulation.ledger import Wrong
from tests.simulation.world import Plan, Step, World, new_world, told


class Failed(AssertionError):
    """A run whose end is wrong: how to see it again, and what happened."""


def run(name: str, plan: Plan | None = None) -> list[Step]:
    """Let a history happen, with faults at some effects; what happened. Raises Failed."""
    return _run(name, plan).trail


def _run(name: str, plan: Plan | None = None) -> World:
    history = HISTORIES[name]
    with new_world({**history.faults, **(plan or {})}, **history.shape) as world:
        try:
            history.tell(world)
            world.check()
        except Wrong as error:
            again = f"python -m tests.simulation {name} {to_text(plan or {})}"
            raise Failed(f"{again}\n{told(world.trail)}\n{error}") from error
        return world


def single_faults(name: str) -> Iterator[dict[int, str]]:
    """Every fault at every effect of a history behind its prologue and its own fault."""
    world = _run(name)
    own = [number for number, step in enumerate(world.trail) if step.fault]
    start = max([world.prologue, *(number + 1 for number in own)])
    yield from _faults(world.trail, start, {})


def further_faults(name: str, plan: dict[int, str]) -> Iterator[dict[int, str]]:
    """The plan with one more fault after its own, at every effect of what then happens."""
    yield from _faults(run(name, plan), max(plan) + 1, plan)


def _faults(trail: list[Step], start: int, plan: dict[int, str]) -> Iterator[dict[int, str]]:
    for number, step in enumerate(trail[start:], start):
        for fault in possible(step):
            yield {**plan, number: fault}


def to_text(plan: Plan) -> str:
    """A plan as words of a command."""
    return " ".join(shlex.quote(f"{at}:{fault}") for at, fault in plan.items())


def from_text(words: list[str]) -> Plan:
    """The plan of a command's words."""
    pairs = [word.rsplit(":", 1) for word in words]
    return {int(at) if at.isdigit() else at: fault for at, fault in pairs}
