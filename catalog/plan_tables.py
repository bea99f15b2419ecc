"""Tables of what is sold, to whom and when: plans, prices, entitlements, subscriptions."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from catalog.tables import CustomerRow, EntityTable, FeatureRow, Table, moment, one_published
from schemas.catalog import Status
from schemas.decimals import plain
from schemas.plans import (
    BillingCycle,
    BillingModel,
    BillingPeriod,
    CancellationType,
    LimitReset,
    Rounding,
    TierMode,
)


class PlanRow(EntityTable):
    """A name under which prices and entitlements are sold together."""

    __tablename__ = "plans"
    __table_args__ = (one_published("plans_active_lookup_key", "account", "lookup_key"),)
    kind = "plan"
    word = "Plan"
    id_prefix = "plan"

    name: Mapped[str] = mapped_column(Text)
    lookup_key: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    display_order: Mapped[int | None]
    details: Mapped[dict[str, str]] = mapped_column("metadata")
    status: Mapped[Status]

    def document(self) -> dict[str, Any]:
        """The plan as the API and `changes` write it."""
        return {
            "id": self.id,
            "name": self.name,
            **_given(lookup_key=self.lookup_key, display_order=self.display_order),
            "description": self.description,
            "metadata": self.details,
            "status": self.status,
            **self.stamps(),
        }


class PriceRow(EntityTable):
    """What a plan asks for a feature. What decides the amount is fixed.

    amount  0 when TIERED.
    tiers   `up_to` (None: open), `unit_amount` and `flat_amount` as exact texts.
    """

    __tablename__ = "prices"
    __table_args__ = (
        one_published(
            "prices_one_published",
            "plan_id",
            "feature_id",
            "currency",
            "billing_period",
            "billing_period_count",
        ),
        one_published("prices_active_lookup_key", "account", "lookup_key"),
        Index("prices_feature", "feature_id"),
    )
    kind = "price"
    word = "Price"
    id_prefix = "price"

    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    feature_id: Mapped[str] = mapped_column(ForeignKey("features.id"))
    currency: Mapped[str] = mapped_column(String(3))
    billing_period: Mapped[BillingPeriod]
    billing_period_count: Mapped[int]
    billing_model: Mapped[BillingModel]
    amount: Mapped[Decimal]
    divide_by: Mapped[int | None]
    rounding: Mapped[Rounding | None]
    tier_mode: Mapped[TierMode | None]
    tiers: Mapped[list[dict[str, Any]]]
    display_name: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    lookup_key: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, str]] = mapped_column("metadata")
    status: Mapped[Status]

    plan: Mapped[PlanRow] = relationship(lazy="joined", innerjoin=True)
    feature: Mapped[FeatureRow] = relationship(lazy="joined", innerjoin=True)

    def document(self) -> dict[str, Any]:
        """The price as the API and `changes` write it."""
        package = {"divide_by": self.divide_by, "round": self.rounding}
        tiered = self.billing_model is BillingModel.TIERED
        return {
            "id": self.id,
            "plan_id": self.plan_id,
            "entity_type": "PLAN",
            "entity_id": self.plan_id,
            "feature_id": self.feature_id,
            "meter_id": self.feature.meter_id,
            "type": "USAGE",
            "price_unit_type": "FIAT",
            "billing_cadence": "RECURRING",
            "invoice_cadence": "ARREAR",
            "currency": self.currency,
            "billing_period": self.billing_period,
            "billing_period_count": self.billing_period_count,
            "billing_model": self.billing_model,
            "amount": plain(self.amount),
            **({"tier_mode": self.tier_mode, "tiers": self.tiers} if tiered else {}),
            **({} if self.divide_by is None else {"transform_quantity": package}),
            "display_name": self.display_name,
            "description": self.description,
            **_given(lookup_key=self.lookup_key),
            "metadata": self.details,
            "status": self.status,
            **self.stamps(),
        }


class EntitlementRow(EntityTable):
    """How much of a feature a plan gives for free; `usage_limit` None: all of it."""

    __tablename__ = "entitlements"
    __table_args__ = (
        one_published("entitlements_one_published", "plan_id", "feature_id"),
        Index("entitlements_feature", "feature_id"),
    )
    kind = "entitlement"
    word = "Entitlement"
    id_prefix = "ent"

    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    feature_id: Mapped[str] = mapped_column(ForeignKey("features.id"))
    is_enabled: Mapped[bool]
    usage_limit: Mapped[int | None]
    usage_reset_period: Mapped[LimitReset | None]
    status: Mapped[Status]

    plan: Mapped[PlanRow] = relationship(lazy="joined", innerjoin=True)
    feature: Mapped[FeatureRow] = relationship(lazy="joined", innerjoin=True)

    def document(self) -> dict[str, Any]:
        """The entitlement as the API and `changes` write it; a null limit is no limit."""
        return {
            "id": self.id,
            "plan_id": self.plan_id,
            "entity_type": "PLAN",
            "entity_id": self.plan_id,
            "feature_id": self.feature_id,
            "feature_type": "metered",
            "is_enabled": self.is_enabled,
            "usage_limit": self.usage_limit,
            **_given(usage_reset_period=self.usage_reset_period),
            "status": self.status,
            **self.stamps(),
        }


class SubscriptionRow(EntityTable):
    """A customer on a plan.

    end_date      As agreed when it was made; `cancel_at` where a cancellation ends it.
    ends_at       The earlier of both.
    cancelled_at  When somebody cancelled it.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        Index("subscriptions_customer", "customer_id"),
        Index("subscriptions_ends", "account", "ends_at"),
        Index("subscriptions_newest", "account", "created_version"),
    )
    kind = "subscription"
    word = "Subscription"
    id_prefix = "subs"

    account: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    currency: Mapped[str] = mapped_column(String(3))
    billing_period: Mapped[BillingPeriod]
    billing_period_count: Mapped[int]
    billing_cycle: Mapped[BillingCycle]
    billing_anchor: Mapped[datetime]
    timezone: Mapped[str] = mapped_column(Text)
    start_date: Mapped[datetime]
    end_date: Mapped[datetime | None]
    cancellation_type: Mapped[CancellationType | None]
    cancelled_at: Mapped[datetime | None]
    cancel_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    ends_at: Mapped[datetime | None]
    lookup_key: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, str]] = mapped_column("metadata")
    status: Mapped[Status]

    customer: Mapped[CustomerRow] = relationship(lazy="joined", innerjoin=True)
    phases: Mapped[list["PhaseRow"]] = relationship(
        lazy="selectin", order_by="PhaseRow.start_date", cascade="all, delete-orphan"
    )

    def document(self) -> dict[str, Any]:
        """The subscription as the API and `changes` write it, without what depends on now."""
        ending = {
            "end_date": moment(self.end_date),
            "cancellation_type": self.cancellation_type,
            "cancelled_at": moment(self.cancelled_at),
            "cancel_at": moment(self.cancel_at),
            "cancel_reason": self.cancel_reason,
        }
        return {
            "id": self.id,
            "customer_id": self.customer_id,
            "currency": self.currency,
            "billing_cadence": "RECURRING",
            "billing_period": self.billing_period,
            "billing_period_count": self.billing_period_count,
            "billing_cycle": self.billing_cycle,
            "billing_anchor": moment(self.billing_anchor),
            "timezone": self.timezone,
            "start_date": moment(self.start_date),
            **_given(**ending, lookup_key=self.lookup_key),
            "phases": [phase.document() for phase in self.phases],
            "metadata": self.details,
            "status": self.status,
            **self.stamps(),
        }


class PhaseRow(Table):
    """A stretch of a subscription on one plan, to the next phase or the end."""

    __tablename__ = "subscription_phases"
    __table_args__ = (Index("subscription_phases_plan", "plan_id"),)

    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    start_date: Mapped[datetime] = mapped_column(primary_key=True)
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))

    plan: Mapped[PlanRow] = relationship(lazy="joined", innerjoin=True)

    def document(self) -> dict[str, Any]:
        """The phase as the API and `changes` write it."""
        return {"plan_id": self.plan_id, "start_date": moment(self.start_date)}


def _given(**values: Any) -> dict[str, Any]:
    """What is not None."""
    return {name: value for name, value in values.items() if value is not None}
