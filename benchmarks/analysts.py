"""`python -m benchmarks.analysts`: what hostile queries of readers cost those who send events.

A stack of its own; single events at a steady rate, without and with so many analysts of several
accounts, in turn; the times from sending to 202, and to being seen in the states. A loop of the
lowest priority there is, in place of the analysts, says what any use of a core costs there.
"""

import asyncio
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import counted
from benchmarks.figures import percentile
from benchmarks.stack import stack
from cli.up import Ready
from local_stack.readers import PREFIX, Readers

QUERIES = [
    "SELECT count() FROM numbers(1e18)",
    "SELECT number, rand64() AS r FROM numbers(1e9) ORDER BY r",
    "SELECT count() FROM numbers(1e6) AS a, numbers(1e6) AS b WHERE a.number = b.number + 1",
    "SELECT rand64() % 1000000 AS g, count(), uniqExact(number) FROM numbers(1e9) GROUP BY g",
    "SELECT count() FROM numbers(1e12) WHERE match(toString(number), '(1+)+(2+)+3$')",
    "SELECT * FROM metered_events ORDER BY properties, event_id",
    "SELECT properties, count() FROM metered_events AS a, metered_events AS b GROUP BY ALL",
    "SELECT groupArray(number) FROM numbers(1e9)",
    "SELECT arraySort(x -> -x, range(1000000)) FROM numbers(1000)",
    "SELECT sum(cityHash64(repeat(toString(number), 1000))) FROM numbers(1e9)",
]
ACCOUNTS = ("default", *(f"analysts{number}" for number in range(9)))
"""Whose analysts they are: those of one account would mostly refuse each other."""
TARGET = 1.5
TIMEOUT_S = 60.0
WATCH_S = 0.1
"""Between looks at what is counted: they are load as well."""


@dataclass
class Times:
    """Seconds from sending an event to its 202, and to its being counted."""

    accepted: list[float] = field(default_factory=list)
    counted: list[float] = field(default_factory=list)

    def p99(self) -> tuple[float, float]:
        """What one in a hundred exceeds, of each."""
        return percentile(self.accepted, 0.99), percentile(self.counted, 0.99)


Login = tuple[str, str]
"""Name and password of a reader."""


def readers(engine_folder: Path) -> list[Login]:
    """A reader of each account."""
    made = Readers(engine_folder)
    return [(f"{PREFIX}{account}", made.create(account)) for account in ACCOUNTS]


@contextmanager
def analysts(url: str, logins: Sequence[Login], count: int) -> Iterator[Counter[int]]:
    """So many analysts in a process of their own; by exception code, their answers, at the end."""
    codes: Counter[int] = Counter()
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_ask_until_told, args=(url, logins, count, theirs))
    process.start()
    mine.recv()  # they have begun
    try:
        yield codes
    finally:
        mine.send(None)
        codes.update(mine.recv())
        process.join()


