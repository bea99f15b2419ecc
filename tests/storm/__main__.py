"""`make storm`: hurts the parts of a Tallylog under load, and sees whether it counts right."""

import json
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.storm import page, report, specials
from tests.storm.figures import Figure
from tests.storm.outages import measure
from tests.storm.plan import KINDS
from tests.storm.sql_port import beside_analysts
from tests.storm.storm import Options, Outcome, storm

out = Console(highlight=False)


def main(
    seed: Annotated[int, typer.Option(help="Decides all that is left to chance.")] = 1,
    minutes: Annotated[float, typer.Option(help="For so long; 0: --count decides.")] = 0,
    count: Annotated[int, typer.Option(help="So many faults; 0: --minutes decides.")] = 0,
    faults: Annotated[str, typer.Option(help=f"Of {','.join(KINDS)}.")] = ",".join(KINDS),
    session: Annotated[float, typer.Option(help="Session timeout of workers, s.")] = 3.0,
    pace: Annotated[float, typer.Option(help="Load: 1 is about 250 events/s.")] = 1.0,
    zombies: Annotated[int, typer.Option(help="Make so many zombies of a counter.")] = 0,
    lost_state: Annotated[int, typer.Option(help="Lose the counter's disk so often.")] = 0,
    outages: Annotated[bool, typer.Option(help="Take each server away; 15 min.")] = False,
    analysts: Annotated[
        bool, typer.Option(help="Let hostile analysts ask at the SQL port; 5 min.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="All that docs/RELIABILITY.md shows; hours.")
    ] = False,
    render: Annotated[bool, typer.Option(help="Only make the page of its figures.")] = False,
    write: Annotated[bool, typer.Option(help="Keep the figures for docs/RELIABILITY.md.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
) -> None:
    """Run a storm, or what is asked for instead; end with status 1 if anything is wrong."""
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # the engine dies often
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # and stop what was started
    results = page.read()
    if render:
        page.write(results)
        return
    kinds = faults.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise typer.BadParameter(f"--faults: {unknown[0]} is none of {', '.join(KINDS)}")
    options = Options(seed, minutes, count, kinds, session, pace)
    if everything:
        zombies, lost_state, outages, analysts = 20, 20, True, True
        options = replace(options, faults=330)
    outcomes: list[Outcome] = []
    figures: list[Figure] = []

    def keep(more: Sequence[Figure]) -> None:
        nonlocal results
        figures.extend(more)
        results = page.with_figures(results, more)
        if write:
            page.write(results)

    if zombies:
        outcomes.append(run(replace(options, kinds=("zombie",), faults=zombies, minutes=0)))
        keep([specials.zombies(outcomes[-1])])
    if lost_state:
        kinds_of_it = ("forget", "older")
        outcomes.append(run(replace(options, kinds=kinds_of_it, faults=lost_state, minutes=0)))
        keep(specials.lost_state(outcomes[-1]))
    if outages:
        folder = Path(tempfile.mkdtemp(prefix="tallylog-outages-"))
        keep(measure(folder, _tell))
    if analysts:
        beside = beside_analysts()
        for figure in beside:
            _tell(figure)
        keep(beside)
    if not (outcomes or outages or analysts) or options.minutes or options.faults:
        if not (options.minutes or options.faults):
            options = replace(options, faults=24)
        outcomes.append(run(options))
        results = page.with_storm(results, report.document(outcomes[-1]))
    if json_file is not None:
        found = {
            "storms": [report.document(each) for each in outcomes],
            "figures": [figure._asdict() for figure in figures],
        }
        json_file.write_text(json.dumps(found, indent=1) + "\n")
    if write:
        page.write(results)
    well = all(report.passed(each) for each in outcomes) and all(each.met for each in figures)
    sys.exit(not well)


def _tell(figure: Figure) -> None:
    colour = "green" if figure.met else "red"
    line = f"{figure.what}: {figure.measured} (wanted: {figure.target})"
    out.print(line, style=colour, markup=False)


def run(options: Options) -> Outcome:
    """One storm, told as it goes on; its folder stays when something is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="tallylog-storm-"))
    outcome = storm(folder, options, out)
    out.print(report.shown(outcome))
    if outcome.failure:
        out.print(f"It could not be ended: {outcome.failure}", style="red", markup=False)
    if report.passed(outcome):
        shutil.rmtree(folder)
        out.print(f"All is well, {outcome.seconds:.0f} s", style="green")
    else:
        out.print(f"Logs and journal are in {folder}", style="red")
    return outcome


if __name__ == "__main__":
    typer.run(main)
