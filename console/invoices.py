"""/v1/invoices: what periods came to, and what the one under way comes to so far."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.aggregation import plain
from billing.invoices import Adjustment, Invoice, Line, restored, total_of
from billing.periods import Period, period_at
from billing.windows import to_datetime
from catalog import invoices, prices, subscriptions
from catalog.invoice_tables import InvoiceRow
from catalog.listing import Found
from catalog.plan_tables import PriceRow, SubscriptionRow
from catalog.tables import moment
from console.bills import Bills, Position
from console.calls import body_as, json_answer, look, page_answer, query_as
from console.entities import Document
from console.routing import Resource, reads
from console.subscriptions import nearest_period
from schemas.documents import Listed
from schemas.errors import InvalidRequest, NotFound, shown
from schemas.invoices import (
    InvoiceDocument,
    InvoicePreview,
    InvoiceSearch,
    LateEvents,
    LateEventsDocument,
    SubscriptionUsage,
    SubscriptionUsageDocument,
)

BEGINNING = (0, 0, 0)
SYMBOLS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥", "inr": "₹"}


async def preview_invoice(request: Request) -> Response:
    """POST /v1/invoices/preview: what a period comes to if nothing more is used. Stores nothing.

    Without dates it is the period of now. What came late for closed periods is on it as
    adjustments, if it is the next to be closed. Raises InvalidRequest (400), also for a period that
    is closed, NotFound (404), ServiceUnavailable (503).
    """
    wish = await body_as(InvoicePreview, request)
    row = await look(request, subscriptions.get, wish.subscription_id)
    period = _period(row, wish.period_start, wish.period_end, "period")
    closed = await look(request, _closed, row, period)
    if closed is not None:
        detail = f"that period is closed and can't change: GET /v1/invoices/{closed.id}"
        raise InvalidRequest.at("/period_start", "not_allowed", detail)
    invoice, late = await _computed(request, row, period)
    document = _document(row, invoice, late)
    if wish.hide_zero_charges_line_items:
        lines = document["line_items"]
        document["line_items"] = [line for line in lines if Decimal(line["amount"])]
    return json_answer(document)


async def get_subscription_usage(request: Request) -> Response:
    """POST /v1/subscriptions/usage: what a period comes to so far, charge by charge.

    What a closed one came to is what its invoice says. Raises InvalidRequest (400), NotFound
    (404), ServiceUnavailable (503).
    """
    return await _answer_usage(request, await body_as(SubscriptionUsage, request))


async def _answer_usage(request: Request, wish: SubscriptionUsage) -> Response:
    row = await look(request, subscriptions.get, wish.subscription_id)
    period = _period(row, wish.start_time, wish.end_time, "time")
    closed = await look(request, _closed, row, period)
    if closed is not None:
        invoice = restored(closed.content)
    else:
        invoice, _ = await _computed(request, row, period)
    sold = await look(request, _prices, [line.price_id for line in invoice.lines])
    charges = [_charge(row, line, sold[line.price_id]) for line in invoice.lines]
    amount = total_of(invoice.lines, invoice.basis.digits)
    return json_answer(
        {
            "subscription_id": row.id,
            "amount": plain(amount),
            "currency": row.currency,
            "display_amount": _displayed(amount, row.currency),
            "start_time": moment(period.start),
            "end_time": moment(period.end),
            "charges": charges,
        }
    )


async def list_invoices(request: Request) -> Response:
    """GET /v1/invoices: a page of closed periods' invoices, newest first. 400."""
    return await _page(request, query_as(InvoiceSearch, request))


async def search_invoices(request: Request) -> Response:
    """POST /v1/invoices/search: the same, asked for in a body. 400."""
    return await _page(request, await body_as(InvoiceSearch, request))


async def get_invoice(request: Request) -> Response:
    """GET /v1/invoices/:id: the invoice of a closed period; it never changes. 404."""
    row = await look(request, invoices.get, request.path_params["id"])
    return json_answer(_stored(row))


