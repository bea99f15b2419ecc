"""How long events take from receipt to being counted, each of them, for Prometheus."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import REGISTRY
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

BUCKETS_S = (0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


class IngestDelay(Collector):
    """A histogram that takes the events of a block at once: the library's own takes one by one."""

    def __init__(self) -> None:
        self._edges = np.array(BUCKETS_S)
        self._counts = np.zeros(len(BUCKETS_S) + 1, dtype=np.int64)
        self._sum = 0.0

    def observe_all(self, seconds: npt.NDArray[Any]) -> None:
        """Take in the delays of some events."""
        places = np.searchsorted(self._edges, seconds, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(seconds.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as it stands, its counts cumulative."""
        edges = [*map(str, BUCKETS_S), "+Inf"]
        buckets = list(zip(edges, np.cumsum(self._counts).astype(float).tolist(), strict=True))
        yield HistogramMetricFamily(
            "counter_ingest_delay_seconds",
            "From an event's receipt to its row being stored; re-sent events left out",
            buckets=buckets,
            sum_value=self._sum,
        )


INGEST_DELAY = IngestDelay()
REGISTRY.register(INGEST_DELAY)
