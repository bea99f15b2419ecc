"""All of it: HTTP bulk requests in, counted usage out, on a stack of its own."""

import http.client
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from urllib.parse import urlsplit

import httpx

from benchmarks.workload import FEATURES, Workload
from cli.up import Ready
from clickhouse.client import connect

SENDERS = 2
CONNECTIONS = 4
TIMEOUT_S = 300.0


def create_features(ready: Ready) -> None:
    """The features that count the workload."""
    with httpx.Client(base_url=ready.base_url, headers={"x-api-key": ready.api_key}) as client:
        for feature in FEATURES:
            client.post("/v1/features", json=feature).raise_for_status()


def _send(base_url: str, key: str, bodies: Sequence[bytes], start: Barrier) -> None:
    """Send bodies over a few connections, each the next one when its answer is in."""
    from concurrent.futures import ThreadPoolExecutor

    address = urlsplit(base_url).netloc

    def work(mine: Sequence[bytes]) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        headers = {"x-api-key": key, "Content-Type": "application/json"}
        for body in mine:
            connection.request("POST", "/v1/events/bulk", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 202:
                raise RuntimeError(f"status {answer.status}")
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        start.wait()
        list(pool.map(work, [bodies[i::CONNECTIONS] for i in range(CONNECTIONS)]))


def bulk_to_counted(ready: Ready, workload: Workload) -> tuple[float, float]:
    """Seconds from the first request to the last 202, and to the last event in the states."""
    client = connect(ready.clickhouse_url)
    before = _counted(client)
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(SENDERS + 1)
    senders = [
        context.Process(
            target=_send,
            args=(ready.base_url, ready.api_key, workload.records[i::SENDERS], start),
        )
        for i in range(SENDERS)
    ]
    for sender in senders:
        sender.start()
    start.wait()
    started = time.perf_counter()
    for sender in senders:
        sender.join()
        if sender.exitcode:
            raise RuntimeError("a load generator failed")
    accepted = time.perf_counter() - started
    while _counted(client) - before < workload.events:
        if time.perf_counter() - started > TIMEOUT_S:
            raise TimeoutError(f"{_counted(client) - before} of {workload.events} counted")
        time.sleep(0.05)
    return accepted, time.perf_counter() - started


def freshness(ready: Ready, probes: int) -> list[float]:
    """Seconds from a 202 to the event in the states, one event at a time."""
    client = connect(ready.clickhouse_url)
    waits = []
    with httpx.Client(base_url=ready.base_url, headers={"x-api-key": ready.api_key}) as http_client:
        for number in range(probes):
            customer = f"probe_{time.time_ns()}_{number}"
            event = {"event_name": "api.calls", "external_customer_id": customer}
            http_client.post("/v1/events", json=event).raise_for_status()
            accepted = time.perf_counter()
            while not client.query(
                "SELECT count() FROM usage_states WHERE account = {account:String}"
                " AND external_customer_id = {customer:String}",
                {"account": ready.account, "customer": customer},
            ).result_rows[0][0]:
                time.sleep(0.002)
            waits.append(time.perf_counter() - accepted)
            time.sleep(0.3)
    return waits


def _counted(client: object) -> int:
    rows = client.query("SELECT sum(event_count) FROM usage_states").result_rows  # type: ignore[attr-defined]
    return int(rows[0][0])
