"""/v1/events: the account's stored events, page by page, and how many have which verdict."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import msgspec
from clickhouse_connect.driver import Client
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.windows import WINDOWS_MAX, TooManyWindows, to_datetime, to_ms, windows
from catalog import customers
from catalog.matching import Match, matcher
from clickhouse.queries import query
from console.calls import body_as, json_answer, look, query_as
from console.routing import Resource, caller, reads
from console.store import Store
from schemas.catalog import Aggregation, Feature, Reset, Status, Window
from schemas.customers import CustomerSearch
from schemas.errors import InvalidRequest
from schemas.event_queries import (
    PAGE_SIZE_MAX,
    EventPage,
    EventQuery,
    Key,
    VerdictCounts,
    VerdictQuery,
)
from schemas.verdict import Verdict

DEFAULT_RANGE = timedelta(days=7)
DEFAULT_COUNTS_RANGE = timedelta(hours=24)
QUERY_S = 10
"""What one query may take; a longer one is refused with a cure."""
SCAN_ROWS = 5_000
SCAN_S = 5.0
"""Property filters look at so many events at a time, and end a page early after so long."""
COUNTED_TEXTS_MAX = 200_000
"""Different properties that are looked through to count all pages of a filtered list."""
FIRST_MS, LAST_MS = 0, 253_402_300_799_999
LIMITS = {"max_execution_time": QUERY_S, "timeout_overflow_mode": "throw"}


class Row(NamedTuple):
    """A row of `events_found`."""

    event_id: str
    event_name: str
    customer: str
    timestamp: int
    ingested_at: int
    source: str
    properties: str
    verdict: str
    detail: str
    warnings: str
    feature_id: str
    key: Key


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
    found = await asyncio.to_thread(_found, store, account, customer or "", wish)
    ids = await look(request, customer_ids, {row.customer for row in found.rows})
    page: dict[str, Any] = {
        "events": [item(row, ids.get(row.customer)) for row in found.rows],
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
    def warnings(self) -> str: ...
    @property
    def feature_id(self) -> str: ...


def item(row: Shown, customer_id: str | None) -> dict[str, Any]:
    """An event as lists show it."""
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
        "warnings": row.warnings.split(",") if row.warnings else [],
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


class Found(NamedTuple):
    """A page, where it begins and ends, whether more lie behind it, and how many there are."""

    rows: list[Row]
    first: Key | None
    last: Key | None
    has_more: bool
    total: int | None


def _found(store: Store, account: str, customer: str, wish: EventQuery) -> Found:
    conditions = tuple((key, frozenset(values)) for key, values in wish.property_filters.items())
    parameters = _parameters(account, customer, wish)
    with store.reading() as client:
        total = _count(client, parameters, conditions)
        scan = _Scan(client, parameters, wish, conditions)
        return scan.page()._replace(total=total)


class _Scan:
    """One page of a list, read in the list's order, or against it for the page before a key."""

    def __init__(
        self,
        client: Client,
        parameters: dict[str, Any],
        wish: EventQuery,
        conditions: tuple[tuple[str, frozenset[str]], ...],
    ) -> None:
        self._client = client
        self._parameters = parameters
        self._wish = wish
        self._keep = _keeper(conditions)
        self._backward = wish.before is not None
        self._falling = (wish.order != "asc") != self._backward
        self._filtered = bool(conditions)

    def page(self) -> Found:
        """The page; with property filters it may end early, and the next one goes on from there."""
        size, skip = self._wish.page_size, self._wish.offset
        place = self._wish.before or self._wish.after
        rows: list[Row] = []
        deadline = time.monotonic() + SCAN_S
        while True:
            wanted = SCAN_ROWS if self._filtered else size + skip + 1
            read = self._read(place, wanted)
            rows += [row for row, kept in zip(read, self._keep(read), strict=True) if kept]
            ended = len(read) < wanted
            place = read[-1].key if read else place
            if ended or len(rows) > size + skip or time.monotonic() > deadline:
                break
        chosen = rows[skip : skip + size]
        has_more = len(rows) > size + skip or not ended
        edge = place if not ended and len(rows) <= size + skip else None
        if self._backward:
            chosen.reverse()
            first = edge or (chosen[0].key if chosen else None)
            return Found(chosen, first, chosen[-1].key if chosen else first, has_more, None)
        last = edge or (chosen[-1].key if chosen else None)
        return Found(chosen, chosen[0].key if chosen else last, last, has_more, None)

    def _read(self, place: Key | None, limit: int) -> list[Row]:
        """The next rows behind a place."""
        beyond, order = ("<", "DESC") if self._falling else (">", "ASC")
        where = f"WHERE key {beyond} {_KEY}" if place is not None else ""
        text = (
            f"SELECT * FROM ({query('events_found')}) {where}"  # noqa: S608
            f" ORDER BY key {order} LIMIT {{limit:UInt32}}"
        )
        parameters = self._parameters | {"limit": limit}
        if place is not None:
            parameters |= place._asdict() | {"name": place.name}
            if not place.name:  # by time: the primary key can help
                bound = (
                    ("end", place.timestamp + 1) if self._falling else ("start", place.timestamp)
                )
                parameters[bound[0]] = bound[1]
        found = self._client.query(text, parameters, settings=LIMITS).result_rows
        return [Row._make((*columns, Key._make(key))) for *columns, key in found]


