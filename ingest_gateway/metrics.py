"""What the gateway counts, for Prometheus. With several workers, /metrics adds them up."""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)

requests = Counter("gateway_requests_total", "Requests answered", ["route", "status"])
accepted = Counter("gateway_events_accepted_total", "Events answered with 202")
refused = Counter("gateway_events_refused_total", "Requests with events refused, by code", ["code"])
counted_alone = Counter(
    "gateway_requests_counted_alone_total", "Requests counted alone because Redis was away"
)
connections_timed_out = Counter(
    "gateway_connections_timed_out_total",
    "Connections closed because something did not arrive in time",
    ["waiting_for"],
)
append_seconds = Histogram(
    "gateway_append_seconds",
    "From the first request of an append to the broker's acknowledgement",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


def exposition() -> tuple[bytes, str]:
    """All figures as text, and its content type."""
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
