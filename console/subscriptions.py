"""/v1/subscriptions: customers on plans; made, cancelled, and moved to another plan."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.periods import Period, period_at, periods
from catalog import customers, prices, subscriptions
from catalog.attribution import phase_at
from catalog.database import Writing
from catalog.fixed import changeable
from catalog.listing import Found
from catalog.plan_tables import PlanRow, PriceRow, SubscriptionRow
from catalog.tables import moment
from console.calls import body_as, change, json_answer, look, page_answer, query_as
from console.entities import Document, Entity
from console.routing import Resource, changes, reads
from schemas.documents import (
    CancellationDocument,
    Listed,
    PlanChangedDocument,
    PlanChangeDocument,
    SubscriptionDocument,
)
from schemas.errors import InvalidRequest
from schemas.plans import CancellationType, Subscription
from schemas.subscriptions import (
    Cancellation,
    NewSubscription,
    PlanChange,
    SubscriptionSearch,
    SubscriptionUpdate,
    to_millisecond,
)

MILLISECOND = timedelta(milliseconds=1)


def nearest_moment(subscription: Subscription, now: datetime) -> datetime | None:
    """Now; the start of one that hasn't started, the last millisecond of one that has ended.

    None for one that was cancelled before it started: it has no moment at all.
    """
    start, end = subscription.start, subscription.end
    if end is not None and end <= start:
        return None
    return max(start, now if end is None else min(now, end - MILLISECOND))


def nearest_period(subscription: Subscription, now: datetime) -> Period | None:
    """The period of `nearest_moment`."""
    at = nearest_moment(subscription, now)
    return None if at is None else period_at(subscription, at)


def show(session: Session, rows: Sequence[SubscriptionRow]) -> list[Document]:
    """Subscriptions as they stand now: status, period, and the prices that bill them."""
    now = datetime.now(UTC)
    plan_ids = {phase.plan_id for row in rows for phase in row.phases}
    sold: dict[tuple[str, subscriptions.Terms], list[PriceRow]] = defaultdict(list)
    if rows:
        for price in prices.published(session, rows[0].account, plan_ids):
            sold[price.plan_id, subscriptions.terms_of(price)].append(price)
    shown = []
    for row in rows:
        plan, start = _current_plan(row, now)
        period = nearest_period(subscriptions.as_subscription(row), now)
        billed_by = sold[plan.id, subscriptions.terms_of(row)]
        shown.append(
            row.document()
            | {
                "plan_id": plan.id,
                "subscription_status": _status(row, now),
                **({} if period is None else _bounds("current_period", period)),
                "line_items": [_line_item(row, start, price) for price in billed_by],
                "plan": plan.document(),
                "customer": row.customer.document(),
            }
        )
    return shown


def _search(session: Session, account: str, page: SubscriptionSearch) -> Found[SubscriptionRow]:
    return subscriptions.search(session, account, page, datetime.now(UTC))


SUBSCRIPTIONS = Entity(
    path="/v1/subscriptions",
    one="subscription",
    row=SubscriptionRow,
    gives=SubscriptionDocument,
    page=SubscriptionSearch,
    search=_search,
    new=NewSubscription,
    create=subscriptions.create,
    changed=SubscriptionUpdate,
    changeable=partial(changeable, SubscriptionUpdate, "cancel it, or change its plan"),
    update=subscriptions.update,
    show=show,
)


async def list_customer_subscriptions(request: Request) -> Response:
    """GET /v1/customers/:id/subscriptions: a page of a customer's. 404."""
    page = query_as(SubscriptionSearch, request)

    def find(session: Session, account: str) -> Found[Document]:
        named = request.path_params
        customer = customers.get_named(session, account, named.get("id"), named.get("external_id"))
        theirs = page.model_copy(update={"customer_id": customer.id})
        found = _search(session, account, theirs)
        return Found(show(session, found.items), found.total)

    return page_answer(await look(request, find), page)


