"""/v1/events/monitoring: how many events an account sent, and how far they are counted."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.windows import to_datetime, to_ms
from console import backlog
from console.backlog import Backlog
from console.calls import json_answer, query_as
from console.conservation import Gaps
from console.events import DEFAULT_COUNTS_RANGE, verdict_counts
from console.progress import ANSWER_S, Progress
from console.resent_log import AWAY
from console.routing import Resource, caller, reads
from console.settings import Settings
from console.store import Store
from schemas.errors import ServiceUnavailable
from schemas.monitoring import Conservation, Monitoring, MonitoringQuery


async def get_monitoring(request: Request) -> Response:
    """GET /v1/events/monitoring: events received by window, the lag of each stage, the watermark.

    While the store is away nobody can count them: then `total_count` is null, and the lag goes on.
    Raises InvalidRequest (400), ServiceUnavailable (503).
    """
    wish = query_as(MonitoringQuery, request)
    account = caller(request).account
    until = wish.end_time or datetime.now(UTC)
    parameters = {
        "account": account,
        "event_name": wish.event_name or "",
        "customer": "",
        "start": to_ms(wish.start_time or until - DEFAULT_COUNTS_RANGE),
        "end": to_ms(until),
    }
    store: Store = request.state.store
    progress: Progress = request.state.progress
    counts: dict[str, Any] = {"total_count": None, "points": []}
    if progress.store_trouble is None:
        with contextlib.suppress(ServiceUnavailable, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                found = await asyncio.to_thread(verdict_counts, store, parameters, wish.window_size)
            counts["total_count"] = found["total_count"]
            counts["points"] = [
                {"timestamp": point["timestamp"], "event_count": point["event_count"]}
                for point in found["points"]
            ]
    lag = await _lag(request.state.settings, progress, account)
    return json_answer({**counts, **lag})


async def _lag(settings: Settings, progress: Progress, account: str) -> dict[str, Any]:
    """The lag of each stage. Raises ServiceUnavailable before the first look."""
    sample = progress.sample
    if sample is None:
        raise ServiceUnavailable(
            f"The pipeline's progress is not known: {progress.trouble}",
            cure="ask again in a moment",
        )
    topics = progress.sources(account)
    try:
        unpacked = await backlog.unpacked(settings, sample, account, topics)
        uncounted = await backlog.uncounted(settings, sample, account)
    except AWAY as error:
        raise ServiceUnavailable(
            "The event log is unavailable", cure="ask again in a moment"
        ) from error
    packed_until, counted_until = progress.packed_until(account), progress.counted_until(account)
    records = sum(sample.records_waiting(topic) for topic in topics)
    answer: dict[str, Any] = {
        "consumption_lag": unpacked.events,
        "post_processing_lag": uncounted.events,
        "watermark": None if counted_until is None else to_datetime(counted_until),
        "stages": [
            _stage("packing", unpacked, records, sample.at, packed_until),
            _stage("counting", uncounted, sample.blocks_waiting(), sample.at, counted_until),
        ],
        "conservation": _conservation(progress.conservation.gaps, topics),
        "looked_at": to_datetime(sample.at),
    }
    trouble = progress.trouble or progress.store_trouble
    return answer | ({"trouble": trouble} if trouble else {})


def _stage(
    name: str, waiting: Backlog, offsets: int, now: int, until: int | None
) -> dict[str, Any]:
    return {
        "stage": name,
        "lag_events": waiting.events,
        "exact": waiting.exact,
        "lag_offsets": offsets,
        "lag_seconds": None if until is None else (now - until) / 1000,
        "until": None if until is None else to_datetime(until),
    }


def _conservation(gaps: Gaps | None, topics: Sequence[str]) -> Conservation:
    if gaps is None:
        return {"gap_events": None, "gap_rows": None, "until": None}
    events = [gaps.events[topic] for topic in topics if topic in gaps.events]
    known = [each for each in events if each is not None]
    return {
        "gap_events": sum(known) if len(known) == len(events) else None,
        "gap_rows": gaps.rows,
        "until": to_datetime(gaps.at),
    }


def routes() -> list[BaseRoute]:
    """The route of monitoring."""
    got = reads(get_monitoring, asks=MonitoringQuery, gives=Monitoring)
    return [Resource("/v1/events/monitoring", GET=got)]
