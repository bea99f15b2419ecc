"""docs/RELIABILITY.md, made of the figures in docs/reliability.json."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.storm.figures import Figure
from tests.storm.parts import PARTS

DOCS = Path(__file__).parents[2] / "docs"
FIGURES = DOCS / "reliability.json"
PAGE = DOCS / "RELIABILITY.md"
TEXT = Path(__file__).with_name("page.md")
STORMS_MAX = 6
SECTIONS = ("Zombies", "Lost state")
"""Those that come first; others follow in the order of their names."""
Results = dict[str, Any]
"""`storms`: report.document of each, newest first. `figures`: by section, its figures."""


def read(path: Path = FIGURES) -> Results:
    """The results so far."""
    if not path.exists():
        return {"storms": [], "figures": {}}
    found: Results = json.loads(path.read_text())
    return found


def with_storm(results: Results, storm: dict[str, Any]) -> Results:
    """The results with another storm, which takes the place of one with the same seed and kinds."""

    def key(each: dict[str, Any]) -> tuple[int, list[str]]:
        return each["seed"], each["kinds"]

    others = [each for each in results["storms"] if key(each) != key(storm)]
    return {**results, "storms": [storm, *others][:STORMS_MAX]}


def with_figures(results: Results, figures: Iterable[Figure]) -> Results:
    """The results with figures, which take the place of their sections'."""
    sections: dict[str, list[dict[str, Any]]] = {}
    for figure in figures:
        sections.setdefault(figure.section, []).append(figure._asdict())
    return {**results, "figures": {**results["figures"], **sections}}


def write(results: Results) -> None:
    """Write both files."""
    FIGURES.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(render(results))


def render(results: Results) -> str:
    """The page."""
    sections = [*SECTIONS, *sorted(results["figures"].keys() - set(SECTIONS))]
    parts = [_storms(results["storms"])]
    for section in sections:
        if section in results["figures"]:
            figures = [Figure(**each) for each in results["figures"][section]]
            parts.append(f"## {section}\n\n{_figures(figures)}")
    return TEXT.read_text().replace("$figures\n", "\n\n".join(parts) + "\n")


def _storms(storms: Sequence[dict[str, Any]]) -> str:
    if not storms:
        return "## Storms\n\nNone has been run yet."
    head = ["seed", "machine", "minutes", "faults", "kills", "events sent", "unknown"]
    head += ["rows compared", "lost", "doubled", "differing", "recovered, s: median", "max"]
    rows = []
    for each in storms:
        times = [time for time in each["recovery_s"].values() if time]
        rows.append(
            [
                each["seed"],
                each["machine"],
                f"{each['seconds'] / 60:.0f}",
                sum(sum(kinds.values()) for kinds in each["faults"].values()),
                sum(each["kills"].values()),
                f"{sum(each['sent'].values()):,}",
                f"{each['sent']['unknown']:,}",
                f"{sum(each['verdicts'].values()):,}",
                each["lost"],
                each["doubled"],
                len(each["differing"]) + bool(each["failure"]),
                " ".join(f"{time['median']:g}" for time in times),
                max(time["max"] for time in times),
            ]
        )
    newest = storms[0]
    hurt = [
        [
            part,
            newest["kills"][part],
            ", ".join(f"{kind} {n}" for kind, n in newest["faults"].get(part, {}).items()),
            *(_time(newest["recovery_s"][part], name) for name in ("median", "max")),
        ]
        for part in PARTS
    ]
    text = "## Storms\n\n" + _table(head, rows)
    text += "\n\nThe newest, part by part (the medians above are in this order; session timeout"
    text += f" {newest['session_timeout_s']:g} s):\n\n"
    text += _table(["part", "killed", "faults", "recovered, s: median", "max"], hurt)
    if newest["failpoints"]:
        text += "\n\n" + _table(
            ["failpoint", "hit", "nobody came by"],
            [[f"`{name}`", *counts] for name, counts in newest["failpoints"].items()],
        )
    if "inserts_given_up" in newest:
        text += (
            f"\n\nInserts that the counter gave up after {newest['session_timeout_s']:g} s "
            f"without an answer: {newest['inserts_given_up']}; {newest['landed_after_all']} of"
            " these blocks were in all the same. Counters that ended themselves as another owned"
            f" their partition: {newest['fenced']}. Late events that the sweep sent again:"
            f" {newest['resent']}."
        )
    for each in storms:
        for kind, why in each["left_out"].items():
            text += f"\n\nLeft out with seed {each['seed']}: {kind}, for {why}."
    return text


def _time(times: dict[str, float] | None, name: str) -> str:
    return "" if times is None else f"{times[name]:g}"


def _figures(figures: Iterable[Figure]) -> str:
    rows = [
        [each.what, each.target, each.measured, "yes" if each.met else "**no**"] for each in figures
    ]
    return _table(["what", "wanted", "measured", "met"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
