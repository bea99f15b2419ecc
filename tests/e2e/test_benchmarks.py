"""The benchmarks run, and what they print can be held against what was recorded."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import Figure, ratios, read_json, worse

SECTIONS = ("cores", "counted", "claims", "starting")
"""Of the quick ones; the others start the same things in another order."""


def test_sections_are_measured_and_written(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    only = [option for section in SECTIONS for option in ("--only", section)]
    command = [sys.executable, "-m", "benchmarks", "--quick", *only, "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    found = read_json(figures)
    assert len({figure.section for figure in found}) >= len(SECTIONS)
    assert all(value >= 0 for figure in found for value in figure.runs)
    rates = {figure.name: figure.median for figure in found if figure.name.endswith("/s")}
    nothing = [name for name, median in rates.items() if median <= 0 and "half" not in name]
    assert not nothing  # a half of so few seconds may end before the first block is stored
    assert len({figure.name for figure in found}) == len(found)
    references = {figure.reference for figure in found}  # stand in the lines of others
    own = [figure.name for figure in found if figure.name not in references]
    assert all(name.split(",")[0] in done.stdout for name in own)


RATE = Figure("a section", "bulk, events/s", [50, 40, 60], "reference, events/s")
TIME = Figure("a section", "to 202, ms", [5], "reference, ms")
REFERENCES = [
    Figure("a section", "reference, events/s", [100]),
    Figure("another", "reference, ms", [10]),
]


def test_a_ratio_is_of_medians_whatever_the_section() -> None:
    assert ratios([RATE, TIME, *REFERENCES]) == {RATE.name: 0.5, TIME.name: 0.5}
    assert ratios([RATE]) == {}


def test_what_is_worse_beyond_noise_is_told() -> None:
    recorded = [RATE, TIME, *REFERENCES]
    assert worse(recorded, recorded) == []
    noisy = [replace(RATE, runs=[40]), replace(TIME, runs=[7]), *REFERENCES]
    assert worse(noisy, recorded) == []
    slower = [replace(RATE, runs=[30]), replace(TIME, runs=[9]), *REFERENCES]
    assert [line.split(":")[0] for line in worse(slower, recorded)] == [RATE.name, TIME.name]
    assert worse(recorded, slower) == []