async def list_late_events(request: Request) -> Response:
    """GET /v1/invoices/:id/lines/:line_id/events: the late events of an adjustment line.

    In the order of the log, page by page. Raises InvalidRequest (400), NotFound (404),
    ServiceUnavailable (503).
    """
    page = query_as(LateEvents, request)
    row = await look(request, invoices.get, request.path_params["id"])
    wanted = request.path_params["line_id"]
    adjustments = {
        line_id(row.id, place, "adjustment"): one
        for place, one in enumerate(restored(row.content).adjustments)
    }
    if wanted not in adjustments:
        raise NotFound(
            f"Adjustment line {shown(wanted)} not found", cure="send the id of one of its lines"
        )
    bills: Bills = request.state.bills
    first = BEGINNING if page.after is None else _position(page.after)
    late = adjustments[wanted].late
    found = await asyncio.to_thread(bills.late_events, late, first, page.limit)
    items = [
        {
            "event_id": one.event_id,
            "timestamp": to_datetime(one.timestamp),
            "ingested_at": to_datetime(one.ingested_at),
        }
        for one in found
    ]
    more = {"next": _after(found[-1].position)} if len(found) == page.limit else {}
    return json_answer({"items": items, **more})


def _after(position: Position) -> str:
    place, offset, index = position
    return f"{place}.{offset}.{index + 1}"


def _position(text: str) -> Position:
    place, offset, index = (int(part) for part in text.split("."))
    if place >= 1 << 32 or offset >= 1 << 63 or index >= 1 << 32:
        raise InvalidRequest.at("/after", "out_of_range", "send the `next` of the page before")
    return place, offset, index


def _closed(
    session: Session, account: str, row: SubscriptionRow, period: Period
) -> InvoiceRow | None:
    """The invoice of a period, once it is closed."""
    return invoices.of_period(session, row.id, period.start)


async def _page(request: Request, page: InvoiceSearch) -> Response:
    return page_answer(await look(request, _find, page), page)


def _find(session: Session, account: str, page: InvoiceSearch) -> Found[Document]:
    found = invoices.search(session, account, page)
    return Found([_stored(row) for row in found.items], found.total)


async def _computed(
    request: Request, row: SubscriptionRow, period: Period
) -> tuple[Invoice, list[int]]:
    """A period's invoice as it would be now, and how many events are behind each adjustment."""
    bills: Bills = request.state.bills
    subscription = subscriptions.as_subscription(row)

    def compute() -> tuple[Invoice, list[int]]:
        [invoice] = bills.of(subscription, [period])
        return invoice, bills.late_counts(invoice)

    return await asyncio.to_thread(compute)


def _period(
    row: SubscriptionRow, start: datetime | None, end: datetime | None, named: str
) -> Period:
    """The period that a request names by its start and end, or that of now."""
    subscription = subscriptions.as_subscription(row)
    if start is None:
        period = nearest_period(subscription, datetime.now(UTC))
        if period is None:
            detail = f"subscription {shown(row.id)} was cancelled before it started"
            raise InvalidRequest.at("/subscription_id", "not_allowed", detail)
    else:
        period = period_at(subscription, start)
        if period is None:
            detail = f"subscription {shown(row.id)} has no period at {moment(start)}"
            raise InvalidRequest.at(_field(named, "start"), "out_of_range", detail)
        if period.start != start:
            detail = f"no period starts then: that one starts at {moment(period.start)}"
            raise InvalidRequest.at(_field(named, "start"), "out_of_range", detail)
    if end is not None and end != period.end:
        detail = f"no period ends then: that one ends at {moment(period.end)}"
        raise InvalidRequest.at(_field(named, "end"), "out_of_range", detail)
    return period


def _field(named: str, edge: str) -> str:
    return f"/period_{edge}" if named == "period" else f"/{edge}_time"


def _stored(row: InvoiceRow) -> Document:
    """A closed invoice, as it was stored."""
    document = _document(row.subscription, restored(row.content), row.late, row.id)
    at = moment(row.created_at)
    return {
        "id": row.id,
        "invoice_number": row.invoice_number,
        **document,
        "invoice_status": "FINALIZED",
        "finalized_at": at,
        "created_at": at,
        "updated_at": at,
    }


