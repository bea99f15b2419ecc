"""The engine alone, the reference: the same rows, inserted into a bare table."""

import asyncio
import time

from clickhouse.client import Inserts, connect

PLAIN = "bench_plain"


def plain_insert(url: str, streams: list[bytes]) -> float:
    """Seconds to insert the rows' Arrow streams into a bare copy of `events`, one after another."""
    client = connect(url)
    client.command(f"DROP TABLE IF EXISTS {PLAIN} SYNC")
    client.command(f"CREATE TABLE {PLAIN} AS events ENGINE = MergeTree ORDER BY tuple()")
    for constraint in ("owner_is_current",):
        client.command(f"ALTER TABLE {PLAIN} DROP CONSTRAINT IF EXISTS {constraint}")
    try:
        return asyncio.run(_insert(url, PLAIN, streams))
    finally:
        client.command(f"DROP TABLE {PLAIN} SYNC")


async def _insert(url: str, table: str, streams: list[bytes]) -> float:
    inserts = Inserts(url)
    try:
        started = time.perf_counter()
        for number, stream in enumerate(streams):
            await inserts.insert(table, stream, token=f"bench-{started}-{number}")
        return time.perf_counter() - started
    finally:
        await inserts.close()
