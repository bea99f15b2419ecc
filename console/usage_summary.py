"""/v1/customers/:id/usage: how much of what is free a customer has used, feature by feature."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.aggregation import Quantity, plain
from billing.charges import exact
from billing.limits import granted_for
from billing.measures import Measure
from billing.periods import Period, period_at
from billing.pricing import rounded
from billing.reading import ROWS_MAX, measure
from billing.windows import to_ms
from catalog import customers, entitlements, features, subscriptions
from catalog.follower import Follower
from catalog.tables import CustomerRow, FeatureRow, moment
from console.bills import Bills
from console.calls import json_answer, look, query_as
from console.entities import Document
from console.routing import Resource, reads
from console.store import Store
from schemas.catalog import Aggregation, Feature
from schemas.errors import InvalidRequest
from schemas.features import FeatureSearch
from schemas.plans import Entitlement, Subscription
from schemas.usage import NamedUsageSummary, UsageSummaryDocument, UsageSummaryQuery

PERCENT_DIGITS = 2


class Grant(NamedTuple):
    """What a customer has of a feature now, and what to measure of it.

    ends         When the limit is granted anew; None if it never is.
    entitlement  None where the plan sells the feature and gives nothing for free.
    """

    row: FeatureRow
    entitlement: Entitlement | None
    ends: datetime | None
    measure: Measure


class Summary(NamedTuple):
    """A customer's grants, and the period of the oldest subscription that they are from."""

    customer: CustomerRow
    grants: list[Grant]
    subscription: Subscription | None
    period: Period | None


async def get_usage_summary(request: Request) -> Response:
    """GET /v1/customers/usage: what a customer used of its free limits; named in the query.

    Raises InvalidRequest (400), NotFound (404), ServiceUnavailable (503).
    """
    asked = query_as(NamedUsageSummary, request)
    if asked.customer_id is None and asked.customer_lookup_key is None:
        detail = "Say which customer: ?customer_id= or ?customer_lookup_key= (its external_id)"
        raise InvalidRequest.at("", "missing_parameter", detail)
    return await _answer(request, asked, asked.customer_id, asked.customer_lookup_key)


async def get_customer_usage_summary(request: Request) -> Response:
    """GET /v1/customers/:id/usage: what it used of its free limits, as its plans stand now.

    Raises InvalidRequest (400), NotFound (404), ServiceUnavailable (503).
    """
    named = request.path_params
    asked = query_as(UsageSummaryQuery, request)
    return await _answer(request, asked, named.get("id"), named.get("external_id"))


async def get_external_customer_usage_summary(request: Request) -> Response:
    """GET /v1/customers/external/:external_id/usage: the same by the client's own id.

    Raises InvalidRequest (400), NotFound (404), ServiceUnavailable (503).
    """
    return await get_customer_usage_summary(request)


async def _answer(
    request: Request, asked: UsageSummaryQuery, customer_id: str | None, external_id: str | None
) -> Response:
    follower, bills = request.state.follower, request.state.bills

    def find(session: Session, account: str) -> Summary:
        customer = customers.get_named(session, account, customer_id, external_id)
        return _summary(session, follower, bills, customer, asked, datetime.now(UTC))

    summary = await look(request, find)
    store: Store = request.state.store

    def read() -> list[Quantity]:
        with store.reading() as client:
            wanted = (grant.measure for grant in summary.grants)
            measured = measure(client, wanted, rows_max=ROWS_MAX)
        return [measured.quantities[grant.measure] for grant in summary.grants]

    found = await asyncio.to_thread(read)
    answer: Document = {
        "customer_id": summary.customer.id,
        "features": [
            _shown(grant, quantity) for grant, quantity in zip(summary.grants, found, strict=True)
        ],
    }
    if summary.subscription is not None and summary.period is not None:
        answer["period"] = {
            "start_time": moment(summary.period.start),
            "end_time": moment(summary.period.end),
            "period": summary.subscription.period,
        }
    return json_answer(answer)


