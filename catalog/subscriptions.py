"""Subscriptions: customers on plans, each feature of a customer by one of them at a time."""

from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session

from catalog import customers, invoices, listing, plans, stretches
from catalog.database import Writing
from catalog.invoice_tables import InvoiceRow
from catalog.plan_tables import PhaseRow, PriceRow, SubscriptionRow
from catalog.tables import CustomerRow, moment
from schemas.catalog import Status
from schemas.errors import InvalidRequest, shown
from schemas.plans import BillingPeriod, Phase, Subscription
from schemas.subscriptions import (
    Cancellation,
    NewSubscription,
    SubscriptionSearch,
    SubscriptionUpdate,
    to_millisecond,
)

COLUMNS = {
    "subscription_ids": SubscriptionRow.id,
    "customer_id": SubscriptionRow.customer_id,
    "customer_ids": SubscriptionRow.customer_id,
    "currency": SubscriptionRow.currency,
    "billing_period": SubscriptionRow.billing_period,
    "lookup_key": SubscriptionRow.lookup_key,
}


class Terms(NamedTuple):
    """What a plan's price and a subscription have to agree on."""

    currency: str
    period: BillingPeriod
    period_count: int

    def __str__(self) -> str:
        return f"{self.currency} per {self.period_count} {self.period}"


def create(writing: Writing, account: str, wish: NewSubscription) -> SubscriptionRow:
    """Put a customer on a plan.

    Raises NotFound for customer and plan; InvalidRequest where one is archived, where it would end
    before it starts, or where the plan has no price on these terms; AlreadyExists where another
    subscription of the customer has one of the plan's features at the same time.
    """
    session = writing.session
    customer = customers.get_named(session, account, wish.customer_id, wish.external_customer_id)
    if customer.status is Status.ARCHIVED:
        detail = f'Customer {shown(customer.id)} is archived: PUT {{"status": "published"}} first'
        raise InvalidRequest.at("/customer_id", "archived", detail)
    plan = plans.get_published(session, account, wish.plan_id, "/plan_id")
    start = wish.start_date or to_millisecond(writing.at)
    if wish.end_date is not None and wish.end_date <= start:
        detail = f"end_date has to be after the start, {moment(start)}"
        raise InvalidRequest.at("/end_date", "out_of_range", detail)
    subscription = SubscriptionRow(
        account=account,
        customer_id=customer.id,
        customer=customer,
        currency=wish.currency,
        billing_period=wish.billing_period,
        billing_period_count=wish.billing_period_count,
        billing_cycle=wish.billing_cycle,
        billing_anchor=wish.billing_anchor or start,
        timezone=wish.timezone or customer.timezone or "UTC",
        start_date=start,
        end_date=wish.end_date,
        ends_at=wish.end_date,
        lookup_key=wish.lookup_key,
        details=wish.metadata,
        status=Status.PUBLISHED,
        phases=[PhaseRow(start_date=start, plan_id=plan.id, plan=plan)],
    )
    writing.stamp(subscription)
    with session.no_autoflush:
        _check_is_sold(session, plan.id, terms_of(subscription), "/plan_id")
        _check_is_alone(session, as_subscription(subscription), start)
    return writing.create(subscription)


def get(session: Session, account: str, subscription_id: str) -> SubscriptionRow:
    """The subscription of this id. Raises NotFound."""
    return listing.get(session, SubscriptionRow, account, subscription_id)


def search(
    session: Session, account: str, page: SubscriptionSearch, now: datetime
) -> listing.Found[SubscriptionRow]:
    """A page of an account's subscriptions, active or not at `now`."""
    where: list[ColumnElement[bool]] = []
    ended = SubscriptionRow.ends_at <= now
    wanted = set(page.subscription_status or ())
    if wanted == {"cancelled"}:
        where.append(ended)
    if wanted == {"active"}:
        where.append(SubscriptionRow.ends_at.is_(None) | ~ended)
    if page.active_at is not None:
        where.extend(_lasting(page.active_at, page.active_at))
    if page.external_customer_id is not None:
        named = select(CustomerRow.id).where(
            CustomerRow.account == account, CustomerRow.external_id == page.external_customer_id
        )
        where.append(SubscriptionRow.customer_id.in_(named))
    if page.plan_id is not None:
        where.append(SubscriptionRow.id.in_(_with_plan(page.plan_id)))
    return listing.find(session, SubscriptionRow, account, page, COLUMNS, *where)


def update(
    writing: Writing, account: str, subscription_id: str, wish: SubscriptionUpdate
) -> SubscriptionRow:
    """Change what the request names; the rest stays. Raises NotFound."""
    subscription = get(writing.session, account, subscription_id)
    before = subscription.document()
    listing.assign(subscription, wish, nullable={"lookup_key"})
    return writing.update(subscription, before)


