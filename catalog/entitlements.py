"""Entitlements: how much of a feature a plan gives for free."""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog import features, listing, plans
from catalog.database import Writing
from catalog.plan_tables import EntitlementRow, PriceRow
from schemas.catalog import ADDITIVE, Status
from schemas.errors import InvalidRequest
from schemas.offers import EntitlementSearch, EntitlementUpdate, NewEntitlement
from schemas.plans import Entitlement, LimitReset, is_longer

COLUMNS = {
    "entitlement_ids": EntitlementRow.id,
    "plan_ids": EntitlementRow.plan_id,
    "entity_ids": EntitlementRow.plan_id,
    "feature_ids": EntitlementRow.feature_id,
    "is_enabled": EntitlementRow.is_enabled,
}


def create(writing: Writing, account: str, wish: NewEntitlement) -> EntitlementRow:
    """Make one.

    Raises NotFound for plan and feature; AlreadyExists where the plan has one for the feature;
    InvalidRequest where plan or feature are archived, or the limit would outlast a period that
    the feature's aggregation can't add up over.
    """
    entitlement = EntitlementRow(
        account=account,
        plan=plans.get_published(writing.session, account, wish.plan, "/plan_id"),
        feature=features.get_published(writing.session, account, wish.feature_id, "/feature_id"),
        plan_id=wish.plan,
        feature_id=wish.feature_id,
        is_enabled=wish.is_enabled,
        usage_limit=wish.usage_limit,
        usage_reset_period=wish.usage_reset_period,
        status=Status.PUBLISHED,
    )
    with writing.session.no_autoflush:
        _check(writing.session, entitlement)
    return writing.create(entitlement)


def get(session: Session, account: str, entitlement_id: str) -> EntitlementRow:
    """The entitlement of this id, archived or not. Raises NotFound."""
    return listing.get(session, EntitlementRow, account, entitlement_id)


def search(
    session: Session, account: str, page: EntitlementSearch
) -> listing.Found[EntitlementRow]:
    """A page of an account's entitlements."""
    return listing.find(session, EntitlementRow, account, page, COLUMNS)


def update(
    writing: Writing, account: str, entitlement_id: str, wish: EntitlementUpdate
) -> EntitlementRow:
    """Change what the request names; the rest stays. Raises what `create` does."""
    entitlement = get(writing.session, account, entitlement_id)
    before = entitlement.document()
    listing.assign(entitlement, wish, nullable={"usage_limit", "usage_reset_period"})
    with writing.session.no_autoflush:
        _check(writing.session, entitlement)
    return writing.update(entitlement, before)


def archive(writing: Writing, account: str, entitlement_id: str) -> EntitlementRow:
    """Archive it: from the period under way on, nothing is free. Raises NotFound."""
    wish = EntitlementUpdate(status=Status.ARCHIVED)
    return update(writing, account, entitlement_id, wish)


def published(session: Session, account: str, plan_ids: Collection[str]) -> list[EntitlementRow]:
    """The published entitlements of some plans."""
    query = select(EntitlementRow).where(
        EntitlementRow.account == account,
        EntitlementRow.plan_id.in_(plan_ids),
        EntitlementRow.status == Status.PUBLISHED,
    )
    return list(session.scalars(query.order_by(EntitlementRow.created_version)))


def of_plans(session: Session, account: str, plan_ids: Collection[str]) -> list[Entitlement]:
    """The published entitlements of some plans, as billing reads them."""
    return [as_entitlement(row) for row in published(session, account, plan_ids)]


def as_entitlement(row: EntitlementRow) -> Entitlement:
    """An entitlement as billing reads it."""
    return Entitlement(
        id=row.id,
        plan_id=row.plan_id,
        feature_id=row.feature_id,
        is_enabled=row.is_enabled,
        usage_limit=row.usage_limit,
        reset=row.usage_reset_period,
    )


def check_reset(entitlement: EntitlementRow, prices: Sequence[PriceRow], place: str) -> None:
    """Raises InvalidRequest where a limit would outlast a period that usage can't add up over."""
    reset, kind = entitlement.usage_reset_period, entitlement.feature.meter.aggregation
    if reset is None or kind in ADDITIVE:
        return
    terms = [(price.billing_period, price.billing_period_count) for price in prices]
    if reset is LimitReset.NEVER or any(is_longer(reset, *each) for each in terms):
        detail = (
            f"usage_reset_period {reset} outlasts a billing period, and {kind} doesn't add up over "
            "periods: leave usage_reset_period out, or use a shorter one"
        )
        raise InvalidRequest.at(place, "not_allowed", detail)


def _check(session: Session, entitlement: EntitlementRow) -> None:
    if entitlement.status is not Status.PUBLISHED:
        return
    plan_id, feature_id = entitlement.plan_id, entitlement.feature_id
    listing.check_is_free(session, entitlement, plan_id=plan_id, feature_id=feature_id)
    prices = select(PriceRow).where(
        PriceRow.plan_id == plan_id,
        PriceRow.feature_id == feature_id,
        PriceRow.status == Status.PUBLISHED,
    )
    check_reset(entitlement, list(session.scalars(prices)), "/usage_reset_period")
