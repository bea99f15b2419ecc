"""Reading usage: `python -m benchmarks.reading --events 10000000`, on an engine of its own.

How long a customer's month takes, and how many rows it reads, while events are being inserted.
"""

import asyncio
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count as counting_from
from pathlib import Path
from typing import Annotated, Any

import typer
from clickhouse_connect.driver import Client
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, percentile
from billing.measures import Measure
from billing.reading import measure
from billing.usage import Usage
from billing.windows import to_ms
from clickhouse.client import connect
from clickhouse.migrator import migrate
from console.debugger import rows_of
from local_stack.children import Children
from local_stack.clickhouse import clickhouse_child, clickhouse_url
from local_stack.ports import free_port
from local_stack.settings import StackSettings
from schemas.catalog import Aggregation, Feature, Reset, Status, Window
from schemas.lasting import keep_for_good

FILL = (Path(__file__).parent / "reading.sql").read_text(encoding="utf-8")
CHUNK = 200_000
BLOCK = 2_000
BLOCKS_PER_S = 4.0
START = to_ms(datetime(2025, 8, 1, tzinfo=UTC))
END = to_ms(datetime(2025, 9, 1, tzinfo=UTC))
ODD = (START + 1_234_567, END - 7_654_321)
"""A month with edges inside of hours."""
DAY = 86_400_000
KINDS = ["COUNT", "SUM", "AVG", "COUNT_UNIQUE", "LATEST", "SUM_WITH_MULTIPLIER", "MAX",
         "WEIGHTED_SUM", "SUM", "MAX"]  # fmt: skip
"""Of the features, in turn; of ten the ninth is never reset, the last has minutes as buckets."""


@dataclass(frozen=True)
class Read:
    """How long a read took, run by run, in ms; and how many rows and queries one took."""

    name: str
    runs: list[float]
    rows: int
    queries: int

    def ms(self, share: float) -> float:
        """What so many of the runs took at most."""
        return percentile(self.runs, share)


class Counting:
    """A client that counts its queries, and the rows that they read."""

    def __init__(self, client: Client) -> None:
        self.queries = self.rows = 0
        self._client = client

    def query(self, *args: Any, **kwargs: Any) -> Any:
        """As the client's."""
        result = self._client.query(*args, **kwargs)
        self.queries += 1
        self.rows += int(result.summary["read_rows"])
        return result

    @contextmanager
    def query_row_block_stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As the client's."""
        self.queries += 1
        with self._client.query_row_block_stream(*args, **kwargs) as blocks:
            self.rows += int(blocks.source.summary["read_rows"])
            yield blocks


def feature(number: int) -> Feature:
    """One of the 20 features."""
    kind = Aggregation(KINDS[number % 10])
    return Feature(
        id=f"feat_{number}",
        meter_id=f"meter_{number}",
        account="bench",
        event_name=f"name.{number}",
        aggregation=kind,
        field=None if kind is Aggregation.COUNT else "n",
        multiplier=Decimal(2) if kind is Aggregation.SUM_WITH_MULTIPLIER else None,
        bucket_size=Window.MINUTE if number % 10 == 9 else None,
        group_by=None,
        filters=(),
        reset_usage=Reset.NEVER if number % 10 == 8 else Reset.BILLING_PERIOD,
        status=Status.PUBLISHED,
        created_version=1,
        version=1,
    )


def month(number: int, customer: str = "c7", start: int = START, end: int = END) -> Measure:
    """A customer's month of a feature."""
    return Measure(feature(number), customer, start, end)


READS: dict[str, list[Measure]] = {
    "SUM, a month": [month(1)],
    "SUM, a month with odd edges": [month(1, start=ODD[0], end=ODD[1])],
    "COUNT, a month of a tenth of all events": [month(0, "c0")],
    "COUNT_UNIQUE, a month with odd edges": [month(3, start=ODD[0], end=ODD[1])],
    "MAX by the minute, a month": [month(9)],
    "SUM, a month and its days": [
        month(1),
        *(month(1, start=START + k * DAY, end=START + (k + 1) * DAY) for k in range(31)),
    ],
    "20 features, a month": [month(number) for number in range(20)],
    "20 features, a month with odd edges": [
        month(number, start=ODD[0], end=ODD[1]) for number in range(20)
    ],
}


def fill(client: Client, first: int, count: int, events: int) -> None:
    """Store `count` of `events` synthetic events, from number `first` on."""
    parameters = {"first": first, "count": count, "events": events, "aggregations": KINDS}
    client.command(FILL, parameters=parameters)


def look_up(client: Any, number: int) -> None:
    """Look for an event by its id, as the debugger does."""
    rows_of(client, "bench", f"evt_{number}", None)


