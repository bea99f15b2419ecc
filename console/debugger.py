"""/v1/events/lookup: the debugger: one event's life, or the checklist of why it never came."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from clickhouse_connect.driver import Client
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.windows import to_datetime, to_ms
from catalog import customers, features, invoices, keys
from catalog.follower import Follower
from catalog.tables import CustomerRow, FeatureRow
from clickhouse.queries import query
from console.attribution import attribution
from console.calls import body_as, json_answer, look, query_as
from console.checklist import Facts, KeySeen, checklist, near_names, told
from console.event_pages import LIMITS
from console.events import item
from console.invoiced import invoiced_on
from console.progress import Progress
from console.replaying import text_of
from console.routing import Resource, caller, reads
from console.store import Store
from console.warnings import warnings_of
from schemas.catalog import Scope, Status
from schemas.customers import CustomerSearch
from schemas.debugging import (
    WARNINGS,
    Check,
    DebugAnswer,
    DebugRequest,
    EventHints,
    Lookup,
    LookupQuery,
)
from schemas.decimals import plain
from schemas.errors import InvalidRequest, NotFound, shown
from schemas.event import Event
from schemas.features import FeatureSearch
from schemas.keys import ApiKeySearch
from schemas.requests import PAGE_SIZE_MAX
from schemas.verdict import CURES, Verdict

WAIT_S = 1.0
"""How long a look-up waits for what is under way before it says `processing`."""
ROWS_MAX = 100
"""So many rows of an id are looked at."""
SEEN = timedelta(days=1)
SETTLED = frozenset({Verdict.COUNTED, Verdict.DUPLICATE, Verdict.FILTERED})
"""Verdicts of events with which nothing went wrong."""
Document = dict[str, Any]


class Stored(NamedTuple):
    """A row of `event_rows`; how many there are of its id comes first."""

    rows_of_id: int
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
    timestamp_given: bool
    aggregation: str
    value: str
    text: str
    is_text: bool
    first_epoch: int
    first_offset: int
    first_index: int
    log_topic: str
    log_epoch: int
    log_partition: int
    log_offset: int
    log_index: int
    superseded_epoch: int
    superseded_offset: int
    superseded_index: int
    block_epoch: int
    block_partition: int
    block_offset: int
    block_index: int
    block_time: int
    catalog_version: int

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Its place in a list: those that claimed the id first, newest first; then duplicates."""
        repeats = self.verdict == Verdict.DUPLICATE
        sign = 1 if repeats else -1
        return repeats, sign * self.block_offset, sign * self.block_index

    @property
    def point(self) -> tuple[int, int, int]:
        """Where its row stands among blocks."""
        return self.block_epoch, self.block_offset, self.block_index

    @property
    def replaces(self) -> tuple[int, int, int] | None:
        """Where the row stands that it supersedes."""
        if self.superseded_offset < 0:
            return None
        return self.superseded_epoch, self.superseded_offset, self.superseded_index


class _Hints(NamedTuple):
    """What is known about an event that never came."""

    event_id: str | None
    event_name: str | None
    customer: str | None
    body: bytes | None


async def look_up_event(request: Request) -> Response:
    """GET /v1/events/lookup?id=: one event's life, or 404 with the checklist in `details`.

    Raises InvalidRequest (400), NotFound (404), ServiceUnavailable (503).
    """
    wish = query_as(LookupQuery, request)
    hints = _hints(wish.id, wish.event_name, wish.external_customer_id, wish.properties)
    return await _look_up(request, wish.id, wish.external_customer_id, hints)


async def get_event(request: Request) -> Response:
    """GET /v1/events/:id: the same, by the address.

    Raises InvalidRequest (400), NotFound (404), ServiceUnavailable (503).
    """
    wish = query_as(EventHints, request)
    event_id = request.path_params["id"]
    hints = _hints(event_id, wish.event_name, wish.external_customer_id, wish.properties)
    return await _look_up(request, event_id, wish.external_customer_id, hints)


async def debug_event(request: Request) -> Response:
    """POST /v1/events/debug: what would become of an event, and whether its id was received.

    Raises InvalidRequest (400), ServiceUnavailable (503).
    """
    body = text_of((await body_as(DebugRequest, request)).event).encode()
    event = told(body, datetime.now(UTC)).event or _names(body)
    hints = _Hints(event.event_id, event.event_name or None, event.external_customer_id, body)
    found = await _rows(request, event.event_id, None) if event.event_id else []
    checks = await _checklist(request, hints)
    answer = {"event_id": event.event_id, "received": bool(found), "checklist": checks}
    return json_answer(answer)


