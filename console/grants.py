"""What customers have for free now: the entitlements of the plans that they are on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import customers, entitlements, subscriptions
from catalog.attribution import phase_at
from catalog.plan_tables import EntitlementRow
from console.calls import json_answer, look, query_as
from console.entities import Document
from console.routing import Resource, reads
from console.subscriptions import nearest_moment
from schemas.documents import CustomerEntitlementsDocument, SubscriptionEntitlementsDocument
from schemas.plans import Subscription
from schemas.subscriptions import EntitlementsQuery


async def get_customer_entitlements(request: Request) -> Response:
    """GET /v1/customers/:id/entitlements: what its active subscriptions give for free now. 404."""
    asked = query_as(EntitlementsQuery, request)

    def find(session: Session, account: str) -> Document:
        named = request.path_params
        customer = customers.get_named(session, account, named.get("id"), named.get("external_id"))
        now = datetime.now(UTC)
        theirs = [
            each
            for each in subscriptions.of_customer(session, account, customer.id)
            if phase_at(each, now) is not None
            and (asked.subscription_ids is None or each.id in asked.subscription_ids)
        ]
        features = _features(session, account, theirs, now)
        if asked.feature_ids is not None:
            features = [each for each in features if each["feature"]["id"] in asked.feature_ids]
        return {"customer_id": customer.id, "features": features}

    return json_answer(await look(request, find))


async def get_external_customer_entitlements(request: Request) -> Response:
    """GET /v1/customers/external/:external_id/entitlements: the same by the client's id. 404."""
    return await get_customer_entitlements(request)


async def get_subscription_entitlements(request: Request) -> Response:
    """GET /v1/subscriptions/:id/entitlements: what it gives for free, as its plan stands now. 404.

    Before its start as it will, after its end as it would have.
    """

    def find(session: Session, account: str) -> Document:
        row = subscriptions.get(session, account, request.path_params["id"])
        subscription = subscriptions.as_subscription(row)
        at = nearest_moment(subscription, datetime.now(UTC)) or subscription.start
        phase = phase_at(subscription, at) or subscription.phases[0]
        return {
            "subscription_id": row.id,
            "plan_id": phase.plan_id,
            "features": _features(session, account, [subscription], at),
        }

    return json_answer(await look(request, find))


def _features(
    session: Session, account: str, theirs: Sequence[Subscription], at: datetime
) -> list[Document]:
    """The features that the plans at a moment entitle to, each with where that comes from.

    Only the subscription that bills a feature makes some of it free; without one, the first does.
    """
    on = {each.id: phase.plan_id for each in theirs if (phase := phase_at(each, at)) is not None}
    rows = entitlements.published(session, account, list(on.values()))
    sources: dict[str, list[tuple[Subscription, EntitlementRow]]] = {}
    for subscription in theirs:
        sold = subscriptions.features_sold(
            session, on.get(subscription.id, ""), subscriptions.terms_of(subscription)
        )
        for row in rows:
            if row.plan_id == on.get(subscription.id):
                found = sources.setdefault(row.feature_id, [])
                found.insert(0 if row.feature_id in sold else len(found), (subscription, row))
    return [
        {
            "feature": found[0][1].feature.document(),
            "entitlement": _grant(found[0][1], "usage_reset_period"),
            "sources": [
                {
                    "subscription_id": subscription.id,
                    "entity_type": "plan",
                    "entity_id": row.plan_id,
                    "entity_name": row.plan.name,
                    "entitlement_id": row.id,
                    **_grant(row),
                }
                for subscription, row in found
            ],
        }
        for found in sources.values()
    ]


def _grant(row: EntitlementRow, *more: str) -> Document:
    values = {name: getattr(row, name) for name in ("is_enabled", "usage_limit", *more)}
    return {name: value for name, value in values.items() if value is not None}


def routes() -> list[BaseRoute]:
    """The routes of what is free."""
    asked: dict[str, Any] = {"asks": EntitlementsQuery, "gives": CustomerEntitlementsDocument}
    external = reads(get_external_customer_entitlements, **asked)
    theirs = reads(get_customer_entitlements, **asked)
    its = reads(get_subscription_entitlements, gives=SubscriptionEntitlementsDocument)
    return [
        Resource("/v1/customers/external/{external_id:path}/entitlements", GET=external),
        Resource("/v1/customers/{id}/entitlements", GET=theirs),
        Resource("/v1/subscriptions/{id}/entitlements", GET=its),
    ]
