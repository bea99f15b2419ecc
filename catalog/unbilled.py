"""Which uses of features no subscription bills: `attribution` for many at once, in five queries."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog import prices, subscriptions
from catalog.attribution import later_moments, phase_at
from catalog.invoice_tables import InvoiceRow
from catalog.plan_tables import SubscriptionRow
from catalog.tables import CustomerRow, FeatureRow, MeterRow
from schemas.catalog import Reset
from schemas.plans import Subscription


class Use(NamedTuple):
    """A customer (the client's own id of it) uses a feature at a moment."""

    customer: str
    feature_id: str
    at: datetime


class _Closed(NamedTuple):
    """A closed period and the features that its invoice has a line for."""

    start: datetime
    end: datetime
    features: Iterable[str]


def unbilled(session: Session, account: str, uses: Sequence[Use]) -> list[bool]:
    """Of each use whether nothing bills it; also where nobody knows the customer."""
    if not uses:
        return []
    theirs = _subscriptions(session, account, {use.customer for use in uses})
    of_all = [each for found in theirs.values() for each in found]
    closed = _closed(session, of_all, min(use.at for use in uses))
    plan_ids = sorted({phase.plan_id for each in of_all for phase in each.phases})
    sold = {
        (price.plan_id, price.feature_id, subscriptions.terms_of(price))
        for price in (prices.published(session, account, plan_ids) if plan_ids else ())
    }

    levels = _levels(session, {use.feature_id for use in uses})

    def bills(subscription: Subscription, use: Use) -> bool:
        periods = closed.get(subscription.id, ())
        moments = [use.at]
        if use.feature_id in levels:
            moments += later_moments([subscription], (each.end for each in periods), use.at)
        return any(bills_at(subscription, use.feature_id, moment) for moment in moments)

    def bills_at(subscription: Subscription, feature_id: str, at: datetime) -> bool:
        phase = phase_at(subscription, at)
        if phase is None:
            return False
        for period in closed.get(subscription.id, ()):
            if period.start <= at < period.end:
                return feature_id in period.features
        return (phase.plan_id, feature_id, subscriptions.terms_of(subscription)) in sold

    return [not any(bills(each, use) for each in theirs.get(use.customer, ())) for use in uses]


def _levels(session: Session, feature_ids: Iterable[str]) -> set[str]:
    """Those of the features that are cumulative."""
    query = (
        select(FeatureRow.id)
        .join(MeterRow, MeterRow.id == FeatureRow.meter_id)
        .where(FeatureRow.id.in_(sorted(feature_ids)), MeterRow.reset_usage == Reset.NEVER)
    )
    return set(session.scalars(query))


def _subscriptions(
    session: Session, account: str, external_ids: Iterable[str]
) -> Mapping[str, list[Subscription]]:
    query = (
        select(CustomerRow.external_id, SubscriptionRow)
        .join(SubscriptionRow, SubscriptionRow.customer_id == CustomerRow.id)
        .where(CustomerRow.account == account, CustomerRow.external_id.in_(sorted(external_ids)))
    )
    found: dict[str, list[Subscription]] = {}
    for external_id, row in session.execute(query):
        found.setdefault(external_id, []).append(subscriptions.as_subscription(row))
    return found


def _closed(
    session: Session, found: Iterable[Subscription], since: datetime
) -> Mapping[str, list[_Closed]]:
    """By subscription, its closed periods that end after a moment."""
    query = select(
        InvoiceRow.subscription_id,
        InvoiceRow.period_start,
        InvoiceRow.period_end,
        InvoiceRow.billed,
    ).where(
        InvoiceRow.subscription_id.in_([each.id for each in found]), InvoiceRow.period_end > since
    )
    closed: dict[str, list[_Closed]] = {}
    for subscription_id, start, end, billed in session.execute(query):
        closed.setdefault(subscription_id, []).append(_Closed(start, end, billed))
    return closed