def _names(body: bytes) -> Event:
    """The names in an event that can't be read as one."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        fields = {}

    def text(name: str) -> str | None:
        value = fields.get(name)
        return value if isinstance(value, str) and value else None

    return Event(text("event_name") or "", text("external_customer_id"), text("event_id"))


def _hints(
    event_id: str, event_name: str | None, customer: str | None, properties: str | None
) -> _Hints:
    """The event that a query string describes, where it says enough. Raises InvalidRequest."""
    event: Document = {"event_id": event_id}
    if event_name is not None:
        event["event_name"] = event_name
    if customer is not None:
        event["external_customer_id"] = customer
    if properties is not None:
        try:
            msgspec.json.decode(properties, type=dict[str, msgspec.Raw])
        except (msgspec.MsgspecError, RecursionError) as error:
            detail = f'properties is no JSON object ({error}): write {{"credits": 2}}'
            raise InvalidRequest.at("/properties", "invalid_json", detail) from None
        event["properties"] = msgspec.Raw(properties.encode())
    body = msgspec.json.encode(event) if len(event) > 1 else None
    return _Hints(event_id, event_name, customer, body)


async def _look_up(
    request: Request, event_id: str, customer: str | None, hints: _Hints
) -> Response:
    asked = int(time.time() * 1000)
    found = await _rows(request, event_id, customer)
    if not found:
        progress: Progress = request.state.progress
        account = caller(request).account
        counted = await progress.reached(account, asked, WAIT_S)
        found = await _rows(request, event_id, customer)
        if not found and not counted:
            return json_answer(_processing(progress, account, event_id))
    if not found:
        raise await _never_came(request, hints)
    return json_answer(await _life(request, found))


def _processing(progress: Progress, account: str, event_id: str) -> Document:
    """What can be said while not everything that was received is counted."""
    mark = progress.counted_until(account)
    known = "nobody knows yet up to when" if mark is None else f"up to {_moment(mark)}"
    why = f" ({progress.trouble})" if progress.trouble else ""
    return {
        "event": None,
        "events": [],
        "status": "processing",
        "processed_events": [],
        "message": f"Event {shown(event_id, 255)} is not counted. Not all that was received is"
        f" counted yet, {known}{why}: if it was answered with 202, look again in a moment",
    }


async def _never_came(request: Request, hints: _Hints) -> NotFound:
    """The refusal that says what to check."""
    checks = await _checklist(request, hints)
    letters = await _letters(request, hints.event_id or "")
    failed = [check["detail"] for check in checks if check["passed"] is False]
    if letters:
        failed.insert(0, f"a dead letter holds this id: see {letters[0]['id']}")
    cure = failed[0] if failed else "send it, and look for a 202: the checklist is in `details`"
    return NotFound(
        f"Event {shown(hints.event_id, 255)} not found",
        cure=cure,
        details={"checklist": checks, "dead_letters": letters},
    )


async def _rows(request: Request, event_id: str, customer: str | None) -> list[Stored]:
    """The rows of an id of the caller's account, as `rows_of`."""
    account = caller(request).account
    store: Store = request.state.store

    def ask() -> list[Stored]:
        with store.reading() as client:
            return rows_of(client, account, event_id, customer)

    return await asyncio.to_thread(ask)


def rows_of(client: Client, account: str, event_id: str, customer: str | None) -> list[Stored]:
    """The rows of an id by their `rank`, ROWS_MAX at most; those of one customer, if it is named.

    Nearly every id has one row: it is read without sorting, and only more than ROWS_MAX take a
    second query, which sorts and counts in the store.
    """
    parameters = {
        "account": account,
        "event_id": event_id,
        "customer": customer or "",
        "rows": ROWS_MAX + 1,
    }
    everybody = frozenset() if customer else frozenset({"customer"})

    def ask(without: frozenset[str]) -> Sequence[Sequence[Any]]:
        sql = query("event_rows", everybody | without)
        rows: Sequence[Sequence[Any]] = client.query(sql, parameters, settings=LIMITS).result_rows
        return rows

    few = ask(frozenset({"many"}))
    if len(few) <= ROWS_MAX:
        return sorted((Stored(len(few), *row) for row in few), key=lambda row: row.rank)
    return [Stored._make(row) for row in ask(frozenset())[:ROWS_MAX]]


