"""Starting: how long until all parts answer, and how fast lost claims are read back."""

import asyncio
import re
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks import counted
from benchmarks.figures import Figure
from benchmarks.stack import stack

SECTION = "starting"
READ_BACK = re.compile(r"block partition \d+: (\d+) claims read back in ([\d.]+) s")
PER_RECORD = 500
REFILL_MAX_S = 300.0


async def measure(events: int, runs: int) -> list[Figure]:
    """Starts on an empty folder, on one with events, and on one that has lost its claims."""
    empty = [await _start_s() for _ in range(runs)]
    with tempfile.TemporaryDirectory(prefix="tallylog-bench-") as name:
        folder = Path(name)
        async with stack(folder) as ready:
            await asyncio.to_thread(counted.create_features, ready)
            stored = events // PER_RECORD * PER_RECORD
            await asyncio.to_thread(counted.backlog, ready, events // PER_RECORD, PER_RECORD)
        again = await _start_s(folder)
        shutil.rmtree(folder / "claims")
        async with stack(folder):
            rate = await _read_back(folder, stored)
    return [
        Figure(SECTION, "on an empty folder, until ready, s", empty),
        Figure(SECTION, f"with {stored:,} events, until ready, s", [again]),
        Figure(SECTION, f"{stored:,} claims read back, claims/s", [rate]),
    ]


async def _start_s(folder: Path | None = None) -> float:
    """Seconds until all parts answer."""
    started = time.perf_counter()
    async with stack(folder):
        return time.perf_counter() - started


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
