"""`verify --repair` on the simulated engine: its steps as they are, its statements replaced."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from schemas.position import SLOTS_PER_EPOCH
from tests.simulation.engine import Engine, Usage, ask, refused
from tests.simulation.fibers import Process
from verification import repair as repairing
from verification.repair import Held
from verification.states import Aggregates, Cut, Difference, Key

NOTHING = Aggregates(0, "0", "0", "0", "", 0)


def mend_states(process: Process) -> None:
    """An operator's process: makes anew the states that differ from their rows, if any do."""
    world = process.world
    engine: Any = world.engine
    ask("differences")
    wrong = engine.differing()
    repairing.repair(engine, [Difference(_key(usage), NOTHING, NOTHING) for usage in wrong], [])
    world.ledger.repaired()
    world.repaired()


def reached(engine: Engine) -> Cut:
    """Up to where the states are."""
    ask("where the states are")
    return {slot: upto + 1 for slot, upto in engine.reached().items()}


def rebuild(engine: Engine, keys: Sequence[Key], held: Sequence[Held]) -> None:
    """The two statements of a repair."""
    usages = [_usage(key) for key in keys]
    cut = reached(engine)
    owners = {each.slot: each.owner for each in held}
    refused(engine.execute("delete of states", "", engine.delete(usages, owners)))
    query_id = held[0].store.mark(held[0].partition, "repair")
    refused(engine.execute("states anew", query_id, engine.make_anew(usages, cut, owners)))


def _key(usage: Usage) -> Key:
    account, feature_id, customer = usage
    return Key(account, feature_id, customer, datetime.fromtimestamp(0, UTC), "")


def _usage(key: Key) -> Usage:
    return key.account, key.feature_id, key.external_customer_id


assert SLOTS_PER_EPOCH > 2  # block partitions of epoch 0 are their own slots