def _document(
    row: SubscriptionRow, invoice: Invoice, late: Sequence[int], invoice_id: str = "preview"
) -> Document:
    basis, total = invoice.basis, plain(invoice.total)
    lines = [
        _line(invoice, line, line.amount, basis.period.start, basis.period.end)
        | {"id": line_id(invoice_id, place, "line")}
        for place, line in enumerate(invoice.lines)
    ]
    lines += [
        _adjustment(invoice, one, count) | {"id": line_id(invoice_id, place, "adjustment")}
        for place, (one, count) in enumerate(zip(invoice.adjustments, late, strict=True))
    ]
    return {
        "invoice_type": "SUBSCRIPTION",
        "invoice_status": "DRAFT",
        "subscription_id": row.id,
        "customer_id": row.customer_id,
        "external_customer_id": basis.subscription.external_customer_id,
        "plan_id": basis.period.plan_id,
        "currency": basis.subscription.currency,
        "billing_period": basis.subscription.period,
        "period_start": moment(basis.period.start),
        "period_end": moment(basis.period.end),
        "timezone": basis.subscription.zone,
        "subtotal": total,
        "total": total,
        "amount_due": total,
        "line_items": lines,
    }


def line_id(invoice_id: str, place: int, kind: str) -> str:
    """The id of an invoice's line number `place`, of those of its kind: line or adjustment."""
    return f"{invoice_id}.{kind}.{place + 1}"


def _line(
    invoice: Invoice, line: Line, amount: Decimal, start: datetime, end: datetime
) -> Document:
    steps = [
        {"up_to": step.up_to, "quantity": plain(step.quantity), "amount": plain(step.amount)}
        for step in line.steps
    ]
    return {
        **_quantities(line),
        "amount": plain(amount),
        "currency": invoice.basis.subscription.currency,
        **({"tiers": steps} if steps else {}),
        "warnings": list(line.warnings),
        "period_start": moment(start),
        "period_end": moment(end),
        "metadata": {},
    }


def _adjustment(invoice: Invoice, one: Adjustment, count: int) -> Document:
    line = _line(invoice, one.line, one.amount, one.period_start, one.period_end)
    return line | {
        "display_name": f"{one.line.display_name} (adjustment)",
        "adjustment": {
            "invoice_id": one.invoice_id,
            "period_start": moment(one.period_start),
            "period_end": moment(one.period_end),
            "event_count": count,
        },
    }


def _quantities(line: Line) -> Document:
    return {
        "price_id": line.price_id,
        "feature_id": line.feature_id,
        "meter_id": line.meter_id,
        "display_name": line.display_name,
        "usage": None if line.usage is None else plain(line.usage),
        **({} if line.text is None else {"text": line.text}),
        "quantity": plain(line.billable),
        "adjusted_entitlement_quantity": plain(line.free),
        "unit": line.counted,
    }


def _charge(row: SubscriptionRow, line: Line, price: PriceRow) -> Document:
    return {
        **_quantities(line),
        "subscription_line_item_id": f"{row.id}.{line.price_id}",
        "meter_display_name": price.feature.meter.name,
        "amount": plain(line.amount),
        "currency": row.currency,
        "display_amount": _displayed(line.amount, row.currency),
        "price": price.document(),
    }


def _displayed(amount: Decimal, currency: str) -> str:
    """An amount as people read it: with its currency's sign, or its code."""
    sign = SYMBOLS.get(currency, f"{currency.upper()} ")
    return f"{'-' if amount < 0 else ''}{sign}{amount.copy_abs():f}"


def _prices(session: Session, account: str, price_ids: Sequence[str]) -> dict[str, PriceRow]:
    return {price_id: prices.get(session, account, price_id) for price_id in price_ids}


def routes() -> list[BaseRoute]:
    """The routes of invoices, and of a subscription's usage."""
    page = Listed[InvoiceDocument]
    previewed = reads(preview_invoice, takes=InvoicePreview, gives=InvoiceDocument)
    late = reads(list_late_events, asks=LateEvents, gives=LateEventsDocument)
    used = reads(get_subscription_usage, takes=SubscriptionUsage, gives=SubscriptionUsageDocument)
    return [
        Resource("/v1/invoices", GET=reads(list_invoices, asks=InvoiceSearch, gives=page)),
        Resource(
            "/v1/invoices/search", POST=reads(search_invoices, takes=InvoiceSearch, gives=page)
        ),
        Resource("/v1/invoices/preview", POST=previewed),
        Resource("/v1/invoices/{id}", GET=reads(get_invoice, gives=InvoiceDocument)),
        Resource("/v1/invoices/{id}/lines/{line_id}/events", GET=late),
        Resource("/v1/subscriptions/usage", POST=used),
    ]
