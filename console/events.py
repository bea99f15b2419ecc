"""/v1/events: the account's stored events, page by page, and how many have which verdict."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.windows import WINDOWS_MAX, TooManyWindows, to_datetime, to_ms, windows
from catalog import customers
from catalog.database import Catalog
from clickhouse.queries import query
from console.calls import body_as, json_answer, look, query_as
from console.event_pages import LIMITS, find
from console.routing import Resource, caller, reads
from console.store import Store
from console.warnings import Warned, warnings_of
from schemas.catalog import Window
from schemas.customers import CustomerSearch
from schemas.errors import InvalidRequest
from schemas.event_queries import (
    PAGE_SIZE_MAX,
    EventPage,
    EventQuery,
    VerdictCounts,
    VerdictQuery,
)

DEFAULT_COUNTS_RANGE = timedelta(hours=24)


async def query_events(request: Request) -> Response:
    """POST /v1/events/query: a page of the account's events.

    Raises InvalidRequest (400), NotFound (404) for a customer_id, ServiceUnavailable (503).
    """
    return await _page(request, await body_as(EventQuery, request))


async def list_events(request: Request) -> Response:
    """GET /v1/events: the same, asked for in the query string.

    Raises InvalidRequest (400), NotFound (404) for a customer_id, ServiceUnavailable (503).
    """
    return await _page(request, query_as(EventQuery, request))


async def count_verdicts(request: Request) -> Response:
    """GET /v1/events/verdicts: events received in a range, by verdict, in all and by window.

    Raises InvalidRequest (400), ServiceUnavailable (503).
    """
    wish = query_as(VerdictQuery, request)
    until = wish.end_time or datetime.now(UTC)
    start, end = to_ms(wish.start_time or until - DEFAULT_COUNTS_RANGE), to_ms(until)
    parameters = {
        "account": caller(request).account,
        "event_name": wish.event_name or "",
        "customer": wish.external_customer_id or "",
        "start": start,
        "end": end,
    }
    store: Store = request.state.store
    counts = await asyncio.to_thread(verdict_counts, store, parameters, wish.window_size)
    return json_answer(counts)


def verdict_counts(
    store: Store, parameters: Mapping[str, Any], window: Window | None
) -> VerdictCounts:
    """The events received from `start` to `end` (ms), by verdict, in all and by window of UTC.

    Raises InvalidRequest for too many windows.
    """
    start, end = parameters["start"], parameters["end"]
    try:
        spans = windows(start, end, window, ZoneInfo("UTC")) if window else []
    except TooManyWindows:
        detail = f"more than {WINDOWS_MAX} windows: use a longer window_size or a shorter range"
        raise InvalidRequest.at("/window_size", "out_of_range", detail) from None
    starts = [span.start for span in spans] or [start]
    with store.reading() as client:
        found = client.query(
            query("events_by_verdict"), {**parameters, "starts": starts}, settings=LIMITS
        ).result_rows
    total: dict[str, int] = {}
    by_start: dict[int, dict[str, int]] = {}
    for at, verdict, count in found:
        total[verdict] = total.get(verdict, 0) + count
        by_start.setdefault(at, {})[verdict] = count
    return {
        "total_count": sum(total.values()),
        "verdicts": total,
        "points": [
            {
                "timestamp": to_datetime(span.label),
                "event_count": sum(by_start.get(span.start, {}).values()),
                "verdicts": by_start.get(span.start, {}),
            }
            for span in spans
        ],
    }


async def _page(request: Request, wish: EventQuery) -> Response:
    account = caller(request).account
    customer = wish.external_customer_id
    if wish.customer_id is not None:
        known = (await look(request, customers.get, wish.customer_id)).external_id
        if customer not in (None, known):
            detail = "customer_id is another customer than external_customer_id: send one of both"
            raise InvalidRequest.at("/customer_id", "not_allowed", detail)
        customer = known
    store: Store = request.state.store
    catalog: Catalog = request.state.catalog

    def told(rows: Sequence[Warned]) -> list[list[str]]:
        with catalog.reading() as session:
            return warnings_of(session, account, rows)

    found = await asyncio.to_thread(find, store, account, customer or "", wish, told)
    ids = await look(request, customer_ids, {row.customer for row in found.rows})
    warnings = await look(request, warnings_of, found.rows)
    page: dict[str, Any] = {
        "events": [
            item(row, ids.get(row.customer), each)
            for row, each in zip(found.rows, warnings, strict=True)
        ],
        "has_more": found.has_more,
        "offset": wish.offset,
        "total_count": found.total,
    }
    if found.first is not None and found.last is not None:
        page |= {"iter_first_key": found.first.text(), "iter_last_key": found.last.text()}
    return json_answer(page)


class Shown(Protocol):
    """What an event's row needs to be shown: the first columns of `events_found`."""

    @property
    def event_id(self) -> str: ...
    @property
    def event_name(self) -> str: ...
    @property
    def customer(self) -> str: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def ingested_at(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def properties(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def feature_id(self) -> str: ...


def item(row: Shown, customer_id: str | None, warnings: list[str]) -> dict[str, Any]:
    """An event as lists show it, with `warnings_of` it."""
    shown = {
        "id": row.event_id,
        "external_customer_id": row.customer,
        "event_name": row.event_name,
        "timestamp": to_datetime(row.timestamp),
        "ingested_at": to_datetime(row.ingested_at),
        "properties": msgspec.Raw(row.properties.encode() or b"{}"),
        "source": row.source,
        "verdict": row.verdict,
        "detail": row.detail,
        "warnings": warnings,
    }
    if customer_id is not None:
        shown["customer_id"] = customer_id
    if row.feature_id:
        shown["feature_id"] = row.feature_id
    return shown


def customer_ids(session: Any, account: str, external_ids: Iterable[str]) -> dict[str, str]:
    """Our ids of those of the customers that exist, by the clients' ids."""
    wanted = sorted(set(external_ids))
    if not wanted:
        return {}
    page = CustomerSearch(external_ids=wanted, status="all", limit=PAGE_SIZE_MAX)
    return {row.external_id: row.id for row in customers.search(session, account, page).items}


def routes() -> list[BaseRoute]:
    """The routes of lists of events."""
    return [
        Resource("/v1/events/query", POST=reads(query_events, takes=EventQuery, gives=EventPage)),
        Resource(
            "/v1/events/verdicts",
            GET=reads(count_verdicts, asks=VerdictQuery, gives=VerdictCounts),
        ),
        Resource("/v1/events", GET=reads(list_events, asks=EventQuery, gives=EventPage)),
    ]
