"""Thousands of clients that hold a connection and send nothing, or half: others don't notice."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import psutil
import pytest

from local_stack.ports import HOST, free_ports
from schemas.open_files import files_max
from tests.e2e.running import Tallylog, client, until

SOCKETS = 5000
FILES = SOCKETS + 1000
"""What a process needs for so many: this one, and who serves them."""
EVENT = {"event_name": "slow.clients", "external_customer_id": "cust_1"}
HALF_HEAD = b"POST /v1/events HTTP/1.1\r\nHost: gateway\r\nContent-Type: appli"
MIB = 1 << 20
PATIENT = """
import sys
from dataclasses import replace
from ingest_gateway.connection import Connection

Connection.limits = replace(
    Connection.limits, head_s=300, body_s=300, body_grace_s=300, body_silence_s=300
)
"""
"""One that would wait for five minutes: else the slow are gone before they are counted."""
SERVERS = {
    "gateway": """
from ingest_gateway.app import run
from ingest_gateway.settings import Settings

run(Settings(), int(sys.argv[1]))
""",
    "serve": """
from cli.serve import run

run(int(sys.argv[1]), 1, "info")
""",
}
"""`tallylog gateway`, and what `tallylog up` runs: the console is in the same process."""
TRIES = 5
"""Looks at latencies: on a busy machine one alone may meet somebody else's burst."""
STOP_S = 25
"""The supervisor's patience: after this it kills."""


class Gateway(NamedTuple):
    """One beside that of `tallylog up`, in a process that a test may end."""

    port: int
    process: "subprocess.Popen[bytes]"
    http: httpx.Client

    def status(self) -> int:
        """What its readiness is; 0 while it doesn't answer."""
        try:
            return self.http.get("/readyz").status_code
        except httpx.TransportError:
            return 0


def p99(http: httpx.Client, requests: int = 200) -> float:
    """The latency in seconds that one in a hundred single events exceeds."""
    took = []
    for _ in range(requests):
        started = time.monotonic()
        assert http.post("/v1/events", json=EVENT).status_code == 202
        took.append(time.monotonic() - started)
    return sorted(took)[requests * 99 // 100 - 1]


@pytest.fixture(params=SERVERS)
def gateway(tallylog: Tallylog, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway of this test's own, on the log and the catalog of all."""
    [port] = free_ports(1)
    env = os.environ | {
        "TALLYLOG_DATA_DIR": tallylog.data_dir,
        "TALLYLOG_KAFKA": tallylog.kafka,
        "TALLYLOG_CLICKHOUSE_URL": tallylog.clickhouse_url,
    }
    program = PATIENT + SERVERS[request.param]
    process = subprocess.Popen([sys.executable, "-c", program, str(port)], env=env)
    with client(f"http://{HOST}:{port}", tallylog.api_key) as http:
        started = Gateway(port, process, http)
        try:
            until(started.status, 200)
            yield started
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have as many sockets as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max() < FILES:
        pytest.skip(f"this system allows a process {hard} files, of which {FILES} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_five_thousand_slow_clients_hold_up_neither_others_nor_the_end(
    many_files: None, gateway: Gateway, tallylog: Tallylog
) -> None:
    half_body = (
        HALF_HEAD
        + (
            f"cation/json\r\nx-api-key: {tallylog.api_key}\r\nContent-Length: 900\r\n\r\n{{"
        ).encode()
    )
    sent = (b"", HALF_HEAD, half_body)
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    sockets = []
    try:
        for number in range(SOCKETS):
            slow = socket.create_connection((HOST, gateway.port))
            slow.sendall(sent[number % 3])
            sockets.append(slow)
        until(lambda: process.num_fds() > SOCKETS, True)
        looks = ((p99(gateway.http), p99(tallylog.http)) for _ in range(TRIES))
        assert any(beside < 2 * max(alone, 0.010) for beside, alone in looks)
        assert process.num_fds() > SOCKETS
        assert process.memory_info().rss - before < 150 * MIB
        started = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(STOP_S) in (0, -signal.SIGTERM)
        assert time.monotonic() - started < STOP_S
    finally:
        for slow in sockets:
            slow.close()
    assert tallylog.http.post("/v1/events", json=EVENT).status_code == 202
