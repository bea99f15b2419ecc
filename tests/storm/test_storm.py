"""A short storm: every part dies and stops, at random and between effects, and all is counted."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.storm import report
from tests.storm.parts import PARTS
from tests.storm.storm import Options, storm

KINDS = ("kill", "stop", "restart", "failpoint", "rebalance", "forget")
FAULTS = 18
SEED = 964
"""Its first faults kill 23 times, and every part; 20 without failpoints."""
KILLS = 20


@pytest.mark.e2e
def test_a_short_storm_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """Recoveries have no limit here: how long one takes says more about the machine."""
    options = Options(seed=SEED, minutes=0, faults=FAULTS, kinds=KINDS, session_s=2.0, pace=0.4)
    outcome = storm(tmp_path, options, Console())
    found = report.document(outcome)
    assert outcome.failure == ""
    assert (found["lost"], found["doubled"], found["differing"]) == (0, 0, [])
    assert sum(found["kills"].values()) >= KILLS
    assert all(found["kills"][part] for part in PARTS), found["kills"]
    assert found["verdicts"]["counted"] > 1000
    assert found["usage_compared"] > 100
    hit = [each for each in outcome.struck if each.hit]
    assert {each.fault.kind for each in hit} == set(KINDS)
