"""Claims on disk: `python -m benchmarks.claims --ids 100000000`, how a look-up grows with them."""

import os
import secrets
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.figures import Figure, table
from stream_workers.claim_store import ClaimStore
from stream_workers.claims import KEY_BYTES, Claims, Keys, claims_at

HORIZON_MS = 35 * 24 * 3_600_000
BLOCK_TIME_MS = 1_755_850_000_000
BATCH = 4_000
LOOK_UPS = 200
ENGINE_PARTITIONS = 4
SECTION = "claims on disk"


def _keys(count: int) -> Keys:
    """New random keys, in order, as the counter has them."""
    return _ordered(Keys.of(secrets.token_bytes(KEY_BYTES * count)))


def measure(ids: int, advance: Callable[[int], object] = lambda _: None) -> list[Figure]:
    """Fill one partition's store with ids, then look up new and known ones, batch by batch.

    `advance` is told of the ids that were written.
    """
    with tempfile.TemporaryDirectory(prefix="tallylog-bench-") as folder:
        background = ThreadPoolExecutor(1)
        store = ClaimStore(
            Path(folder) / "0", identity="bench", horizon_ms=HORIZON_MS, background=background
        )
        known: list[Keys] = []
        writing = []
        rows = np.arange(BATCH, dtype=np.uint32)
        for offset in range(ids // BATCH):
            keys = _keys(BATCH)
            claims = Claims(keys, claims_at(0, offset, rows, BLOCK_TIME_MS, rows))
            started = time.perf_counter()
            store.write(offset, BLOCK_TIME_MS, claims)
            writing.append((time.perf_counter() - started) / BATCH * 1e6)
            if offset % max(1, ids // BATCH // LOOK_UPS) == 0:
                known.append(keys)
            advance(BATCH)
        absent = [_timed(store, _keys(BATCH)) for _ in range(LOOK_UPS)]
        rng, old = np.random.default_rng(1), _ordered(Keys.joined(known))
        present = [
            _timed(store, old.take(np.sort(rng.choice(len(old), BATCH)))) for _ in range(LOOK_UPS)
        ]
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        memory = psutil.Process(os.getpid()).memory_info().rss
        store.close()
    label = f"{ids / 1e6:,.0f} M ids"
    return [
        Figure(SECTION, f"{label}: write, us a claim", [sum(writing) / len(writing)]),
        Figure(SECTION, f"{label}: look up new ids, us each", absent),
        Figure(SECTION, f"{label}: look up known ids, us each", present),
        Figure(SECTION, f"{label}: disk, bytes a claim", [size / ids]),
        Figure(SECTION, f"{label}: memory of the process, MiB", [memory / (1 << 20)]),
    ]


def _ordered(keys: Keys) -> Keys:
    return keys.take(np.argsort(keys.heads))


def _timed(store: ClaimStore, keys: Keys) -> float:
    started = time.perf_counter()
    store.look_up(keys, BLOCK_TIME_MS)
    return (time.perf_counter() - started) / len(keys) * 1e6


def main(
    ids: Annotated[list[int], typer.Option(help="How many; may be repeated.")] = [1_000_000],  # noqa: B006 typer's
) -> None:
    """Write claims and look some up, of each size in turn."""
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress:
        figures = []
        for count in ids:
            task = progress.add_task(f"writing {count:,} claims", total=count)
            figures += measure(count, partial(progress.advance, task))
    console.print(table(figures, SECTION))


if __name__ == "__main__":
    typer.run(main)
