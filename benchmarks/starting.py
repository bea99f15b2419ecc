"""Starting: how long until all parts answer, and how fast lost claims are read back."""

import asyncio
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from benchmarks import counted
from benchmarks.figures import Figure
from cli import up
from local_stack.ports import free_port, free_ports

SECTION = "starting"
READ_BACK = re.compile(r"block partition \d+: (\d+) claims read back in ([\d.]+) s")
PER_RECORD = 500
REFILL_MAX_S = 300.0


async def measure(events: int, runs: int) -> list[Figure]:
    """Starts on an empty folder, on one with events, and on one that has lost its claims."""
    empty = [await _start_once() for _ in range(runs)]
    with tempfile.TemporaryDirectory(prefix="tallylog-bench-") as name:
        folder = Path(name)
        async with _started(folder) as (ready, _):
            await asyncio.to_thread(counted.create_features, ready)
            stored = events // PER_RECORD * PER_RECORD
            await asyncio.to_thread(counted.backlog, ready, events // PER_RECORD, PER_RECORD)
        async with _started(folder) as (_, again):
            pass
        shutil.rmtree(folder / "claims")
        async with _started(folder):
            rate = await _read_back(folder, stored)
    return [
        Figure(SECTION, "on an empty folder, until ready, s", empty),
        Figure(SECTION, f"with {stored:,} events, until ready, s", [again]),
        Figure(SECTION, f"{stored:,} claims read back, claims/s", [rate]),
    ]


async def _start_once() -> float:
    with tempfile.TemporaryDirectory(prefix="tallylog-bench-") as folder:
        async with _started(Path(folder)) as (_, took):
            return took


@asynccontextmanager
async def _started(folder: Path) -> AsyncIterator[tuple[up.Ready, float]]:
    """All of `tallylog up` on a folder, and how long it took."""
    kafka, clickhouse = free_ports(2)
    os.environ["TALLYLOG_KAFKA_PORT"] = str(kafka)
    os.environ["TALLYLOG_CLICKHOUSE_PORT"] = str(clickhouse)
    started = time.perf_counter()
    options = up.Options(folder, port=free_port())
    async with up.running(options, Console(quiet=True)) as (ready, _):
        yield ready, time.perf_counter() - started


async def _read_back(folder: Path, claims: int) -> float:
    """Claims a second, once the counter has told of so many. Raises TimeoutError."""
    log = folder / "logs" / "counter.log"
    async with asyncio.timeout(REFILL_MAX_S):
        while True:
            text = await asyncio.to_thread(log.read_text)
            found = [(int(count), float(took)) for count, took in READ_BACK.findall(text)]
            if sum(count for count, _ in found) >= claims:
                # Its log tells tenths of a second.
                return claims / max(sum(took for _, took in found), 0.1)
            await asyncio.sleep(0.1)