def timed(name: str, client: Client, runs: int, read: Callable[[Any], object]) -> Read:
    """Run a read some times; the first, which warms up, counts rows instead."""
    counting = Counting(client)
    read(counting)
    spent = []
    for _ in range(runs):
        started = time.perf_counter()
        read(client)
        spent.append((time.perf_counter() - started) * 1000)
    return Read(name, spent, counting.rows, counting.queries)


@contextmanager
def ingesting(url: str, first: int, events: int, a_second: float) -> Iterator[None]:
    """Blocks of 2000 events are inserted meanwhile, so many a second if the machine can."""
    stop = threading.Event()

    def work() -> None:
        client = connect(url)
        number = first
        while not stop.is_set():
            started = time.perf_counter()
            fill(client, number, BLOCK, events)
            number += BLOCK
            stop.wait(max(0.0, 1 / a_second - (time.perf_counter() - started)))
        client.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure_all(url: str, events: int, runs: int, a_second: float) -> list[Read]:
    """Every read while events are inserted; groups, which read events, by fewer runs."""
    keep_for_good()  # as the console does
    client = connect(url)
    figures = []
    with ingesting(url, events, events, a_second) if a_second else nullcontext():
        for name, measures in READS.items():
            read = lambda asked, measures=measures: measure(asked, measures)  # noqa: E731
            figures.append(timed(name, client, runs, read))
        for name, group_by in (("source", ("source",)), ("property", ("properties.region",))):
            usage = Usage(feature(1), "c7", group_by=group_by)
            read = lambda asked, usage=usage: usage.groups(asked, [(START, END)])  # noqa: E731
            figures.append(timed(f"SUM, a month by {name}", client, max(1, runs // 5), read))
        for name, first in (("stored", 0), ("that never came", 2 * events)):
            numbers = counting_from(first, max(1, events // (runs + 1)))
            seek = lambda asked, numbers=numbers: look_up(asked, next(numbers))  # noqa: E731
            figures.append(timed(f"an event by its id, {name}", client, runs, seek))
    client.close()
    return figures


async def read_all(events: int, runs: int, rates: Sequence[float]) -> list[list[Read]]:
    """Every read with so many events stored, at each rate of blocks inserted meanwhile."""
    with tempfile.TemporaryDirectory(prefix="tallylog-bench-") as folder:
        settings = StackSettings(data_dir=Path(folder), clickhouse_port=free_port())
        children = Children(Path(folder) / "logs")
        await children.start(clickhouse_child(settings))
        try:
            url = clickhouse_url(settings)
            await asyncio.to_thread(migrate, url)
            await asyncio.to_thread(_fill_all, url, events)
            return [await asyncio.to_thread(measure_all, url, events, runs, rate) for rate in rates]
        finally:
            await children.stop()


async def measure_reading(events: int, runs: int = 100) -> list[Figure]:
    """What `make bench` shows: a few of the reads, idle and while events are inserted."""
    section = f"reading usage, {events:,} events stored"
    figures = []
    moments = ("idle", f"{BLOCK * BLOCKS_PER_S:,.0f}/s inserted")
    for moment, found in zip(moments, await read_all(events, runs, (0, BLOCKS_PER_S)), strict=True):
        for read in found:
            head = f"{read.name}, {moment}, {events:,} stored"
            figures += [
                Figure(section, f"{head}, p50, ms", [read.ms(0.5)]),
                Figure(section, f"{head}, p99, ms", [read.ms(0.99)]),
                Figure(section, f"{head}, rows read", [read.rows]),
            ]
    return figures


def _fill_all(url: str, events: int) -> None:
    client = connect(url)
    for first in range(0, events, CHUNK):
        fill(client, first, min(CHUNK, events - first), events)
    while client.command("SELECT count() FROM system.merges"):
        time.sleep(0.5)
    client.close()


def main(
    events: Annotated[int, typer.Option(help="Events stored.")] = 1_000_000,
    runs: Annotated[int, typer.Option(help="Runs of each read.")] = 100,
    blocks: Annotated[float, typer.Option(help="Blocks of 2000 inserted a second.")] = BLOCKS_PER_S,
) -> None:
    """Measure reads of usage while events are inserted."""
    console = Console(highlight=False)
    with console.status("storing events and reading"):
        figures = asyncio.run(read_all(events, runs, (blocks,)))[0]
    ingest = f"{blocks * BLOCK:,.0f} a second inserted meanwhile"
    title = f"{events:,} events stored, {ingest}; {os.cpu_count()} cores, {runs} runs"
    table = Table(title=title)
    for column in ("read", "queries", "rows read", "p50, ms", "p99, ms"):
        table.add_column(column, justify="left" if column == "read" else "right")
    for figure in figures:
        times = (statistics.median(figure.runs), figure.ms(0.99))
        counts = (str(figure.queries), f"{figure.rows:,}")
        table.add_row(figure.name, *counts, *(f"{each:.1f}" for each in times))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
