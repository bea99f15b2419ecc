"""`make bench`: runs the benchmarks and prints a table, and JSON with --json FILE."""

import asyncio
import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import cores, engine, pipeline, workload
from benchmarks.stack import stack


@dataclass(frozen=True)
class Figure:
    """One measured figure over several runs, and how it compares with the reference."""

    name: str
    unit: str
    runs: list[float]

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.runs)


def main(
    events: Annotated[int, typer.Option(help="Events of each run.")] = 200_000,
    runs: Annotated[int, typer.Option(help="Runs of each figure.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
) -> None:
    """Measure packer core, counter core, plain insert, HTTP bulk to counted, and freshness."""
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress:
        figures = asyncio.run(_measure(events, runs, progress, console))
    reference = next(f for f in figures if f.name == REFERENCE)
    table = Table(title=f"Tallylog on {_machine()}, {events:,} events, {runs} runs")
    for column in ("figure", "min", "median", "max", "÷ plain insert"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for figure in figures:
        shown = [f"{value:,.0f}" for value in (min(figure.runs), figure.median, max(figure.runs))]
        ratio = f"{figure.median / reference.median:.2f}" if figure.unit == "events/s" else ""
        table.add_row(f"{figure.name}, {figure.unit}", *shown, ratio)
    console.print(table)
    if json_file is not None:
        found = {"machine": _machine(), "events": events, "figures": [asdict(f) for f in figures]}
        json_file.write_text(json.dumps(found, indent=2) + "\n")


REFERENCE = "plain insert of the same rows into the engine"


async def _measure(events: int, runs: int, progress: Progress, console: Console) -> list[Figure]:
    task = progress.add_task("making events", total=3 + 5 * runs)
    loads = [workload.make(events, seed=seed) for seed in range(runs)]
    progress.update(task, advance=1, description="packing and folding")
    cores.warm_up()
    pack_rates, count_rates = [], []
    streams: list[bytes] = []
    for load in loads:
        spent, blocks = cores.pack(load)
        pack_rates.append(events / spent)
        progress.update(task, advance=1)
        spent, streams = cores.count(blocks)
        count_rates.append(events / spent)
        progress.update(task, advance=1)
    progress.update(task, advance=1, description="starting a stack")
    async with stack() as ready:
        progress.update(task, advance=1, description="inserting, sending")
        await asyncio.to_thread(pipeline.create_features, ready)
        inserts, accepted, counted = [], [], []
        for load in loads:
            url = ready.clickhouse_url
            seconds = await asyncio.to_thread(engine.plain_insert, url, streams)
            inserts.append(events / seconds)
            progress.update(task, advance=1)
            first, last = await asyncio.to_thread(pipeline.bulk_to_counted, ready, load)
            accepted.append(events / first)
            counted.append(events / last)
            progress.update(task, advance=1)
        waits = await asyncio.to_thread(pipeline.freshness, ready, 10)
        progress.update(task, advance=1 * runs)
    return [
        Figure(REFERENCE, "events/s", inserts),
        Figure("packer core, one core's CPU", "events/s", pack_rates),
        Figure("counter core, one core's CPU", "events/s", count_rates),
        Figure("HTTP bulk of 500 → 202", "events/s", accepted),
        Figure("HTTP bulk of 500 → counted", "events/s", counted),
        Figure("202 → visible in the states, idle", "ms", [wait * 1000 for wait in waits]),
    ]


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


if __name__ == "__main__":
    typer.run(main)
