"""Long histories: hypothesis chooses what happens, to whom, and in which order."""

import os
from contextlib import ExitStack
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.simulation import deeds
from tests.simulation.ledger import Wrong
from tests.simulation.runs import Failed
from tests.simulation.world import World, new_world, told

LONG = int(os.environ.get("TALLYLOG_TEST_SIMULATION", "1"))
"""How many times as much as a CI run has time for."""


def _pick(data: st.DataObject) -> deeds.Pick:
    return lambda n: data.draw(st.integers(0, n - 1)) if n > 1 else 0


class Chaos(RuleBasedStateMachine):
    """Deeds in any order; in the end everything comes to rest and has to be right."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.world = self._stack.enter_context(new_world(**deeds.shape_of(_pick(data))))

    def _do(self, deed: Any, data: st.DataObject) -> None:
        try:
            deed(self.world, _pick(data))
        except Wrong as error:
            raise Failed(f"{told(self.world.trail)}\n{error}") from error

    @rule(data=st.data())
    def produce(self, data: st.DataObject) -> None:
        self._do(deeds.produce, data)

    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        self._do(deeds.go_on, data)

    @rule(data=st.data())
    def strike(self, data: st.DataObject) -> None:
        self._do(deeds.strike, data)

    @rule(data=st.data(), deed=st.sampled_from(deeds.DEEDS))
    def anything(self, data: st.DataObject, deed: Any) -> None:
        self._do(deed, data)

    def teardown(self) -> None:
        with self._stack:
            if hasattr(self, "world"):
                self._do(lambda world, _: (world.settle(), world.check()), None)  # type: ignore[arg-type]


TestChaos = Chaos.TestCase
TestChaos.settings = settings(
    deadline=None,
    max_examples=25 * LONG,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_what_chance_does_with_a_few_seeds() -> None:
    for seed in range(15 * LONG):
        deeds.chaos(seed, 60)
