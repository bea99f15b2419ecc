"""A short storm: every part dies and stops, at random and between effects, and all is counted."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.storm import report
from tests.storm.parts import PARTS
from tests.storm.storm import Options, storm

KINDS = ("kill", "stop", "restart", "failpoint", "rebalance", "forget")
FAULTS = 16
SEED = 741246
"""Its first faults kill 22 times, and every part. One stops the engine for longer than an insert
has time; a counter's claims are gone as the sweep begins."""
KILLS = 20
SECONDS_MAX = 240
START_S = 9.0
"""A start that takes longer lets all of it take longer by as much. On two quiet cores a start takes
5.4 s, and all of it 140."""


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
    assert found["resent"] > 0
    assert found["inserts_given_up"] > 0
    assert set(outcome.hits) == set(KINDS)
    assert outcome.seconds < SECONDS_MAX * max(1.0, outcome.start_s / START_S)