async def _letters(request: Request, event_id: str) -> list[Document]:
    """Dead letters whose bytes hold an id, as JSON may write it."""
    account = caller(request).account
    store: Store = request.state.store
    written = msgspec.json.encode(event_id).decode()[1:-1]
    parameters = {"account": account, "texts": sorted({event_id, written})}

    def ask() -> list[Document]:
        with store.reading() as client:
            found = client.query(query("dead_letters_naming"), parameters, settings=LIMITS)
            return [
                {"id": name, "code": code, "detail": detail, "received_at": _moment(at)}
                for name, code, detail, at in found.result_rows
            ]

    return await asyncio.to_thread(ask)


async def _life(request: Request, rows: Sequence[Stored]) -> Document:
    """Everything about a stored event."""
    replaced = {row.replaces for row in rows if row.replaces is not None}
    standing = [row for row in rows if row.point not in replaced]
    repeats = [row for row in standing if row.verdict == Verdict.DUPLICATE]
    claimed = [row for row in standing if row.verdict != Verdict.DUPLICATE]
    event = (claimed or repeats)[0]
    place = await look(request, _placed, event)
    verdict = Verdict(event.verdict)
    cure = _cure(request, event)
    chosen = claimed or repeats[:1]
    told = await look(request, warnings_of, chosen)
    status = "processed" if verdict in SETTLED else "failed"
    shown_events = [
        item(row, place.customer_id, warnings) for row, warnings in zip(chosen, told, strict=True)
    ]
    return {
        "event": shown_events[0],
        "events": shown_events,
        "status": status,
        "processed_events": _processed(event, place),
        "debug_tracker": _tracker(event, place, cure),
        "message": f"{verdict}: {event.detail or cure}",
        "verdict": verdict,
        "detail": event.detail,
        "cure": cure,
        "warnings": [{"code": each, "meaning": WARNINGS[each]} for each in told[0]],
        "position": _position(event),
        "block": _block(event),
        "first": _first(event, rows),
        "duplicates": {
            "count": event.rows_of_id - len(rows) + len(repeats) - (event in repeats),
            "items": [_row(row) for row in repeats if row is not event],
        },
        "history": [_row(row) for row in rows if row.point in replaced],
        "feature": place.feature,
        "billing": place.billing,
        "invoice": place.invoice,
        "timeline": _timeline(event, rows, replaced),
    }


def _cure(request: Request, event: Stored) -> str:
    """What to do about an event's verdict; of an unknown name, which name is near."""
    cure = CURES[Verdict(event.verdict)]
    if event.verdict != Verdict.UNKNOWN_EVENT_NAME:
        return cure
    follower: Follower = request.state.follower
    account = caller(request).account
    known = [each.event_name for each in follower.snapshot.features() if each.account == account]
    near = " or ".join(shown(each, 255) for each in near_names(event.event_name, known))
    return f"{cure} Is it {near}?" if near else cure


class _Place(NamedTuple):
    """What the catalog says of an event: its customer, its feature, where it is billed."""

    customer: Document | None
    feature: Document | None
    billing: Document | None
    invoice: Document | None

    @property
    def customer_id(self) -> str | None:
        return None if self.customer is None else str(self.customer["id"])


def _placed(session: Session, account: str, event: Stored) -> _Place:
    customer = _customer_row(session, account, event.customer)
    feature = _feature_row(session, account, event.feature_id, event.event_name)
    billing = invoice = None
    if customer is not None and feature is not None and event.verdict == Verdict.COUNTED:
        at = to_datetime(event.timestamp)
        billing = attribution(session, customer, feature, at)
        if billing["billed"]:
            since = max(at, datetime.fromisoformat(billing["period_start"]))
            closed = invoices.ending_after(session, billing["subscription"]["id"], since)
            block = (event.block_epoch, event.block_partition, event.block_offset)
            invoice = invoiced_on(closed, event.feature_id, since, block)
    return _Place(
        None if customer is None else customer.document(),
        None if feature is None else feature.document(),
        billing,
        invoice,
    )


