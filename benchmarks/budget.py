"""Where each microsecond of an event goes: `python -m benchmarks.budget --events 400000`.

The CPU time of every part, from the first HTTP bulk request until the last event is counted, and
then until the engine has merged what was written.
"""

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import pipeline, workload
from benchmarks.stack import stack
from cli import up
from clickhouse.client import connect

WARM_UP_EVENTS = 20_000
QUIET_S = 2.0


@dataclass(frozen=True)
class Budget:
    """What a part took for each event: user and system CPU in us, and its memory in MiB."""

    part: str
    user_us: float
    system_us: float
    resident_mib: int

    @property
    def us(self) -> float:
        """Both."""
        return self.user_us + self.system_us


def main(
    events: Annotated[int, typer.Option(help="Events to send.")] = 400_000,
    per_record: Annotated[int, typer.Option(help="Events a request.")] = 500,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
) -> None:
    """Send events over HTTP bulk and print the CPU that each part took for one."""
    rate, budgets = asyncio.run(_measure(events, per_record))
    table = Table(title=f"{events:,} events in bulks of {per_record}: {rate:,.0f} counted a second")
    for column in ("part", "user us", "system us", "us an event", "MiB"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for each in budgets:
        figures = [f"{value:.2f}" for value in (each.user_us, each.system_us, each.us)]
        table.add_row(each.part, *figures, str(each.resident_mib))
    table.add_row("all", "", "", f"{sum(each.us for each in budgets):.2f}", "")
    Console(highlight=False).print(table)
    if json_file is not None:
        found = {"rate": rate, "parts": [asdict(each) for each in budgets]}
        json_file.write_text(json.dumps(found, indent=2) + "\n")


async def _measure(events: int, per_record: int) -> tuple[float, list[Budget]]:
    async with stack() as ready:
        return await asyncio.to_thread(_send, ready, events, per_record)


def _send(ready: up.Ready, events: int, per_record: int) -> tuple[float, list[Budget]]:
    pipeline.create_features(ready)
    pipeline.bulk_to_counted(ready, workload.make(WARM_UP_EVENTS, per_record, seed=0))
    load = workload.make(events, per_record, seed=1)
    parts = _parts()
    before = {name: process.cpu_times() for name, process in parts.items()}
    _, seconds = pipeline.bulk_to_counted(ready, load)
    client = connect(ready.clickhouse_url)
    while client.command("SELECT count() FROM system.merges"):
        time.sleep(QUIET_S)
    budgets = []
    for name, process in parts.items():
        now, then = process.cpu_times(), before[name]
        budgets.append(
            Budget(
                name,
                (now.user - then.user) / events * 1e6,
                (now.system - then.system) / events * 1e6,
                process.memory_info().rss >> 20,
            )
        )
    return events / seconds, budgets


def _parts() -> dict[str, psutil.Process]:
    """The processes below this one by the part that each is: the largest of a kind."""
    found: dict[str, psutil.Process] = {}
    for process in psutil.Process().children(recursive=True):
        command = process.cmdline()
        name = next((part for part, mark in _MARKS.items() if mark in command), None)
        if name is None:
            continue
        known = found.get(name)
        if known is None or process.memory_info().rss > known.memory_info().rss:
            found[name] = process
    return found


_MARKS = {
    "gateway and console": "serve",
    "packer": "packer",
    "counter": "counter",
    "Kafka": "kafka.Kafka",
    "engine": "local_stack.clickhouse",
}


if __name__ == "__main__":
    typer.run(main)
