"""`make bench`: measures Tallylog, section by section, and prints a table of each.

Every figure that can be held against a reference of the same run is: machines differ, and are
noisy. `--check` holds the ratios against the recorded ones, `--record` keeps them.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import claims, cores, counted, engine, faust, gateway, reading, starting, storage
from benchmarks.figures import Figure, machine, read_json, table, worse, write_json
from benchmarks.stack import stack
from benchmarks.trickle import trickle
from cli.up import Ready
from clickhouse.client import connect

RECORDED = Path(__file__).parent / "recorded.json"
WIDTH = 130
HALF, NEARLY_ALL = 0.5, 0.9


@dataclass(frozen=True)
class Scale:
    """How much is measured: events of a run, runs, seconds of a load, and of one that goes on."""

    events: int
    runs: int
    seconds: float
    sustained_s: float
    rates: tuple[int, ...]
    trickle_s: float
    claims: int
    stored: int


FULL = Scale(400_000, 3, 8, 60, (10, 100, 1_000, 10_000), 20, 10_000_000, 10_000_000)
QUICK = Scale(4_000, 1, 1, 4, (10, 100), 3, 20_000, 20_000)


async def _cores(scale: Scale) -> list[Figure]:
    figures, streams = await asyncio.to_thread(cores.measure, scale.events, scale.runs)
    section = "engine"
    plain, native = [], []
    async with stack() as ready:
        await asyncio.to_thread(counted.create_features, ready)
        await asyncio.to_thread(counted.over_http, ready, scale.seconds)
        for _ in range(scale.runs):
            url = ready.clickhouse_url
            seconds = await asyncio.to_thread(engine.plain_insert, url, streams)
            plain.append(scale.events / seconds)
            native.append(await asyncio.to_thread(engine.native_insert, url, scale.events))
    from_blocks = "rows of events, from its own blocks, no order and no view, rows/s"
    from_columns = "the same from Arrow columns, rows/s"
    return [
        *figures,
        Figure(section, from_blocks, native),
        Figure(section, from_columns, plain, from_blocks),
    ]


async def _gateway(scale: Scale) -> list[Figure]:
    return [
        figure
        for workers in (1, 2)
        for figure in await gateway.measure(workers, scale.seconds, scale.runs)
    ]


async def _counted(scale: Scale) -> list[Figure]:
    section = "counted: stored, deduplicated, matched and in the states"
    async with stack() as ready:
        return await asyncio.to_thread(_count, ready, scale, section)


def _count(ready: Ready, scale: Scale, section: str) -> list[Figure]:
    counted.create_features(ready)
    idle = counted.freshness(ready, scale.sustained_s / 3)
    counted.over_http(ready, scale.seconds)  # what is made on first use
    http = counted.over_http(ready, scale.sustained_s)
    lasting = min(http.first_half, http.second_half)
    full = counted.over_http(ready, scale.sustained_s, NEARLY_ALL * lasting)
    half = counted.over_http(ready, scale.sustained_s / 3, HALF * lasting)
    native = counted.natively(ready, scale.sustained_s)
    arrays = [counted.backlog(ready, 2 * scale.events // 500, 500) for _ in range(scale.runs)]
    singles = [counted.backlog(ready, scale.events, 1) for _ in range(scale.runs)]
    bulk = "HTTP bulk of 500"
    obvious = f"{gateway.OBVIOUS}{gateway.ARRAY.name}, 2 workers, events/s"

    def of(name: str, *values: float, reference: str = "") -> Figure:
        return Figure(section, name, values, reference)

    return [
        of(f"{bulk}, events/s", http.rate, reference=obvious),
        of(f"{bulk}, first half of the minute, events/s", http.first_half),
        of(f"{bulk}, second half, events/s", http.second_half),
        of("native arrays of 500, events/s", native.rate),
        of("native arrays of 500 from a full log, events/s", *arrays),
        of("native single records from a full log, events/s", *singles),
        of("idle: 202 to seen in usage, median, ms", idle.median_s * 1000),
        of("at 0.9 of full: 202 to seen, p50, ms", full.probes.wait_s(0.5) * 1000),
        of("at 0.9 of full: 202 to seen, p99, ms", full.probes.wait_s(0.99) * 1000),
        of("at 0.9 of full: to 202, p99, ms", full.sent.ms(0.99)),
        of("at half: to 202, p99, ms", half.sent.ms(0.99)),
        *(of(f"CPU of an event, {part}, us", us) for part, us in http.cpu_us.items()),
        of("CPU of an event, all, us", sum(http.cpu_us.values())),
        *(of(f"memory, {part}, MiB", mib) for part, mib in http.resident_mib.items()),
        *(
            of(f"stored of an event, {name}, bytes", size)
            for name, size in storage.bytes_per_event(connect(ready.clickhouse_url)).items()
        ),
    ]


async def _faust(scale: Scale) -> list[Figure]:
    section = "the obvious Faust app"
    async with stack() as ready:
        with tempfile.TemporaryDirectory() as folder:
            rate = await asyncio.to_thread(
                faust.measure, ready.kafka, Path(folder), min(scale.events, 50_000)
            )
    return [Figure(section, "one event at a time, two Tables, events/s", [rate])]


async def _trickle(scale: Scale) -> list[Figure]:
    section = "small loads"
    figures = []
    async with stack() as ready:
        await asyncio.to_thread(counted.create_features, ready)
        for rate in scale.rates:
            found = await asyncio.to_thread(trickle, ready, rate, scale.trickle_s)
            figures += [
                Figure(section, f"{rate:,}/s: {name}", [value])
                for name, value in {
                    "cores, all": sum(found.cores.values()),
                    "cores, engine": found.cores["engine"],
                    "blocks/s": found.blocks_per_s,
                    "to 202, p99, ms": found.sent.ms(0.99),
                    "202 to seen, p50, ms": found.probes.wait_s(0.5) * 1000,
                }.items()
            ]
    return figures


async def _claims(scale: Scale) -> list[Figure]:
    return await asyncio.to_thread(claims.measure, scale.claims)


async def _starting(scale: Scale) -> list[Figure]:
    return await starting.measure(scale.stored // 5, scale.runs)


async def _reading(scale: Scale) -> list[Figure]:
    return await reading.measure_reading(scale.stored, 100 if scale is FULL else 3)


SECTIONS: dict[str, Callable[[Scale], Coroutine[None, None, list[Figure]]]] = {
    "cores": _cores,
    "gateway": _gateway,
    "counted": _counted,
    "faust": _faust,
    "trickle": _trickle,
    "claims": _claims,
    "starting": _starting,
    "reading": _reading,
}


def main(
    only: Annotated[list[str], typer.Option(help=f"Of {', '.join(SECTIONS)}; all.")] = [],  # noqa: B006 typer's
    quick: Annotated[bool, typer.Option(help="Only see that it runs.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
    record: Annotated[bool, typer.Option(help="Keep the figures for later checks.")] = False,
    check: Annotated[bool, typer.Option(help="Hold the ratios against the recorded ones.")] = False,
) -> None:
    """Measure and print. Ends with 1 when a check fails."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    if unknown := set(only) - set(SECTIONS):
        raise typer.BadParameter(f"{sorted(unknown)}: choose of {', '.join(SECTIONS)}")
    if check and not RECORDED.exists():
        raise typer.BadParameter("nothing is recorded to check against: run with --record first")
    console.print(f"Tallylog on {machine()}")
    figures: list[Figure] = []
    for name, measure in SECTIONS.items():
        if only and name not in only:
            continue
        with console.status(name):
            found = asyncio.run(measure(QUICK if quick else FULL))
        figures += found
        for section in dict.fromkeys(figure.section for figure in found):
            console.print(table(figures, section))
    for path in [json_file, RECORDED if record else None]:
        if path is not None:
            write_json(path, figures)
    if check:
        failed = worse(figures, read_json(RECORDED))
        for line in failed:
            console.print(f"[red]{line}")
        sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
