"""Where a customer's use of a feature is billed at a moment, or why nowhere.

A closed period was billed by the lines of its invoice, another will be by its plan's prices. What
a cumulative feature counts is in the level of every period that ends afterwards, so the first of
them that something bills is where it is billed, also when the subscription only starts later.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog import entitlements, invoices, prices, subscriptions
from catalog.invoice_tables import InvoiceRow
from catalog.plan_tables import EntitlementRow, PriceRow
from catalog.tables import CustomerRow, FeatureRow, moment
from schemas.catalog import Reset, Status
from schemas.errors import shown
from schemas.plans import Phase, Subscription


class Reason(StrEnum):
    """Why a customer's use of a feature is billed nowhere."""

    FEATURE_IN_NO_PLAN = "feature_in_no_plan"
    NO_SUBSCRIPTION = "no_subscription"
    NOT_IN_PLAN = "not_in_plan"
    NOT_STARTED = "not_started"
    ENDED = "ended"


class Attribution(NamedTuple):
    """The subscription, price and entitlement that apply, or the reason why none does.

    at              A moment of the period that bills it, or that would: later than the use for a
                    level that nothing billed at first.
    reason, detail  None and "" where it is billed; the detail says what to do.
    price           Of a closed period the one of its invoice, archived or not.
    subscription    Also the one that is nearest to billing it, where there is a reason.
    entitlement     As it stands now; None where the plan gives nothing for free.
    """

    at: datetime
    subscription: Subscription | None
    price: PriceRow | None = None
    entitlement: EntitlementRow | None = None
    reason: Reason | None = None
    detail: str = ""


def attribute(
    session: Session, customer: CustomerRow, feature: FeatureRow, at: datetime
) -> Attribution:
    """Find what bills a customer's use of a feature at a moment."""
    account, named = customer.account, f"feature {shown(feature.name)}"
    theirs = subscriptions.of_customer(session, account, customer.id)
    moments = [at]
    if feature.meter.reset_usage is Reset.NEVER:
        ends = (row.period_end for s in theirs for row in invoices.ending_after(session, s.id, at))
        moments += later_moments(theirs, ends, at)
    for each in moments:
        found = _billed_at(session, theirs, feature, each)
        if found is not None:
            return found
    present = [(each, phase) for each in theirs if (phase := phase_at(each, at)) is not None]
    sold = select(PriceRow.id).where(
        PriceRow.feature_id == feature.id, PriceRow.status == Status.PUBLISHED
    )
    if session.scalars(sold.limit(1)).first() is None:
        detail = f"No plan has {named}: create a price for it on the customer's plan"
        return Attribution(at, None, reason=Reason.FEATURE_IN_NO_PLAN, detail=detail)
    if not theirs:
        detail = f"Customer {shown(customer.external_id)} has no subscription: create one"
        return Attribution(at, None, reason=Reason.NO_SUBSCRIPTION, detail=detail)
    if present:
        subscription, phase = present[-1]
        terms = subscriptions.terms_of(subscription)
        invoice = invoices.holding(session, subscription.id, at)
        whose = f"Plan {shown(phase.plan_id)} of subscription {shown(subscription.id)}"
        detail = f"{whose} has no price for {named} in {terms}: create one"
        if invoice is not None:
            detail = (
                f"{whose} had no price for {named} in {terms} when invoice "
                f"{invoice.invoice_number} closed that period, which can't change: create one for "
                "periods to come"
            )
        return Attribution(at, subscription, reason=Reason.NOT_IN_PLAN, detail=detail)
    later = [each for each in theirs if at < each.start and each.start != each.end]
    if later:
        first = min(later, key=lambda each: each.start)
        detail = (
            f"Subscription {shown(first.id)} starts at {moment(first.start)}, after that moment"
        )
        return Attribution(at, first, reason=Reason.NOT_STARTED, detail=detail)
    last = max(theirs, key=lambda each: each.end or at)
    detail = f"Subscription {shown(last.id)} ended at {moment(last.end)}: create a new one"
    return Attribution(at, last, reason=Reason.ENDED, detail=detail)


def phase_at(subscription: Subscription, at: datetime) -> Phase | None:
    """The phase that a moment falls in; None before the start, and from the end on."""
    if at < subscription.start or (subscription.end is not None and at >= subscription.end):
        return None
    return [phase for phase in subscription.phases if phase.start <= at][-1]


def later_moments(
    found: Iterable[Subscription], closed_ends: Iterable[datetime], at: datetime
) -> list[datetime]:
    """When a level may begin to be billed after a moment: a phase starts, a closed period ends."""
    starts = (phase.start for subscription in found for phase in subscription.phases)
    return sorted({each for each in (*starts, *closed_ends) if each > at})


def _billed_at(
    session: Session, theirs: Iterable[Subscription], feature: FeatureRow, at: datetime
) -> Attribution | None:
    """What bills the feature in the period of a moment, if anything does."""
    for subscription in theirs:
        phase = phase_at(subscription, at)
        if phase is None:
            continue
        closed = invoices.holding(session, subscription.id, at)
        price = _price(session, subscription, phase, feature, closed)
        if price is not None:
            limits = entitlements.published(session, subscription.account, [phase.plan_id])
            limit = next((each for each in limits if each.feature_id == feature.id), None)
            return Attribution(at, subscription, price, limit)
    return None


def _price(
    session: Session,
    subscription: Subscription,
    phase: Phase,
    feature: FeatureRow,
    closed: InvoiceRow | None,
) -> PriceRow | None:
    if closed is not None:
        price_id = closed.billed.get(feature.id)
        return None if price_id is None else session.get_one(PriceRow, price_id)
    terms = subscriptions.terms_of(subscription)
    for price in prices.published(session, subscription.account, [phase.plan_id]):
        if price.feature_id == feature.id and subscriptions.terms_of(price) == terms:
            return price
    return None