_KEY = (
    "({name:String}, {timestamp:Int64}, {log_offset:UInt64}, {log_index:UInt32},"
    " {log_partition:UInt16}, {log_epoch:UInt16}, {log_topic:String})"
)


def _parameters(account: str, customer: str, wish: EventQuery) -> dict[str, Any]:
    start, end = FIRST_MS, LAST_MS
    if wish.end_time is not None:
        end = to_ms(wish.end_time)
    if wish.start_time is not None:
        start = to_ms(wish.start_time)
    elif wish.event_id is None:
        start = to_ms((wish.end_time or datetime.now(UTC)) - DEFAULT_RANGE)
    return {
        "account": account,
        "event_name": wish.event_name or "",
        "customer": customer,
        "event_id": wish.event_id or "",
        "sources": [*wish.sources, *([] if wish.source is None else [wish.source])],
        "verdicts": list(wish.verdict),
        "start": max(start, FIRST_MS),
        "end": min(end, LAST_MS),
        "by_name": wish.by_name,
        "needles": _needles(wish.property_filters),
    }


def _needles(filters: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """What a text of properties holds if it meets the filters: a text of each of these lists.

    Numbers and booleans can be written in several ways, so only other values are looked for.
    """
    needles = []
    for key, values in filters.items():
        needles.append([msgspec.json.encode(key).decode()])
        if not any(_may_be_no_text(value) for value in values):
            needles.append([msgspec.json.encode(value).decode() for value in values])
    return needles


def _may_be_no_text(value: str) -> bool:
    return value in ("true", "false") or value.lstrip("-")[:1].isdigit()


def _keeper(
    conditions: tuple[tuple[str, frozenset[str]], ...],
) -> Callable[[Sequence[Row]], Iterable[bool]]:
    """Says of rows whether they meet property filters, by the rules of a feature's own filters."""
    if not conditions:
        return lambda rows: [True] * len(rows)
    return lambda rows: _kept(conditions, [row.properties for row in rows])


def _kept(conditions: tuple[tuple[str, frozenset[str]], ...], texts: Sequence[str]) -> list[bool]:
    matches = matcher(_feature(conditions)).match([text.encode() for text in texts])
    if isinstance(matches, Match):
        matches = [matches] * len(texts)
    return [match.verdict is Verdict.COUNTED for match in matches]


def _feature(conditions: tuple[tuple[str, frozenset[str]], ...]) -> Feature:
    """A feature that counts what meets the conditions."""
    return Feature(
        id="",
        meter_id="",
        account="",
        event_name="",
        aggregation=Aggregation.COUNT,
        field=None,
        multiplier=None,
        bucket_size=None,
        group_by=None,
        filters=conditions,
        reset_usage=Reset.BILLING_PERIOD,
        status=Status.PUBLISHED,
        created_version=0,
        version=0,
    )


def _count(
    client: Client,
    parameters: dict[str, Any],
    conditions: tuple[tuple[str, frozenset[str]], ...],
) -> int | None:
    """How many events a list has; None where that takes looking at too many."""
    found = query("events_found")
    if not conditions:
        text = f"SELECT count() FROM ({found})"  # noqa: S608
        return int(client.query(text, parameters, settings=LIMITS).result_rows[0][0])
    text = (
        f"SELECT properties, count() FROM ({found}) GROUP BY properties"  # noqa: S608
        " LIMIT {texts_max:UInt32}"
    )
    limits = parameters | {"texts_max": COUNTED_TEXTS_MAX + 1}
    rows = client.query(text, limits, settings=LIMITS).result_rows
    if len(rows) > COUNTED_TEXTS_MAX:
        return None
    kept = _kept(conditions, [text for text, _ in rows])
    return sum(int(count) for (_, count), keep in zip(rows, kept, strict=True) if keep)


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
