"""Tables of invoices: what was billed, for good, and when each subscription is looked at next."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from catalog.plan_tables import SubscriptionRow
from catalog.tables import EntityTable, Table, moment
from schemas.decimals import plain


class InvoiceRow(EntityTable):
    """The invoice of a closed period: never changed.

    number    Of the account's invoices, from 1 without a gap; `sequence` of the subscription's.
    content   The whole invoice with all that it was computed with, as billing stores it.
    late      For each of its adjustments, how many events made it.
    billed    By feature, the price of its line: what no other subscription may bill then.
    """

    __tablename__ = "invoices"
    __table_args__ = (
        UniqueConstraint("account", "number"),
        UniqueConstraint("subscription_id", "sequence"),
        Index("invoices_newest", "account", "created_version"),
        Index("invoices_customer", "customer_id"),
    )
    kind = "invoice"
    word = "Invoice"
    id_prefix = "inv"

    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    number: Mapped[int]
    sequence: Mapped[int]
    currency: Mapped[str] = mapped_column(String(3))
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    total: Mapped[Decimal]
    content: Mapped[str] = mapped_column(Text)
    late: Mapped[list[int]]
    billed: Mapped[dict[str, str]]

    subscription: Mapped[SubscriptionRow] = relationship(lazy="joined", innerjoin=True)

    @property
    def invoice_number(self) -> str:
        """The number as people read it."""
        return f"INV-{self.number:06d}"

    def document(self) -> dict[str, Any]:
        """The invoice without its lines, as `changes` keeps it."""
        return {
            "id": self.id,
            "invoice_number": self.invoice_number,
            "subscription_id": self.subscription_id,
            "customer_id": self.customer_id,
            "currency": self.currency,
            "period_start": moment(self.period_start),
            "period_end": moment(self.period_end),
            "total": plain(self.total),
            **self.stamps(),
        }


class DueRow(Table):
    """When a subscription has something to close; void once the subscription has changed."""

    __tablename__ = "invoices_due"
    __table_args__ = (Index("invoices_due_at", "due_at"),)

    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    version: Mapped[int]
    due_at: Mapped[datetime]
