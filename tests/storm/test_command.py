"""One command makes the whole page."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.storm import __main__ as command
from tests.storm import page
from tests.storm.figures import Figure
from tests.storm.plan import Fault
from tests.storm.probe import Recovery
from tests.storm.storm import Options, Outcome, Struck

OUTAGE = Figure("Outages", "a", "0", "0", True)
ANALYSTS = Figure("SQL port", "p99", "1.5", "1.2", True)


def storm_of(options: Options) -> Outcome:
    """What would come of it: every fault hit."""
    struck = [
        Struck(Fault(kind, "counter", 0.1), True, Recovery(0.1, 0.2), ("counter",))
        for kind in options.kinds
        for _ in range(options.faults)
    ]
    return Outcome(replace(options), struck, fenced=3)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    each: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "run", storm_of)
    monkeypatch.setattr(command, "measure", lambda folder, tell: [OUTAGE])
    monkeypatch.setattr(command, "beside_analysts", lambda: [ANALYSTS])
    monkeypatch.setattr(page, "read", lambda: {"storms": [], "figures": {}})
    monkeypatch.setattr(page, "write", each.append)
    return each


def test_all_of_the_page_is_measured_and_written_as_it_ends(
    written: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(everything=True, seed=9, write=True, json_file=tmp_path / "figures.json")
    assert ended.value.code == 0
    assert list(written[0]["figures"]) == ["Zombies"]
    last = written[-1]
    assert set(last["figures"]) == {"Zombies", "Lost state", "Outages", "SQL port"}
    [storm] = last["storms"]
    assert storm["seed"] == 9
    assert "SQL port" in page.render(last)


def test_a_figure_that_is_not_met_is_a_failure(
    written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run", lambda options: replace(storm_of(options), fenced=0))
    with pytest.raises(SystemExit) as ended:
        command.main(zombies=20, minutes=0)
    assert ended.value.code == 1
    assert written == []
