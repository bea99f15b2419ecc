"""The engine alone, the ceiling: the same rows, from Arrow columns and from its own blocks."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from clickhouse_connect.driver import Client

from clickhouse.client import Inserts, connect

PLAIN = "bench_plain"
NATIVE_ROWS = 65_000


@contextmanager
def _bare_table(client: Client) -> Iterator[None]:
    """A table with the columns of `events`, without order, checks and views."""
    client.command(f"DROP TABLE IF EXISTS {PLAIN} SYNC")
    client.command(f"CREATE TABLE {PLAIN} AS events ENGINE = MergeTree ORDER BY tuple()")
    client.command(f"ALTER TABLE {PLAIN} DROP CONSTRAINT IF EXISTS owner_is_current")
    try:
        yield
    finally:
        client.command(f"DROP TABLE {PLAIN} SYNC")


def plain_insert(url: str, streams: list[bytes]) -> float:
    """Seconds to insert the rows' Arrow streams into a bare copy of `events`, one after another."""
    client = connect(url)
    with _bare_table(client):
        return asyncio.run(_insert(url, streams))


def native_insert(url: str, events: int) -> float:
    """Rows a second of prepared blocks in the engine's own format; `events` has some rows."""
    client = connect(url)
    with _bare_table(client):
        limit = {"rows": NATIVE_ROWS}
        block = client.raw_query("SELECT * FROM events LIMIT {rows:UInt32}", limit, fmt="Native")
        stored = int(client.query("SELECT count() FROM events").result_rows[0][0])
        rows = min(stored, NATIVE_ROWS)
        times = -(-events // rows)
        started = time.perf_counter()
        for _ in range(times):
            client.raw_insert(PLAIN, insert_block=block, fmt="Native")
        return rows * times / (time.perf_counter() - started)


async def _insert(url: str, streams: list[bytes]) -> float:
    inserts = Inserts(url)
    try:
        started = time.perf_counter()
        for number, stream in enumerate(streams):
            await inserts.insert(PLAIN, stream, token=f"bench-{started}-{number}")
        return time.perf_counter() - started
    finally:
        await inserts.close()
