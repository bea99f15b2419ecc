"""Prices: what a plan asks for a feature's usage. What decides an amount never changes."""

from collections.abc import Collection
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog import entitlements, features, listing, plans, subscriptions
from catalog.database import Writing
from catalog.plan_tables import EntitlementRow, PriceRow
from schemas.catalog import Status
from schemas.decimals import plain
from schemas.offers import NewPrice, PriceSearch, PriceUpdate
from schemas.plans import Price, Rounding, Tier

COLUMNS = {
    "price_ids": PriceRow.id,
    "plan_ids": PriceRow.plan_id,
    "entity_ids": PriceRow.plan_id,
    "feature_ids": PriceRow.feature_id,
    "currency": PriceRow.currency,
    "billing_periods": PriceRow.billing_period,
    "lookup_key": PriceRow.lookup_key,
    "lookup_keys": PriceRow.lookup_key,
}


def create(writing: Writing, account: str, wish: NewPrice) -> PriceRow:
    """Make one.

    Raises NotFound for plan and meter; AlreadyExists where the plan has a price for the feature in
    this currency and billing period, where its lookup key is taken, or where a customer of the
    plan has the feature from another subscription; InvalidRequest where plan or feature are
    archived, no feature has the meter, or the plan's limit would outlast the billing period.
    """
    session, package = writing.session, wish.transform_quantity
    feature = features.of_meter(session, account, wish.meter_id, "/meter_id")
    price = PriceRow(
        account=account,
        plan=plans.get_published(session, account, wish.plan, "/plan_id"),
        plan_id=wish.plan,
        feature=feature,
        feature_id=feature.id,
        currency=wish.currency,
        billing_period=wish.billing_period,
        billing_period_count=wish.billing_period_count,
        billing_model=wish.billing_model,
        amount=wish.amount or Decimal(0),
        divide_by=None if package is None else package.divide_by,
        rounding=None if package is None else package.round,
        tier_mode=wish.tier_mode,
        tiers=[
            {
                "up_to": tier.up_to,
                "unit_amount": plain(tier.unit_amount),
                "flat_amount": plain(tier.flat_amount or Decimal(0)),
            }
            for tier in wish.tiers
        ],
        display_name=wish.display_name or feature.name,
        description=wish.description,
        lookup_key=wish.lookup_key,
        details=wish.metadata,
        status=Status.PUBLISHED,
    )
    with session.no_autoflush:
        _check(writing, price)
    return writing.create(price)


def get(session: Session, account: str, price_id: str) -> PriceRow:
    """The price of this id, archived or not. Raises NotFound."""
    return listing.get(session, PriceRow, account, price_id)


def search(session: Session, account: str, page: PriceSearch) -> listing.Found[PriceRow]:
    """A page of an account's prices."""
    where = []
    if page.meter_ids is not None:
        where.append(PriceRow.feature_id.in_(features.ids_of_meters(page.meter_ids)))
    return listing.find(session, PriceRow, account, page, COLUMNS, *where)


def update(writing: Writing, account: str, price_id: str, wish: PriceUpdate) -> PriceRow:
    """Change what the request names; the rest stays. Raises what `create` does."""
    price = get(writing.session, account, price_id)
    before = price.document()
    listing.assign(price, wish, nullable={"lookup_key"})
    with writing.session.no_autoflush:
        _check(writing, price)
    return writing.update(price, before)


def archive(writing: Writing, account: str, price_id: str) -> PriceRow:
    """Archive it: from the period under way on, its feature isn't billed. Raises NotFound."""
    return update(writing, account, price_id, PriceUpdate(status=Status.ARCHIVED))


def published(session: Session, account: str, plan_ids: Collection[str]) -> list[PriceRow]:
    """The published prices of some plans, in every currency and for every billing period."""
    query = select(PriceRow).where(
        PriceRow.account == account,
        PriceRow.plan_id.in_(plan_ids),
        PriceRow.status == Status.PUBLISHED,
    )
    return list(session.scalars(query.order_by(PriceRow.created_version)))


def features_of(session: Session, account: str, plan_ids: Collection[str]) -> list[str]:
    """The ids of all features that some plans have, or had, a price for."""
    query = select(PriceRow.feature_id).where(
        PriceRow.account == account, PriceRow.plan_id.in_(plan_ids)
    )
    return sorted(session.scalars(query.distinct()))


def of_plans(
    session: Session, account: str, plan_ids: Collection[str], terms: subscriptions.Terms
) -> list[Price]:
    """The published prices of some plans on a subscription's terms, as billing reads them."""
    rows = published(session, account, plan_ids)
    return [as_price(row) for row in rows if subscriptions.terms_of(row) == terms]


def as_price(row: PriceRow) -> Price:
    """A price as billing reads it."""
    return Price(
        id=row.id,
        plan_id=row.plan_id,
        feature_id=row.feature_id,
        meter_id=row.feature.meter_id,
        display_name=row.display_name,
        currency=row.currency,
        model=row.billing_model,
        amount=row.amount,
        divide_by=row.divide_by or 1,
        rounding=row.rounding or Rounding.UP,
        tier_mode=row.tier_mode,
        tiers=tuple(
            Tier(tier["up_to"], Decimal(tier["unit_amount"]), Decimal(tier["flat_amount"]))
            for tier in row.tiers
        ),
    )


def _check(writing: Writing, price: PriceRow) -> None:
    if price.status is not Status.PUBLISHED:
        return
    session = writing.session
    if price.lookup_key is not None:
        listing.check_is_free(session, price, lookup_key=price.lookup_key)
    listing.check_is_free(
        session,
        price,
        plan_id=price.plan_id,
        feature_id=price.feature_id,
        currency=price.currency,
        billing_period=price.billing_period,
        billing_period_count=price.billing_period_count,
    )
    limits = select(EntitlementRow).where(
        EntitlementRow.plan_id == price.plan_id,
        EntitlementRow.feature_id == price.feature_id,
        EntitlementRow.status == Status.PUBLISHED,
    )
    for limit in session.scalars(limits):
        entitlements.check_reset(limit, [price], "/billing_period")
    subscriptions.check_price(session, price)