@contextmanager
def busy_loop() -> Iterator[None]:
    """A process that computes whenever nobody else wants to."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(loop.pid, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.setpriority(os.PRIO_PROCESS, loop.pid, 19)
        yield
    finally:
        loop.kill()
        loop.wait()


def _ask_until_told(url: str, logins: Sequence[Login], count: int, told: Connection) -> None:
    """In a session of their own: Linux shares out time among sessions, and theirs is not ours."""
    os.setsid()
    asyncio.run(_ask(url, logins, count, told))


async def _ask(url: str, logins: Sequence[Login], count: int, told: Connection) -> None:
    """Each asks again and again, until something is told."""
    codes: Counter[int] = Counter()
    async with httpx.AsyncClient(
        base_url=url,
        timeout=300,
        limits=httpx.Limits(max_connections=None),
        trust_env=False,
    ) as client:

        async def ask(first: int) -> None:
            auth = logins[first % len(logins)]
            for sql in itertools.islice(itertools.cycle(QUERIES), first, None):
                async with client.stream("POST", "/", content=sql, auth=auth) as answer:
                    codes[int(answer.headers.get("X-ClickHouse-Exception-Code", 0))] += 1
                    try:
                        async for _ in answer.aiter_raw():
                            pass
                    except httpx.RemoteProtocolError:
                        codes[-1] += 1  # a limit was reached on the way
                await asyncio.sleep(0.5)  # they try again

        tasks = [asyncio.create_task(ask(number)) for number in range(count)]
        await asyncio.sleep(1)
        told.send(None)
        await asyncio.to_thread(told.recv)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    told.send(dict(codes))


async def send(ready: Ready, seconds: float, per_s: float, mark: str) -> Times:
    """Send single events at a rate, whatever the answers take."""
    times = Times()
    root = ready.clickhouse_url.rpartition("/")[0]
    async with (
        httpx.AsyncClient(
            base_url=ready.base_url, headers={"x-api-key": ready.api_key}, trust_env=False
        ) as http,
        httpx.AsyncClient(base_url=root, trust_env=False, timeout=TIMEOUT_S) as store,
    ):
        begun: dict[str, float] = {}

        async def one(number: int) -> None:
            customer = f"{mark}-{number}"
            event = {"event_name": "api.calls", "external_customer_id": customer}
            started = begun[customer] = time.perf_counter()
            answer = await http.post("/v1/events", json=event, timeout=TIMEOUT_S)
            answer.raise_for_status()
            times.accepted.append(time.perf_counter() - started)

        async def watch() -> None:
            sql = (
                "SELECT DISTINCT external_customer_id FROM tallylog.usage_states"
                " WHERE startsWith(external_customer_id, {mark:String}) FORMAT TSV"
            )
            seen: set[str] = set()
            deadline = time.perf_counter() + seconds + TIMEOUT_S
            while len(seen) < int(seconds * per_s) and time.perf_counter() < deadline:
                answer = await store.post("/", content=sql, params={"param_mark": mark})
                now = time.perf_counter()
                for customer in set(answer.raise_for_status().text.split()) - seen:
                    seen.add(customer)
                    times.counted.append(now - begun[customer])
                await asyncio.sleep(WATCH_S)

        watching = asyncio.create_task(watch())
        start = time.perf_counter()
        sending = []
        for number in range(int(seconds * per_s)):
            await asyncio.sleep(max(0.0, start + number / per_s - time.perf_counter()))
            sending.append(asyncio.create_task(one(number)))
        await asyncio.gather(*sending)
        await watching
    if len(times.counted) < len(times.accepted):
        raise TimeoutError(f"{len(times.counted)} of {len(times.accepted)} events were counted")
    return times


@dataclass
class Found:
    """p99 of each round: (to 202, to counted) in seconds.

    without  Nothing else.
    beside   With analysts.
    loop     With a busy loop of the lowest priority in their place.
    """

    without: list[tuple[float, float]] = field(default_factory=list)
    beside: list[tuple[float, float]] = field(default_factory=list)
    loop: list[tuple[float, float]] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)

    def ratios(self) -> tuple[float, float]:
        """The medians beside analysts, as a multiple of those without."""
        pairs = [
            statistics.median(each[n] for each in self.beside)
            / statistics.median(each[n] for each in self.without)
            for n in (0, 1)
        ]
        return pairs[0], pairs[1]


async def measure(rounds: int, seconds: float, per_s: float, count: int) -> Found:
    """Start a stack, and send without and with analysts, and beside a loop, in turn."""
    found = Found()
    async with stack() as ready:
        await asyncio.to_thread(counted.create_features, ready)
        logins = await asyncio.to_thread(readers, Path(ready.data_dir) / "clickhouse")
        url = ready.clickhouse_url.rpartition("/")[0]
        await send(ready, 3, per_s, "warm")
        for number in range(rounds):
            times = await send(ready, seconds, per_s, f"quiet{number}")
            found.without.append(times.p99())
            with analysts(url, logins, count) as codes:
                times = await send(ready, seconds, per_s, f"busy{number}")
            found.beside.append(times.p99())
            found.codes += codes
            with busy_loop():
                times = await send(ready, seconds, per_s, f"loop{number}")
            found.loop.append(times.p99())
    return found


def main(
    rounds: Annotated[int, typer.Option(help="Rounds, each without and with analysts.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of each part of a round.")] = 20,
    per_s: Annotated[float, typer.Option(help="Single events a second.")] = 50,
    count: Annotated[int, typer.Option("--analysts", help="Who ask at the same time.")] = 50,
) -> None:
    """Measure p99 from sending to 202 and to counted, without and with hostile analysts."""
    found = asyncio.run(measure(rounds, seconds, per_s, count))
    table = Table(title=f"p99 of single events, ms; {count} analysts; {os.cpu_count()} cores")
    for column in ("", *(f"round {n + 1}" for n in range(rounds)), "median"):
        table.add_column(column, justify="right" if column else "left")
    for name, number in (("to 202", 0), ("to counted", 1)):
        for who, rows in (
            ("alone", found.without),
            ("beside analysts", found.beside),
            ("beside an idle loop", found.loop),
        ):
            values = [each[number] * 1000 for each in rows]
            table.add_row(
                f"{name}, {who}",
                *(f"{v:,.0f}" for v in values),
                f"{statistics.median(values):,.0f}",
            )
    console = Console(highlight=False)
    console.print(table)
    accepted, counted = found.ratios()
    console.print(
        f"ratio to 202: {accepted:.2f}, to counted: {counted:.2f} (wanted: at most {TARGET})"
    )
    console.print(f"answers to analysts, by exception code: {dict(found.codes.most_common())}")


if __name__ == "__main__":
    typer.run(main)
