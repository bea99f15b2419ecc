"""The histogram of delays counts each event in its bucket, as the library's own would."""

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from stream_workers.ingest_delay import BUCKETS_S, IngestDelay


def test_a_block_at_once_is_what_the_librarys_histogram_makes_of_each_event() -> None:
    delays = [0.05, 0.1, 0.1001, 2.5, 3, 7200, 0.3]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    delay = IngestDelay()
    ours.register(delay)
    delay.observe_all(np.array(delays[:3]))
    delay.observe_all(np.array(delays[3:]))
    delay.observe_all(np.array([], dtype=np.float64))
    same = Histogram("counter_ingest_delay_seconds", "x", buckets=BUCKETS_S, registry=theirs)
    for each in delays:
        same.observe(each)

    def figures(registry: CollectorRegistry) -> list[str]:
        text = generate_latest(registry).decode()
        return [line for line in text.splitlines() if "#" not in line and "_created" not in line]

    assert figures(ours) == figures(theirs)
