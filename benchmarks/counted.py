"""All of it: events in, counted usage out, for so long that no queue hides what is slow."""

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import httpx
import numpy as np
from clickhouse_connect.driver import Client

from benchmarks import native, parts
from benchmarks.figures import percentile
from benchmarks.load import Load, Running, Sent, sending
from benchmarks.workload import FEATURES, arrays, bodies
from cli.up import Ready
from clickhouse.client import connect
from schemas.topics import NATIVE_PREFIX

PER_REQUEST = 500
CONNECTIONS = 8
POLL_S = 0.2
"""Between looks at what is stored and seen: each takes the engine some 5 ms."""
IDLE_POLL_S = 0.005
PROBE_EVERY_S = 0.5
WINDOW = 250_000
"""Events under way at most, from being sent to being counted: the lag is flat."""
SETTLE_S = 120.0


@dataclass(frozen=True)
class Counted:
    """What came of a minute: counted events a second, their way, and what each part took.

    first_half, second_half  The rate of each half: alike when nothing piles up.
    probes                   Single events among them.
    cpu_us                   CPU of each part for an event.
    """

    sent: Sent
    rate: float
    first_half: float
    second_half: float
    probes: "Probes"
    cpu_us: dict[str, float]
    resident_mib: dict[str, int]


def create_features(ready: Ready) -> None:
    """The features that count the workload."""
    with httpx.Client(base_url=ready.base_url, headers={"x-api-key": ready.api_key}) as client:
        for feature in FEATURES:
            client.post("/v1/features", json=feature).raise_for_status()


def over_http(ready: Ready, seconds: float, rate: float = 0.0) -> Counted:
    """Bulk requests, as fast as they are counted or so many events a second."""
    load = Load(
        "/v1/events/bulk",
        bodies(40, PER_REQUEST),
        CONNECTIONS,
        seconds,
        rate / PER_REQUEST,
        limited=not rate,
    )
    with sending(ready.base_url, ready.api_key, load) as running:
        return _follow(ready, running, seconds)


def natively(ready: Ready, seconds: float) -> Counted:
    """Native records of 500 events, as fast as they are counted."""
    topic = f"{NATIVE_PREFIX}{ready.account}"
    with native.producing(ready.kafka, topic, arrays(40, PER_REQUEST), seconds) as running:
        return _follow(ready, running, seconds)


def backlog(ready: Ready, records: int, per_record: int) -> float:
    """Events a second at which a log that was written before is counted."""
    client = connect(ready.clickhouse_url)
    topic = f"{NATIVE_PREFIX}{ready.account}"
    before = _stored(client)
    with parts.stopped("packer"):
        values = arrays(1000 if per_record == 1 else 40, per_record)
        events = asyncio.run(native.fill(ready.kafka, topic, values, records))
    started, last_look = time.perf_counter(), time.perf_counter()
    while (stored := _stored(client) - before) < events:
        now = time.perf_counter()
        if not stored:
            started = last_look  # nothing was stored by then
        if now - started > SETTLE_S:
            raise TimeoutError(f"{stored} of {events} were stored")
        last_look = now
        time.sleep(POLL_S / 10 if not stored else POLL_S)
    return events / (time.perf_counter() - started)


def _follow(ready: Ready, running: Running, seconds: float) -> Counted:
    """Let a load send while what it sent is counted, and see to it that all of it is."""
    client = connect(ready.clickhouse_url)
    states, stored = _in_states(client), _stored(client)
    cpu = parts.cpu_s()
    marks: list[tuple[float, int]] = []
    with probing(ready) as probes:
        running.allow(WINDOW)
        started = time.perf_counter()
        while not running.over:
            now = _stored(client) - stored
            marks.append((time.perf_counter() - started, now))
            running.allow(now + WINDOW)
            time.sleep(POLL_S)
        sent = running.result().check()
    total = sent.events + len(probes.waits_s)
    deadline = time.perf_counter() + SETTLE_S
    while (counted := _in_states(client) - states) < total:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{counted} of {total} events were counted")
        time.sleep(POLL_S)
    if counted > total:
        raise RuntimeError(f"{counted} events were counted, {total} sent")
    spent = {name: (now - cpu[name]) / total * 1e6 for name, now in parts.cpu_s().items()}
    half = seconds / 2
    return Counted(
        sent,
        _rate(marks, 0.1 * seconds, seconds),
        _rate(marks, 0.1 * seconds, half),
        _rate(marks, half, seconds),
        probes,
        spent,
        parts.resident_mib(),
    )


def _rate(marks: list[tuple[float, int]], start: float, end: float) -> float:
    """Rows stored a second between two moments."""
    moments, rows = zip(*marks, strict=True)
    least, most = np.interp([start, end], moments, rows)
    return float(most - least) / (end - start)


def _stored(client: Client) -> int:
    """Rows in `events`: cheap to ask at any size, and however many parts there were."""
    rows = client.query(
        "SELECT total_rows FROM system.tables"
        " WHERE database = currentDatabase() AND name = 'events'"
    ).result_rows
    return int(rows[0][0])


def _in_states(client: Client) -> int:
    rows = client.query("SELECT sum(event_count) FROM usage_states").result_rows
    return int(rows[0][0])


@dataclass
class Probes:
    """Single events sent among others, and seconds from the 202 of each to being seen in usage."""

    waits_s: list[float] = field(default_factory=list)

    def wait_s(self, share: float) -> float:
        """What so many of them took at most."""
        return percentile(self.waits_s, share)

    @property
    def median_s(self) -> float:
        """The middle one."""
        return statistics.median(self.waits_s)


@contextmanager
def probing(
    ready: Ready, every_s: float = PROBE_EVERY_S, poll_s: float = POLL_S
) -> Iterator[Probes]:
    """Probe from a thread meanwhile, and wait for the last at the end."""
    probes, stop = Probes(), Event()

    def probe() -> None:
        client = connect(ready.clickhouse_url)
        due: dict[str, float] = {}
        number, next_at = 0, 0.0
        headers = {"x-api-key": ready.api_key}
        with httpx.Client(base_url=ready.base_url, headers=headers, timeout=60) as http:
            while not stop.is_set() or due:
                now = time.perf_counter()
                if now >= next_at and not stop.is_set():
                    customer = f"probe_{time.time_ns()}_{number}"
                    event = {"event_name": "api.calls", "external_customer_id": customer}
                    http.post("/v1/events", json=event).raise_for_status()
                    due[customer] = time.perf_counter()
                    number, next_at = number + 1, now + every_s
                for customer in _seen(client, ready.account, list(due)):
                    probes.waits_s.append(time.perf_counter() - due.pop(customer))
                time.sleep(poll_s)

    thread = Thread(target=probe)
    thread.start()
    try:
        yield probes
    finally:
        stop.set()
        thread.join()


def _seen(client: Client, account: str, customers: list[str]) -> list[str]:
    """Which of the customers have usage."""
    if not customers:
        return []
    rows = client.query(
        "SELECT DISTINCT external_customer_id FROM usage_states WHERE account = {account:String}"
        " AND feature_id != '' AND external_customer_id IN {customers:Array(String)}",
        {"account": account, "customers": customers},
    ).result_rows
    return [row[0] for row in rows]


def freshness(ready: Ready, seconds: float) -> Probes:
    """Probes alone, one at a time, with nothing else to do."""
    with probing(ready, every_s=0.5, poll_s=IDLE_POLL_S) as probes:
        time.sleep(seconds)
    return probes