def cancel(
    writing: Writing, subscription: SubscriptionRow, wish: Cancellation, at: datetime
) -> SubscriptionRow:
    """End it at a moment, or move the end that an earlier cancellation set.

    Raises InvalidRequest where it has ended, ends before that anyway, or is invoiced beyond it;
    AlreadyExists where a later end would meet another subscription.
    """
    check_has_not_ended(subscription, writing.at)
    before = subscription.document()
    at = max(to_millisecond(at), subscription.start_date)
    if subscription.end_date is not None and at > subscription.end_date:
        detail = f"it ends earlier, at {moment(subscription.end_date)}: send a date before that"
        raise InvalidRequest.at("/cancel_at", "out_of_range", detail)
    _check_is_open(writing.session, subscription, at, "/cancel_at")
    ended = subscription.ends_at
    subscription.cancellation_type = wish.cancellation_type
    subscription.cancelled_at = to_millisecond(writing.at)
    subscription.cancel_at = subscription.ends_at = at
    subscription.cancel_reason = wish.reason or None
    if ended is not None and ended < at:
        with writing.session.no_autoflush:
            _check_is_alone(writing.session, as_subscription(subscription), ended)
    return writing.update(subscription, before)


def on_plan_from(
    session: Session, row: SubscriptionRow, plan_id: str, at: datetime
) -> Subscription:
    """The subscription as it would be with another plan from a moment on; nothing is changed.

    What was to come from then on is replaced: going back to the plan before undoes a change that
    was scheduled, but what is invoiced up to then stays a period of its own. Raises NotFound for
    the plan; InvalidRequest where the subscription doesn't last until then, is invoiced beyond it,
    is on the plan already, or where the plan is archived or has no price on its terms;
    AlreadyExists where another subscription has one of the plan's features then.
    """
    plans.get_published(session, row.account, plan_id, "/target_plan_id")
    now = as_subscription(row)
    if at < now.start or (now.end is not None and at >= now.end):
        lasts = f"from {moment(now.start)}" + (f" to {moment(now.end)}" if now.end else "")
        detail = f"{moment(at)} is not in the subscription, which lasts {lasts}"
        raise InvalidRequest.at("/effective_date", "out_of_range", detail)
    _check_is_open(session, row, at, "/effective_date")
    kept = tuple(phase for phase in now.phases if phase.start < at)
    is_cut = len(kept) < len(now.phases) and now.phases[len(kept)].start == at
    stays = is_cut and invoices.invoiced_until(session, row.id) == at
    goes_on = bool(kept) and kept[-1].plan_id == plan_id and not stays
    phases = kept if goes_on else (*kept, Phase(plan_id, at))
    if phases == now.phases:
        detail = f"the subscription is on plan {shown(plan_id)} already: choose another"
        raise InvalidRequest.at("/target_plan_id", "not_allowed", detail)
    _check_is_sold(session, plan_id, terms_of(row), "/target_plan_id")
    then = msgspec.structs.replace(now, phases=phases)
    _check_is_alone(session, then, at)
    return then


def change_plan(writing: Writing, row: SubscriptionRow, then: Subscription) -> SubscriptionRow:
    """Make what `on_plan_from` described."""
    before = row.document()
    known = {phase.start_date: phase for phase in row.phases}
    phases = []
    for phase in then.phases:
        plan = plans.get(writing.session, row.account, phase.plan_id)
        kept = known.get(phase.start) or PhaseRow(start_date=phase.start)
        kept.plan, kept.plan_id = plan, plan.id
        phases.append(kept)
    row.phases = phases
    return writing.update(row, before)


def of_customer(session: Session, account: str, customer_id: str) -> list[Subscription]:
    """Every subscription of a customer, ended ones too, oldest first."""
    query = select(SubscriptionRow).where(
        SubscriptionRow.account == account, SubscriptionRow.customer_id == customer_id
    )
    rows = session.scalars(query.order_by(SubscriptionRow.created_version))
    return [as_subscription(row) for row in rows]


def active(session: Session, account: str, at: datetime) -> list[Subscription]:
    """An account's subscriptions that have started and not ended at a moment."""
    return lasting(session, account, at, at)


def lasting(session: Session, account: str, since: datetime, until: datetime) -> list[Subscription]:
    """An account's subscriptions that start by `until`, itself included, and end after `since`."""
    query = select(SubscriptionRow).where(
        SubscriptionRow.account == account, *_lasting(since, until)
    )
    rows = session.scalars(query.order_by(SubscriptionRow.created_version))
    return [as_subscription(row) for row in rows]


def as_subscription(row: SubscriptionRow) -> Subscription:
    """A subscription as billing reads it."""
    return Subscription(
        id=row.id,
        account=row.account,
        customer_id=row.customer_id,
        external_customer_id=row.customer.external_id,
        currency=row.currency,
        period=row.billing_period,
        period_count=row.billing_period_count,
        cycle=row.billing_cycle,
        anchor=row.billing_anchor,
        zone=row.timezone,
        start=row.start_date,
        end=row.ends_at,
        phases=tuple(Phase(phase.plan_id, phase.start_date) for phase in row.phases),
        created_at=row.created_at,
    )