async def list_external_customer_subscriptions(request: Request) -> Response:
    """GET /v1/customers/external/:external_id/subscriptions: the same by the client's id. 404."""
    return await list_customer_subscriptions(request)


async def cancel_subscription(request: Request) -> Response:
    """POST /v1/subscriptions/:id/cancel: end it now, at the end of its period, or at a date.

    Raises InvalidRequest (400), NotFound (404), AlreadyExists (409) when a later end than before
    would meet another subscription.
    """
    wish = await body_as(Cancellation, request)

    def cancel(writing: Writing, account: str) -> Document:
        row = subscriptions.get(writing.session, account, request.path_params["id"])
        at = wish.cancel_at or writing.at
        if wish.cancellation_type is CancellationType.END_OF_PERIOD:
            at = _period(row, writing.at).whole_end
            at = at if row.end_date is None else min(at, row.end_date)
        elif at < writing.at:
            detail = f"cancel_at {moment(at)} is past: use immediate, or a date to come"
            raise InvalidRequest.at("/cancel_at", "out_of_range", detail)
        subscriptions.cancel(writing, row, wish, at)
        return {
            "subscription_id": row.id,
            "status": _status(row, writing.at),
            "effective_date": moment(row.cancel_at),
            "cancellation_type": wish.cancellation_type,
            "processed_at": moment(writing.at),
            **({"reason": wish.reason} if wish.reason else {}),
        }

    return json_answer(await change(request, cancel))


async def preview_plan_change(request: Request) -> Response:
    """POST /v1/subscriptions/:id/change/preview: what another plan would change; nothing is done.

    Raises InvalidRequest (400), NotFound (404), AlreadyExists (409).
    """
    wish = await body_as(PlanChange, request)

    def preview(session: Session, account: str) -> Document:
        row = subscriptions.get(session, account, request.path_params["id"])
        then, at = _planned(session, row, wish, datetime.now(UTC))
        around = periods(then, at + MILLISECOND, since=max(at - MILLISECOND, then.start))
        cut = period_at(then, at)
        assert cut is not None
        plans = {phase.plan_id: phase.plan for phase in row.phases}
        before = phase_at(then, at - MILLISECOND) or row.phases[0]
        target = session.get_one(PlanRow, wish.target_plan_id)
        return {
            "subscription_id": row.id,
            "current_plan": plans[before.plan_id].document(),
            "target_plan": target.document(),
            "effective_date": moment(at),
            "new_billing_cycle": {
                "billing_anchor": moment(row.billing_anchor),
                "billing_cadence": "RECURRING",
                "billing_period": row.billing_period,
                "billing_period_count": row.billing_period_count,
                **_bounds("period", cut),
            },
            "periods": [{"plan_id": each.plan_id, **_bounds("period", each)} for each in around],
            "warnings": [],
            "metadata": wish.metadata,
        }

    return json_answer(await look(request, preview))


async def execute_plan_change(request: Request) -> Response:
    """POST /v1/subscriptions/:id/change/execute: another plan from a moment on.

    The period is cut there: each part has its own usage and full limits. Raises InvalidRequest
    (400), NotFound (404), AlreadyExists (409).
    """
    wish = await body_as(PlanChange, request)

    def execute(writing: Writing, account: str) -> Document:
        row = subscriptions.get(writing.session, account, request.path_params["id"])
        then, at = _planned(writing.session, row, wish, writing.at)
        old = _summary(row, writing.at, subscriptions.as_subscription(row), writing.at)
        scheduled = at > writing.at
        subscriptions.change_plan(writing, row, then)
        return {
            "effective_date": moment(at),
            "is_scheduled": scheduled,
            **({"scheduled_at": moment(at)} if scheduled else {}),
            "old_subscription": old,
            "new_subscription": _summary(row, at, then, writing.at),
            "metadata": wish.metadata,
        }

    return json_answer(await change(request, execute))


