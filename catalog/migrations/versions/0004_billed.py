"""By feature, the price that an invoice billed: what no other subscription may bill in its period.

Why    Prices are archived and created; what is billed already is known from invoices alone.
Exact  What older invoices billed is read from their content.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    nothing = sa.text("'{}'")
    op.add_column(
        "invoices", sa.Column("billed", sa.JSON(), nullable=False, server_default=nothing)
    )
    bound = op.get_bind()
    invoices = sa.table(
        "invoices", sa.column("id"), sa.column("content"), sa.column("billed", sa.JSON())
    )
    for each in bound.scalars(sa.select(invoices.c.id)).all():
        content = bound.scalars(sa.select(invoices.c.content).where(invoices.c.id == each)).one()
        lines = json.loads(content)["lines"]
        billed = {line["feature_id"]: line["price_id"] for line in lines}
        bound.execute(sa.update(invoices).where(invoices.c.id == each).values(billed=billed))


def downgrade() -> None:
    op.drop_column("invoices", "billed")
