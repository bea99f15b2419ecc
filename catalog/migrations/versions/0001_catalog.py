"""Accounts, API keys, meters, features, customers; the version and every change.

Why    Matching is a function of the log: a block names a version, and `changes` can replay it.
Order  A writer locks the one row of `catalog_version` until it commits: versions appear in order.
Once   An event name has at most one published feature, an external id one customer for good.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    moment = sa.DateTime(timezone=True)

    def stamps() -> list[sa.Column[Any]]:
        return [
            sa.Column("created_at", moment, nullable=False),
            sa.Column("updated_at", moment, nullable=False),
            sa.Column("created_version", whole, nullable=False),
            sa.Column("version", whole, nullable=False),
        ]

    counter = op.create_table(
        "catalog_version",
        sa.Column("id", whole, primary_key=True, autoincrement=False),
        sa.Column("version", whole, nullable=False),
    )
    op.bulk_insert(counter, [{"id": 1, "version": 0}])
    op.create_table(
        "changes",
        sa.Column("version", whole, primary_key=True, autoincrement=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text(), nullable=False),
    )
    op.create_index("changes_entity", "changes", ["account", "kind", "entity_id", "version"])
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.Column("version", whole, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(64), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("strict", sa.Boolean(), nullable=False),
        sa.Column("requests_per_minute", whole),
        sa.Column("bulk_requests_per_minute", whole),
        sa.Column("expires_at", moment),
        sa.Column("revoked_at", moment),
        *stamps(),
    )
    op.create_index("api_keys_account", "api_keys", ["account"])
    op.create_table(
        "meters",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(64), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("event_name", sa.Text(), nullable=False),
        sa.Column("aggregation", sa.String(32), nullable=False),
        sa.Column("field", sa.Text()),
        sa.Column("multiplier", sa.String(64)),
        sa.Column("bucket_size", sa.String(16)),
        sa.Column("group_by", sa.Text()),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("reset_usage", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        *stamps(),
    )
    op.create_index("meters_account", "meters", ["account"])
    op.create_table(
        "features",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(64), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column(
            "meter_id", sa.String(64), sa.ForeignKey("meters.id"), nullable=False, unique=True
        ),
        sa.Column("event_name", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("lookup_key", sa.Text()),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("unit_singular", sa.Text()),
        sa.Column("unit_plural", sa.Text()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        *stamps(),
    )
    op.create_index("features_account", "features", ["account"])
    for name, column in (
        ("features_active_event_name", "event_name"),
        ("features_active_lookup_key", "lookup_key"),
    ):
        op.create_index(
            name,
            "features",
            ["account", column],
            unique=True,
            sqlite_where=sa.text("status = 'published'"),
            postgresql_where=sa.text("status = 'published'"),
        )
    op.create_table(
        "customers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(64), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text()),
        sa.Column("timezone", sa.Text()),
        sa.Column("address", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        *stamps(),
        sa.UniqueConstraint("account", "external_id"),
    )
    op.create_index("customers_newest", "customers", ["account", "created_version"])