def _planned(
    session: Session, row: SubscriptionRow, wish: PlanChange, now: datetime
) -> tuple[Subscription, datetime]:
    """The subscription as the change would leave it, and from when on."""
    for field in ("billing_period", "billing_period_count", "billing_cycle"):
        wanted, own = getattr(wish, field), getattr(row, field)
        if wanted not in (None, own):
            detail = f"{field} is {own} and can't change: cancel, and create a new subscription"
            raise InvalidRequest.at(f"/{field}", "immutable", detail)
    period = _period(row, now)
    at = max(wish.effective_date or to_millisecond(now), row.start_date)
    if wish.change_at == "end_of_period":
        at = period.whole_end
    if at < period.start:
        detail = f"effective_date is before the period under way, from {moment(period.start)}"
        raise InvalidRequest.at("/effective_date", "out_of_range", detail)
    return subscriptions.on_plan_from(session, row, wish.target_plan_id, at), at


def _period(row: SubscriptionRow, now: datetime) -> Period:
    """The period under way, or the nearest. Raises InvalidRequest for one that has ended."""
    subscriptions.check_has_not_ended(row, now)
    period = nearest_period(subscriptions.as_subscription(row), now)
    assert period is not None
    return period


def _summary(
    row: SubscriptionRow, at: datetime, subscription: Subscription, now: datetime
) -> Document:
    period = nearest_period(subscription, at)
    assert period is not None
    return {
        "id": row.id,
        "plan_id": period.plan_id,
        "status": _status(row, now),
        "billing_anchor": moment(row.billing_anchor),
        **_bounds("current_period", period),
        "created_at": moment(row.created_at),
    }


def _status(row: SubscriptionRow, now: datetime) -> str:
    return "cancelled" if row.ends_at is not None and row.ends_at <= now else "active"


def _bounds(name: str, period: Period) -> Document:
    return {f"{name}_start": moment(period.start), f"{name}_end": moment(period.end)}


def _current_plan(row: SubscriptionRow, now: datetime) -> tuple[PlanRow, datetime]:
    """The plan that the subscription is on, and from when on; the first before the start."""
    begun = [phase for phase in row.phases if phase.start_date <= now]
    phase = (begun or row.phases[:1])[-1]
    return phase.plan, phase.start_date


def _line_item(row: SubscriptionRow, start: datetime, price: PriceRow) -> Document:
    return {
        "id": f"{row.id}.{price.id}",
        "subscription_id": row.id,
        "customer_id": row.customer_id,
        "entity_type": "plan",
        "entity_id": price.plan_id,
        "plan_display_name": price.plan.name,
        "price_id": price.id,
        "price_type": "USAGE",
        "feature_id": price.feature_id,
        "meter_id": price.feature.meter_id,
        "meter_display_name": price.feature.meter.name,
        "display_name": price.display_name,
        "currency": price.currency,
        "billing_period": price.billing_period,
        "billing_period_count": price.billing_period_count,
        "invoice_cadence": "ARREAR",
        "start_date": moment(start),
        "status": price.status,
        "price": price.document(),
    }


def routes() -> list[BaseRoute]:
    """The routes of subscriptions. None is deleted: a cancelled one stays for its invoices."""
    listed: dict[str, Any] = {"asks": SubscriptionSearch, "gives": Listed[SubscriptionDocument]}
    external = reads(list_external_customer_subscriptions, **listed)
    theirs = reads(list_customer_subscriptions, **listed)
    place = SUBSCRIPTIONS.path + "/{id}"
    cancel = changes(cancel_subscription, takes=Cancellation, gives=CancellationDocument)
    preview = reads(preview_plan_change, takes=PlanChange, gives=PlanChangeDocument)
    execute = changes(execute_plan_change, takes=PlanChange, gives=PlanChangedDocument)
    return [
        Resource("/v1/customers/external/{external_id:path}/subscriptions", GET=external),
        Resource("/v1/customers/{id}/subscriptions", GET=theirs),
        *SUBSCRIPTIONS.routes(),
        Resource(f"{place}/cancel", POST=cancel),
        Resource(f"{place}/change/preview", POST=preview),
        Resource(f"{place}/change/execute", POST=execute),
    ]