def terms_of(row: SubscriptionRow | PriceRow | Subscription) -> Terms:
    """The terms of a price or a subscription."""
    if isinstance(row, Subscription):
        return Terms(row.currency, row.period, row.period_count)
    return Terms(row.currency, row.billing_period, row.billing_period_count)


def check_price(session: Session, price: PriceRow) -> None:
    """Raises AlreadyExists where a price would bill a customer's feature a second time.

    It bills all that is not invoiced of the plan's subscriptions, also of those that have ended.
    """
    invoiced = (
        select(func.max(InvoiceRow.period_end))
        .where(InvoiceRow.subscription_id == SubscriptionRow.id)
        .correlate(SubscriptionRow)
        .scalar_subquery()
    )
    is_open = (
        SubscriptionRow.account == price.account,
        SubscriptionRow.id.in_(_with_plan(price.plan_id)),
        SubscriptionRow.currency == price.currency,
        SubscriptionRow.billing_period == price.billing_period,
        SubscriptionRow.billing_period_count == price.billing_period_count,
        or_(
            SubscriptionRow.ends_at.is_(None),
            invoiced.is_(None),
            SubscriptionRow.ends_at > invoiced,
        ),
    )
    begins = func.coalesce(invoiced, SubscriptionRow.start_date)
    since = session.scalar(select(func.min(begins)).where(*is_open))
    if since is None:
        return
    several = (
        select(SubscriptionRow.customer_id)
        .where(
            SubscriptionRow.account == price.account,
            SubscriptionRow.ends_at.is_(None) | (SubscriptionRow.ends_at > since),
        )
        .group_by(SubscriptionRow.customer_id)
        .having(func.count() > 1)
    )
    query = select(SubscriptionRow).where(*is_open, SubscriptionRow.customer_id.in_(several))
    for row in session.scalars(query):
        own, theirs = as_subscription(row), of_customer(session, row.account, row.customer_id)
        stretches.check_alone(session, own, theirs, since, price)


def check_has_not_ended(row: SubscriptionRow, now: datetime) -> None:
    """Raises InvalidRequest for a subscription that nothing can be changed of any more."""
    if row.ends_at is not None and row.ends_at <= now:
        text = f"Subscription {shown(row.id)} ended at {moment(row.ends_at)}"
        raise InvalidRequest(text, cure="create a new one")


def _check_is_open(session: Session, row: SubscriptionRow, at: datetime, place: str) -> None:
    """Raises InvalidRequest where a moment lies in a period that is closed."""
    invoiced = invoices.invoiced_until(session, row.id)
    if invoiced is not None and at < invoiced:
        detail = f"all up to {moment(invoiced)} is invoiced and can't change: send a later date"
        raise InvalidRequest.at(place, "out_of_range", detail)


def _check_is_sold(session: Session, plan_id: str, terms: Terms, place: str) -> None:
    query = select(PriceRow.currency, PriceRow.billing_period, PriceRow.billing_period_count).where(
        PriceRow.plan_id == plan_id, PriceRow.status == Status.PUBLISHED
    )
    sold = sorted({Terms(*row) for row in session.execute(query)})
    if terms not in sold:
        has = ", ".join(map(str, sold)) or "no price at all"
        detail = (
            f"plan {shown(plan_id)} has no published price in {terms}: it has {has}; create a "
            "price, or choose other terms"
        )
        raise InvalidRequest.at(place, "not_sold", detail)


def _check_is_alone(session: Session, own: Subscription, since: datetime) -> None:
    """Raises AlreadyExists where another of the customer's bills one of its features then."""
    theirs = of_customer(session, own.account, own.customer_id)
    stretches.check_alone(session, own, theirs, since)


def features_sold(session: Session, plan_id: str, terms: Terms) -> set[str]:
    """The features that a plan has a published price for on these terms."""
    query = select(PriceRow.feature_id).where(
        PriceRow.plan_id == plan_id,
        PriceRow.currency == terms.currency,
        PriceRow.billing_period == terms.period,
        PriceRow.billing_period_count == terms.period_count,
        PriceRow.status == Status.PUBLISHED,
    )
    return set(session.scalars(query))


def _with_plan(plan_id: str) -> Select[str]:
    """The ids of subscriptions that are, were or will be on a plan."""
    return select(PhaseRow.subscription_id).where(PhaseRow.plan_id == plan_id)


def _lasting(since: datetime, until: datetime) -> tuple[ColumnElement[bool], ...]:
    lasts = SubscriptionRow.ends_at.is_(None) | (SubscriptionRow.ends_at > since)
    return SubscriptionRow.start_date <= until, lasts
