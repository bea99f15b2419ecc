"""A Tallylog of a benchmark's own, on free ports and in a folder that goes with it."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from cli import up
from local_stack.ports import free_port, free_ports


@asynccontextmanager
async def stack(folder: Path | None = None) -> AsyncIterator[up.Ready]:
    """All of `tallylog up`, for the length of a block; in a folder that stays, if one is given."""
    with tempfile.TemporaryDirectory(prefix="tallylog-bench-") as own:
        kafka, clickhouse = free_ports(2)
        os.environ["TALLYLOG_KAFKA_PORT"] = str(kafka)
        os.environ["TALLYLOG_CLICKHOUSE_PORT"] = str(clickhouse)
        options = up.Options(folder or Path(own), port=free_port())
        async with up.running(options, Console(quiet=True)) as (ready, _):
            yield ready
