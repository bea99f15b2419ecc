"""/v1/customers/:id/billing: where a customer's use of a feature is billed, or why nowhere."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.periods import period_at
from catalog import customers, features, subscriptions
from catalog.attribution import attribute
from catalog.plan_tables import SubscriptionRow
from catalog.tables import CustomerRow, FeatureRow, moment
from console.calls import json_answer, look, query_as
from console.entities import Document
from console.routing import Resource, reads
from console.subscriptions import SUBSCRIPTIONS
from schemas.documents import AttributionDocument
from schemas.subscriptions import AttributionQuery


async def get_customer_billing(request: Request) -> Response:
    """GET /v1/customers/:id/billing: what bills its use of a feature at a moment, or why nothing.

    Raises InvalidRequest (400), NotFound (404) for customer and feature.
    """

    def find(session: Session, account: str) -> Document:
        customer = customers.get(session, account, request.path_params["id"])
        asked = query_as(AttributionQuery, request)
        feature = features.get(session, account, asked.feature_id)
        return attribution(session, customer, feature, asked.at or datetime.now(UTC))

    return json_answer(await look(request, find))


def attribution(
    session: Session, customer: CustomerRow, feature: FeatureRow, at: datetime
) -> Document:
    """An AttributionDocument: subscription, plan, price, entitlement and period, or the reason."""
    found = attribute(session, customer, feature, at)
    answer: Document = {
        "customer_id": customer.id,
        "external_customer_id": customer.external_id,
        "feature_id": feature.id,
        "at": moment(at),
        "billed": found.reason is None,
    }
    if found.reason is not None:
        answer |= {"reason": found.reason, "message": found.detail}
    if found.subscription is not None:
        row: SubscriptionRow = subscriptions.get(session, customer.account, found.subscription.id)
        answer["subscription"] = SUBSCRIPTIONS.shown(session, row)
        period = period_at(found.subscription, found.at)
        if period is not None:
            answer["period_start"], answer["period_end"] = moment(period.start), moment(period.end)
    if found.price is not None:
        answer |= {"plan": found.price.plan.document(), "price": found.price.document()}
    if found.entitlement is not None:
        answer["entitlement"] = found.entitlement.document()
    return answer


def routes() -> list[BaseRoute]:
    """The route of attribution."""
    found = reads(get_customer_billing, asks=AttributionQuery, gives=AttributionDocument)
    return [Resource("/v1/customers/{id}/billing", GET=found)]
