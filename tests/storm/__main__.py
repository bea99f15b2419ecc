"""`make storm`: hurts the parts of a Tallylog under load, and sees whether it counts right."""

import logging
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.storm.plan import KINDS
from tests.storm.storm import Options, storm

out = Console(highlight=False)


def main(
    seed: Annotated[int, typer.Option(help="Decides all that is left to chance.")] = 1,
    minutes: Annotated[float, typer.Option(help="How long; 0: --count decides.")] = 0,
    count: Annotated[int, typer.Option(help="How many faults; 0: --minutes decides.")] = 24,
    faults: Annotated[str, typer.Option(help=f"Of {','.join(KINDS)}.")] = ",".join(KINDS),
    session: Annotated[float, typer.Option(help="Session timeout of workers, s.")] = 4.0,
) -> None:
    """Run a storm."""
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # the engine dies often
    kinds = faults.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(KINDS)}")
    folder = Path(tempfile.mkdtemp(prefix="tallylog-storm-"))
    options = Options(seed, minutes, count, kinds, session)
    outcome = storm(folder, options, out.print)
    out.print(outcome.kills, outcome.findings, outcome.sends, outcome.failure, outcome.seconds)
    sys.exit(not outcome.findings.well or bool(outcome.failure))


if __name__ == "__main__":
    typer.run(main)
