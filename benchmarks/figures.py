"""Figures: what a benchmark measured, run by run, and what it is held against."""

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

WORSE_RATE = 0.7
WORSE_TIME = 1.6


@dataclass(frozen=True)
class Figure:
    """One figure over several runs.

    section    The table that it stands in.
    name       Of what, its unit last; no two are alike. What ends with `/s` had better be large,
               everything else small.
    runs       Run by run.
    reference  Name of the figure that it is divided by; empty: of none.
    """

    section: str
    name: str
    runs: Sequence[float]
    reference: str = ""

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.runs)


def ratios(figures: Iterable[Figure]) -> dict[str, float]:
    """Of each figure whose reference was measured too, by name: its median over the reference's."""
    by_name = {figure.name: figure for figure in figures}
    return {
        name: figure.median / by_name[figure.reference].median
        for name, figure in by_name.items()
        if figure.reference in by_name
    }


def worse(figures: Iterable[Figure], recorded: Iterable[Figure]) -> list[str]:
    """What is worse than it was, beyond noise, in words: ratios to references, none of the others.

    A ratio of rates may be WORSE_RATE of the recorded one, one of times or sizes WORSE_TIME of it.
    """
    now, then = ratios(figures), ratios(recorded)
    lines = []
    for name in now.keys() & then.keys():
        change = now[name] / then[name]
        if change < WORSE_RATE if name.endswith("/s") else change > WORSE_TIME:
            lines.append(f"{name}: {now[name]:.2f} of its reference, recorded was {then[name]:.2f}")
    return sorted(lines)


def table(figures: Sequence[Figure], section: str) -> Table:
    """A section's figures: min, median and max, and beside what they are held against.

    `figures` holds the references, too. Those of the same section have no line of their own.
    """
    found = ratios(figures)
    medians = {figure.name: figure.median for figure in figures}
    own = [figure for figure in figures if figure.section == section]
    beside = {figure.reference for figure in own}
    shown = Table(title=section, title_justify="left")
    for column in ("figure", "min", "median", "max", "reference", "ratio"):
        shown.add_column(column, justify="left" if column == "figure" else "right")
    for figure in own:
        if figure.name in beside:
            continue
        cells = [min(figure.runs), figure.median, max(figure.runs)]
        if figure.name in found:
            cells += [medians[figure.reference], found[figure.name]]
        shown.add_row(figure.name, *map(written, cells))
    return shown


def written(value: float) -> str:
    """A figure with as many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    """What the figures were measured on."""
    return f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_json(path: Path, figures: Sequence[Figure]) -> None:
    """Write figures where `make bench-check` and other machines read them: a line each."""
    lines = [json.dumps(asdict(figure) | {"runs": _short(figure.runs)}) for figure in figures]
    text = f'{{"machine": {json.dumps(machine())}, "figures": [\n ' + ",\n ".join(lines) + "\n]}\n"
    path.write_text(text)


def _short(values: Sequence[float]) -> list[float]:
    """As much of each as means something."""
    return [float(f"{value:.5g}") for value in values]


def read_json(path: Path) -> list[Figure]:
    """The figures of `write_json`."""
    return [Figure(**each) for each in json.loads(path.read_text())["figures"]]


def percentile(values: Sequence[float], share: float) -> float:
    """What so large a share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
