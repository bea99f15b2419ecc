"""Plans, prices, entitlements, subscriptions and their phases.

Why    What is sold, to whom and when; billing computes with it, and `changes` keeps its past.
Once   A plan has one published price for a feature, currency and billing period, and one published
       entitlement for a feature.
Exact  Amounts are decimal texts: SQLite has floats only.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    moment = sa.DateTime(timezone=True)
    published = sa.text("status = 'published'")

    def own() -> list[sa.Column[Any]]:
        return [
            sa.Column("id", sa.String(64), primary_key=True),
            sa.Column("account", sa.String(64), sa.ForeignKey("accounts.id"), nullable=False),
        ]

    def stamps() -> list[sa.Column[Any]]:
        return [
            sa.Column("status", sa.String(16), nullable=False),
            sa.Column("created_at", moment, nullable=False),
            sa.Column("updated_at", moment, nullable=False),
            sa.Column("created_version", whole, nullable=False),
            sa.Column("version", whole, nullable=False),
        ]

    def reference(name: str, to: str, **more: Any) -> sa.Column[Any]:
        return sa.Column(name, sa.String(64), sa.ForeignKey(f"{to}.id"), nullable=False, **more)

    def one_published(name: str, table: str, columns: list[str]) -> None:
        op.create_index(
            name,
            table,
            columns,
            unique=True,
            sqlite_where=published,
            postgresql_where=published,
        )

    op.create_table(
        "plans",
        *own(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("lookup_key", sa.Text()),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("display_order", whole),
        sa.Column("metadata", sa.JSON(), nullable=False),
        *stamps(),
    )
    op.create_index("plans_account", "plans", ["account"])
    one_published("plans_active_lookup_key", "plans", ["account", "lookup_key"])
    op.create_table(
        "prices",
        *own(),
        reference("plan_id", "plans"),
        reference("feature_id", "features"),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("billing_period", sa.String(16), nullable=False),
        sa.Column("billing_period_count", whole, nullable=False),
        sa.Column("billing_model", sa.String(16), nullable=False),
        sa.Column("amount", sa.String(64), nullable=False),
        sa.Column("divide_by", whole),
        sa.Column("rounding", sa.String(16)),
        sa.Column("tier_mode", sa.String(16)),
        sa.Column("tiers", sa.JSON(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("lookup_key", sa.Text()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        *stamps(),
    )
    op.create_index("prices_account", "prices", ["account"])
    op.create_index("prices_feature", "prices", ["feature_id"])
    one_published("prices_active_lookup_key", "prices", ["account", "lookup_key"])
    one_published(
        "prices_one_published",
        "prices",
        ["plan_id", "feature_id", "currency", "billing_period", "billing_period_count"],
    )
    op.create_table(
        "entitlements",
        *own(),
        reference("plan_id", "plans"),
        reference("feature_id", "features"),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("usage_limit", whole),
        sa.Column("usage_reset_period", sa.String(16)),
        *stamps(),
    )
    op.create_index("entitlements_account", "entitlements", ["account"])
    op.create_index("entitlements_feature", "entitlements", ["feature_id"])
    one_published("entitlements_one_published", "entitlements", ["plan_id", "feature_id"])
    op.create_table(
        "subscriptions",
        *own(),
        reference("customer_id", "customers"),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("billing_period", sa.String(16), nullable=False),
        sa.Column("billing_period_count", whole, nullable=False),
        sa.Column("billing_cycle", sa.String(16), nullable=False),
        sa.Column("billing_anchor", moment, nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("start_date", moment, nullable=False),
        sa.Column("end_date", moment),
        sa.Column("cancellation_type", sa.String(16)),
        sa.Column("cancelled_at", moment),
        sa.Column("cancel_at", moment),
        sa.Column("cancel_reason", sa.Text()),
        sa.Column("ends_at", moment),
        sa.Column("lookup_key", sa.Text()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        *stamps(),
    )
    op.create_index("subscriptions_customer", "subscriptions", ["customer_id"])
    op.create_index("subscriptions_ends", "subscriptions", ["account", "ends_at"])
    op.create_index("subscriptions_newest", "subscriptions", ["account", "created_version"])
    op.create_table(
        "subscription_phases",
        reference("subscription_id", "subscriptions", primary_key=True),
        sa.Column("start_date", moment, primary_key=True),
        reference("plan_id", "plans"),
    )
    op.create_index("subscription_phases_plan", "subscription_phases", ["plan_id"])