def _customer_row(session: Session, account: str, external_id: str) -> CustomerRow | None:
    page = CustomerSearch(external_id=external_id, status="all")
    return next(iter(customers.search(session, account, page).items), None)


def _feature_row(
    session: Session, account: str, feature_id: str, event_name: str
) -> FeatureRow | None:
    """The feature that an event was matched with, or the one that has its name now."""
    if feature_id:
        return features.get(session, account, feature_id)
    page = FeatureSearch(event_name=event_name, status="all", limit=PAGE_SIZE_MAX)
    found = features.search(session, account, page).items
    active = (row for row in found if row.status is Status.PUBLISHED)
    return next(active, next(iter(found), None))


def _processed(event: Stored, place: _Place) -> list[Document]:
    if event.verdict != Verdict.COUNTED:
        return []
    counts = event.aggregation in ("COUNT", "COUNT_UNIQUE") or event.is_text
    processed: Document = {
        "feature_id": event.feature_id,
        "qty_total": "1" if counts else plain(Decimal(event.value)),
        "processed_at": _moment(event.block_time),
    }
    if place.feature is not None:
        processed["meter_id"] = place.feature["meter_id"]
    if place.customer_id is not None:
        processed["customer_id"] = place.customer_id
    if place.billing is not None and place.billing["billed"]:
        processed["price_id"] = place.billing["price"]["id"]
        processed["subscription_id"] = place.billing["subscription"]["id"]
    return [processed]


def _tracker(event: Stored, place: _Place, cure: str) -> Document:
    """The steps from an event to an invoice, and the first that failed."""
    tracker: Document = {
        "customer_lookup": {"status": "found", "customer": place.customer},
        "meter_matching": {"status": "found", "matched_meters": []},
        "price_lookup": {"status": "unprocessed", "matched_prices": []},
        "subscription_line_item_lookup": {"status": "unprocessed", "matched_line_items": []},
    }
    failures: list[tuple[str, Document]] = []

    def fail(step: str, kind: str, status: str, code: str, message: str) -> None:
        error = {"code": code, "message": message, "http_status_code": 404}
        tracker[step] |= {"status": status, "error": error}
        failures.append((kind, error))

    verdict = Verdict(event.verdict)
    if verdict not in SETTLED:
        status = "not_found" if verdict is Verdict.UNKNOWN_EVENT_NAME else "error"
        message = f"{event.detail}: {cure}" if event.detail else cure
        fail("meter_matching", "meter_lookup", status, verdict, message)
    elif place.feature is not None:
        meter = place.feature["meter"]
        matched = {"meter_id": meter["id"], "event_name": meter["event_name"], "meter": meter}
        tracker["meter_matching"]["matched_meters"] = [matched]
    if place.customer is None:
        del tracker["customer_lookup"]["customer"]
        text = f"Customer with external_customer_id {shown(event.customer, 255)} not found"
        fail("customer_lookup", "customer_lookup", "not_found", "unknown_customer", text)
    billing = place.billing
    if billing is not None and billing["billed"]:
        price, subscription = billing["price"], billing["subscription"]
        tracker["price_lookup"] = {
            "status": "found",
            "matched_prices": [
                {"price_id": price["id"], "meter_id": price["meter_id"], "price": price}
            ],
        }
        tracker["subscription_line_item_lookup"] = {
            "status": "found",
            "matched_line_items": [
                {"subscription_id": subscription["id"], "price_id": price["id"]}
            ],
        }
    elif billing is not None:
        of_price = billing["reason"] in ("feature_in_no_plan", "not_in_plan")
        step = "price_lookup" if of_price else "subscription_line_item_lookup"
        fail(step, step, "not_found", billing["reason"], billing["message"])
    if failures:
        kind, error = failures[0]
        tracker["failure_point"] = {"failure_point_type": kind, "error": error}
    return tracker


def _first(event: Stored, rows: Sequence[Stored]) -> Document | None:
    """Of an event that is all repeats here: the row that its id was claimed by, as it is now."""
    if event.verdict != Verdict.DUPLICATE:
        return None
    newer = {row.replaces: row for row in rows if row.replaces is not None}
    point = event.first_epoch, event.first_offset, event.first_index
    found = next((row for row in rows if row.point == point), None)
    while found is not None and found.point in newer:
        found = newer[found.point]
    return None if found is None else _row(found)


