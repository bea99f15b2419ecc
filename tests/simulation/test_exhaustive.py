"""Every fault at every effect of short histories; and every planted bug is found by them."""

from itertools import chain

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.histories import HISTORIES
from tests.simulation.runs import Failed, from_text, run, single_faults


@pytest.mark.parametrize("name", HISTORIES)
def test_each_event_counts_once_whatever_goes_wrong_wherever(name: str) -> None:
    tried = 0
    for plan in single_faults(name):
        run(name, plan)
        tried += 1
    assert tried > 40


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the fault that is known to show it, or by any: effects are renumbered now and then."""
    bug = BUGS[name]
    known = [from_text(bug.shown_by.split())]
    bug.plant(monkeypatch)
    with pytest.raises(Failed) as found:
        for plan in chain(known, single_faults(bug.history)):
            run(bug.history, plan)
    told = str(found.value)
    assert "come to life" not in told  # that would be a worker that can't even start,
    assert "fails without a fault" not in told or "NotOwner(" in told  # or a repair that can't


def test_a_history_happens_again_exactly_as_it_did() -> None:
    for plan in ({}, {25: "pause"}, {15: "engine"}):
        assert run("late", plan) == run("late", plan)