def _summary(
    session: Session,
    follower: Follower,
    bills: Bills,
    customer: CustomerRow,
    asked: UsageSummaryQuery,
    now: datetime,
) -> Summary:
    """What a customer's subscriptions sell and give for free at a moment, each feature once.

    The subscription that sells a feature says what of it is free; without one, the first does.
    """
    account = customer.account
    present = [
        (each, period)
        for each in subscriptions.of_customer(session, account, customer.id)
        if (period := period_at(each, now)) is not None
        and (asked.subscription_ids is None or each.id in asked.subscription_ids)
    ]
    found: dict[str, tuple[Subscription, Period, Entitlement | None]] = {}
    for subscription, period in present:
        for basis in bills.bases(session, subscription, [period]):
            for charge in basis.charges:
                found[charge.feature.id] = (subscription, period, charge.entitlement)
    for subscription, period in present:
        for entitlement in entitlements.of_plans(session, account, [period.plan_id]):
            found.setdefault(entitlement.feature_id, (subscription, period, entitlement))
    rows = [features.get(session, account, feature_id) for feature_id in found]
    wanted = _wanted(session, account, asked)
    rows = [row for row in rows if wanted is None or row.id in wanted]
    snapshot = follower.reach(max((row.version for row in rows), default=0))
    grants = [
        _grant(row, feature, *found[row.id], now)
        for row in sorted(rows, key=lambda row: (row.name, row.id))
        if (feature := snapshot.feature(row.id)) is not None
    ]
    oldest = present[0] if present else (None, None)
    return Summary(customer, grants, *oldest)


def _wanted(session: Session, account: str, asked: UsageSummaryQuery) -> set[str] | None:
    """The ids of the features that are asked for; None for all."""
    wanted: set[str] | None = None
    if asked.feature_ids is not None:
        wanted = set(asked.feature_ids)
    if asked.feature_lookup_keys is not None:
        page = FeatureSearch(lookup_keys=asked.feature_lookup_keys, status="all", limit=1000)
        named = {row.id for row in features.search(session, account, page).items}
        wanted = named if wanted is None else wanted & named
    return wanted


def _grant(
    row: FeatureRow,
    feature: Feature,
    subscription: Subscription,
    period: Period,
    entitlement: Entitlement | None,
    now: datetime,
) -> Grant:
    start, ends = period.start, period.end
    until: datetime | None = period.end
    if entitlement is not None:
        start, until = granted_for(entitlement, subscription, period, now)
        ends = until or period.end
    is_weighted = feature.aggregation is Aggregation.WEIGHTED_SUM
    length = to_ms(period.whole_end) - to_ms(period.whole_start) if is_weighted else None
    customer, zone = subscription.external_customer_id, subscription.zone
    asked = Measure(feature, customer, to_ms(start), to_ms(ends), zone, length)
    return Grant(row, entitlement, until, asked)


def _shown(grant: Grant, quantity: Quantity) -> Document:
    entitlement = grant.entitlement
    is_enabled = entitlement is not None and entitlement.is_enabled
    limit = entitlement.usage_limit if is_enabled and entitlement is not None else 0
    value = quantity.shown
    shown: Document = {
        "feature": grant.row.document(),
        "is_unlimited": limit is None,
        "is_enabled": is_enabled,
        "current_usage": "0" if value is None else plain(value),
        "usage_percent": plain(_percent(exact(quantity), limit)),
    }
    if limit is not None:
        shown["total_limit"] = limit
    if grant.ends is not None:
        shown["next_usage_reset_at"] = moment(grant.ends)
    return shown


def _percent(usage: Fraction, limit: int | None) -> Decimal:
    """How much of a limit is used; 0 of no end, all of nothing once something is used."""
    used = max(usage, Fraction(0))
    if limit is None or not used:
        return Decimal(0)
    return rounded(used * 100 / limit, PERCENT_DIGITS) if limit else Decimal(100)


def routes() -> list[BaseRoute]:
    """The routes of the summary; they come before those of customers, whose ids may be any text."""
    gives = UsageSummaryDocument
    named = reads(get_usage_summary, asks=NamedUsageSummary, gives=gives)
    external = reads(get_external_customer_usage_summary, asks=UsageSummaryQuery, gives=gives)
    theirs = reads(get_customer_usage_summary, asks=UsageSummaryQuery, gives=gives)
    return [
        Resource("/v1/customers/usage", GET=named),
        Resource("/v1/customers/external/{external_id:path}/usage", GET=external),
        Resource("/v1/customers/{id}/usage", GET=theirs),
    ]
