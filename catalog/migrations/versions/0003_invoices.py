"""Invoices of closed periods, and when each subscription is looked at next.

Why    An invoice is computed once and stays; its content holds all that it was computed with.
Once   A subscription has one invoice of a sequence, an account one of a number.
Exact  The total is a decimal text: SQLite has floats only.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "invoices",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(64), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column(
            "subscription_id", sa.String(64), sa.ForeignKey("subscriptions.id"), nullable=False
        ),
        sa.Column("customer_id", sa.String(64), sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("number", whole, nullable=False),
        sa.Column("sequence", whole, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("period_start", moment, nullable=False),
        sa.Column("period_end", moment, nullable=False),
        sa.Column("total", sa.String(64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("late", sa.JSON(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.Column("created_version", whole, nullable=False),
        sa.Column("version", whole, nullable=False),
        sa.UniqueConstraint("account", "number", name="invoices_account_number_unique"),
        sa.UniqueConstraint(
            "subscription_id", "sequence", name="invoices_subscription_id_sequence_unique"
        ),
    )
    op.create_index("invoices_account", "invoices", ["account"])
    op.create_index("invoices_newest", "invoices", ["account", "created_version"])
    op.create_index("invoices_customer", "invoices", ["customer_id"])
    op.create_table(
        "invoices_due",
        sa.Column(
            "subscription_id", sa.String(64), sa.ForeignKey("subscriptions.id"), primary_key=True
        ),
        sa.Column("version", whole, nullable=False),
        sa.Column("due_at", moment, nullable=False),
    )
    op.create_index("invoices_due_at", "invoices_due", ["due_at"])


def downgrade() -> None:
    op.drop_table("invoices_due")
    op.drop_table("invoices")
