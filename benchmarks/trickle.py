"""Small loads: what a few single events a second cost, and how soon they are seen."""

import time
from dataclasses import dataclass

from benchmarks import parts
from benchmarks.counted import Probes, probing
from benchmarks.load import Load, Sent, run
from benchmarks.workload import bodies
from cli.up import Ready
from clickhouse.client import connect

CONNECTIONS = 32


@dataclass(frozen=True)
class Trickle:
    """What came of it: answers, how soon events are seen, cores of each part, blocks a second."""

    sent: Sent
    probes: Probes
    cores: dict[str, float]
    blocks_per_s: float


def trickle(ready: Ready, per_s: float, seconds: float) -> Trickle:
    """Send so many single events a second for so long."""
    client = connect(ready.clickhouse_url)
    blocks_sql = "SELECT count() FROM ledger"
    load = Load("/v1/events", bodies(1000, 1), CONNECTIONS, seconds, per_s)
    blocks = client.query(blocks_sql).result_rows[0][0]
    cpu, started = parts.cpu_s(), time.perf_counter()
    with probing(ready, every_s=1.0, poll_s=0.02) as probes:
        sent = run(ready.base_url, ready.api_key, load).check()
    took = time.perf_counter() - started
    cores = {name: (now - cpu[name]) / took for name, now in parts.cpu_s().items()}
    blocks = client.query(blocks_sql).result_rows[0][0] - blocks
    return Trickle(sent, probes, cores, blocks / took)
