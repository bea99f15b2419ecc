"""Invoices: one for each closed period, numbered, stored once, and never changed."""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from catalog import listing
from catalog.database import Writing
from catalog.invoice_tables import DueRow, InvoiceRow
from catalog.plan_tables import SubscriptionRow
from catalog.tables import CustomerRow, moment
from schemas.errors import AlreadyExists, shown
from schemas.invoices import InvoiceSearch

COLUMNS = {
    "invoice_ids": InvoiceRow.id,
    "subscription_id": InvoiceRow.subscription_id,
    "customer_id": InvoiceRow.customer_id,
    "currency": InvoiceRow.currency,
}


class Closed(NamedTuple):
    """An invoice to be stored; see InvoiceRow."""

    period_start: datetime
    period_end: datetime
    total: Decimal
    content: str
    late: list[int]
    billed: dict[str, str]


class Billed(NamedTuple):
    """A closed period `[start, end)`, and by feature the price that billed it."""

    subscription_id: str
    start: datetime
    end: datetime
    prices: dict[str, str]


def store(
    writing: Writing, subscription: SubscriptionRow, sequence: int, closed: Closed
) -> InvoiceRow:
    """Store the subscription's invoice of this sequence, and number it.

    Raises AlreadyExists where another process has stored it, or part of its period.
    """
    session = writing.session
    if sequence != last_sequence(session, subscription.id) + 1:
        raise AlreadyExists(f"Invoice {sequence} of subscription {shown(subscription.id)} exists")
    closed_to = invoiced_until(session, subscription.id)
    if closed_to is not None and closed.period_start < closed_to:
        raise AlreadyExists(
            f"Subscription {shown(subscription.id)} is invoiced up to {moment(closed_to)}"
        )
    numbered = select(func.max(InvoiceRow.number)).where(InvoiceRow.account == subscription.account)
    return writing.create(
        InvoiceRow(
            account=subscription.account,
            subscription_id=subscription.id,
            subscription=session.get_one(SubscriptionRow, subscription.id),
            customer_id=subscription.customer_id,
            number=(session.scalar(numbered) or 0) + 1,
            sequence=sequence,
            currency=subscription.currency,
            **closed._asdict(),
        )
    )


def last_sequence(session: Session, subscription_id: str) -> int:
    """Of a subscription's latest invoice; 0 where it has none."""
    query = select(func.max(InvoiceRow.sequence))
    return session.scalar(query.where(InvoiceRow.subscription_id == subscription_id)) or 0


def get(session: Session, account: str, invoice_id: str) -> InvoiceRow:
    """The invoice of this id. Raises NotFound."""
    return listing.get(session, InvoiceRow, account, invoice_id)


def search(session: Session, account: str, page: InvoiceSearch) -> listing.Found[InvoiceRow]:
    """A page of an account's invoices; all are final, so that no draft is ever found."""
    where = []
    if page.external_customer_id is not None:
        named = select(CustomerRow.id).where(
            CustomerRow.account == account, CustomerRow.external_id == page.external_customer_id
        )
        where.append(InvoiceRow.customer_id.in_(named))
    if page.invoice_status is not None and "FINALIZED" not in page.invoice_status:
        return listing.Found([], 0)
    return listing.find(session, InvoiceRow, account, page, COLUMNS, *where)


def last_of(session: Session, subscription_id: str) -> InvoiceRow | None:
    """A subscription's latest invoice."""
    query = select(InvoiceRow).where(InvoiceRow.subscription_id == subscription_id)
    return session.scalars(query.order_by(InvoiceRow.sequence.desc()).limit(1)).one_or_none()


def invoiced_until(session: Session, subscription_id: str) -> datetime | None:
    """The end of a subscription's last closed period; None before the first is closed."""
    query = select(InvoiceRow.period_end).where(InvoiceRow.subscription_id == subscription_id)
    return session.scalars(query.order_by(InvoiceRow.sequence.desc()).limit(1)).one_or_none()


def closed_until(session: Session, customer_id: str) -> dict[str, datetime]:
    """By subscription of a customer, the end of its last closed period; without those of none."""
    query = select(InvoiceRow.subscription_id, func.max(InvoiceRow.period_end))
    rows = session.execute(
        query.where(InvoiceRow.customer_id == customer_id).group_by(InvoiceRow.subscription_id)
    )
    return {subscription_id: end for subscription_id, end in rows}


def billed(session: Session, customer_id: str, since: datetime) -> list[Billed]:
    """What closed periods of a customer's that end after a moment were billed for, in order."""
    query = select(
        InvoiceRow.subscription_id,
        InvoiceRow.period_start,
        InvoiceRow.period_end,
        InvoiceRow.billed,
    ).where(InvoiceRow.customer_id == customer_id, InvoiceRow.period_end > since)
    return [Billed(*row) for row in session.execute(query.order_by(InvoiceRow.created_version))]


def holding(session: Session, subscription_id: str, at: datetime) -> InvoiceRow | None:
    """A subscription's invoice of the closed period that a moment falls in."""
    query = select(InvoiceRow).where(
        InvoiceRow.subscription_id == subscription_id,
        InvoiceRow.period_start <= at,
        InvoiceRow.period_end > at,
    )
    return session.scalars(query).one_or_none()


def of_period(session: Session, subscription_id: str, start: datetime) -> InvoiceRow | None:
    """The invoice of a subscription's period that starts then, once it is closed."""
    query = select(InvoiceRow).where(
        InvoiceRow.subscription_id == subscription_id, InvoiceRow.period_start == start
    )
    return session.scalars(query).one_or_none()


def ending_after(session: Session, subscription_id: str, moment: datetime) -> list[InvoiceRow]:
    """A subscription's invoices of periods that end after a moment, in their order."""
    query = select(InvoiceRow).where(
        InvoiceRow.subscription_id == subscription_id, InvoiceRow.period_end > moment
    )
    return list(session.scalars(query.order_by(InvoiceRow.sequence)))


def due(session: Session, by: datetime, count: int) -> list[SubscriptionRow]:
    """Subscriptions that have something to close by a moment, or that nobody has looked at yet."""
    query = (
        select(SubscriptionRow)
        .outerjoin(DueRow, DueRow.subscription_id == SubscriptionRow.id)
        .where(
            or_(
                DueRow.subscription_id.is_(None),
                DueRow.version != SubscriptionRow.version,
                DueRow.due_at <= by,
            )
        )
        .order_by(DueRow.due_at.asc().nulls_first())
        .limit(count)
    )
    return list(session.scalars(query))


def wait(writing: Writing, subscription: SubscriptionRow, due_at: datetime) -> None:
    """Note when a subscription, as it stands, has something to close next."""
    writing.session.merge(
        DueRow(subscription_id=subscription.id, version=subscription.version, due_at=due_at)
    )