def _row(row: Stored) -> Document:
    return {
        "verdict": row.verdict,
        "detail": row.detail,
        "warnings": row.warnings.split(",") if row.warnings else [],
        "received_at": _moment(row.ingested_at),
        "position": _position(row),
        "block": _block(row),
    }


def _position(row: Stored) -> Document:
    return {
        "topic": row.log_topic,
        "epoch": row.log_epoch,
        "partition": row.log_partition,
        "offset": row.log_offset,
        "index": row.log_index,
    }


def _block(row: Stored) -> Document:
    return {
        "epoch": row.block_epoch,
        "partition": row.block_partition,
        "offset": row.block_offset,
        "index": row.block_index,
        "time": _moment(row.block_time),
        "catalog_version": row.catalog_version,
    }


def _timeline(
    event: Stored, rows: Sequence[Stored], replaced: set[tuple[int, int, int]]
) -> list[Document]:
    """What happened to an event, in the order of time."""
    where = f"{event.log_topic}, partition {event.log_partition}, offset {event.log_offset}"
    steps = [(event.ingested_at, "received", f"{where}, index {event.log_index}")]
    for row in rows:
        if row is event or row.point in replaced or row.verdict == Verdict.DUPLICATE:
            step = "received_again" if row.verdict == Verdict.DUPLICATE else row.verdict
            where = f"block partition {row.block_partition}, offset {row.block_offset}"
            steps.append((row.block_time, step if row is not event else event.verdict, where))
    steps.sort(key=lambda step: step[0])
    return [{"at": _moment(at), "step": step, "detail": detail} for at, step, detail in steps]


async def _checklist(request: Request, hints: _Hints) -> list[Check]:
    """The checklist, with what catalog and store know."""
    account = caller(request).account
    follower: Follower = request.state.follower
    await follower.catch_up()
    snapshot = follower.snapshot
    now = datetime.now(UTC)
    customer = None
    if hints.customer is not None:
        customer = snapshot.customer_status(account, hints.customer, snapshot.version)

    def known(session: Session, account: str) -> tuple[list[KeySeen], str | None]:
        page = ApiKeySearch(status="all", limit=PAGE_SIZE_MAX)
        seen = [
            KeySeen(row.name, frozenset(map(Scope, row.scopes)), row.expires_at, row.revoked_at)
            for row in keys.search(session, account, page).items
        ]
        return seen, _unbilled(session, account, hints, now)

    seen, billing = await look(request, known)
    facts = Facts(
        body=hints.body,
        now=now,
        features=[each for each in snapshot.features() if each.account == account],
        customer=customer,
        keys=seen,
        last_received=await _last_received(request, now),
        billing=billing,
    )
    return checklist(facts, hints.event_name, hints.customer)


def _unbilled(session: Session, account: str, hints: _Hints, now: datetime) -> str | None:
    """Why no subscription bills such an event now; "" when one does, None when nobody knows."""
    if hints.customer is None or hints.event_name is None:
        return None
    customer = _customer_row(session, account, hints.customer)
    feature = _feature_row(session, account, "", hints.event_name)
    if customer is None or feature is None:
        return None
    found = attribution(session, customer, feature, now)
    return "" if found["billed"] else str(found["message"])


async def _last_received(request: Request, now: datetime) -> tuple[datetime, str] | None:
    account = caller(request).account
    store: Store = request.state.store
    parameters = {"account": account, "since": to_ms(now - SEEN)}

    def ask() -> tuple[datetime, str] | None:
        with store.reading() as client:
            rows = client.query(query("last_received"), parameters, settings=LIMITS).result_rows
            return (to_datetime(rows[0][0]), str(rows[0][1])) if rows else None

    return await asyncio.to_thread(ask)


def _moment(ms: int) -> str:
    text = to_datetime(ms).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def routes() -> list[BaseRoute]:
    """The routes of the debugger; the last takes any id, also one with slashes."""
    return [
        Resource("/v1/events/lookup", GET=reads(look_up_event, asks=LookupQuery, gives=Lookup)),
        Resource(
            "/v1/events/debug", POST=reads(debug_event, takes=DebugRequest, gives=DebugAnswer)
        ),
        Resource("/v1/events/{id:path}", GET=reads(get_event, asks=EventHints, gives=Lookup)),
    ]
