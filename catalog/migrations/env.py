"""Alembic's entry: runs the migrations over the connection, and in the transaction, it is given."""

from alembic import context

from catalog import invoice_tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=invoice_tables.InvoiceRow.metadata,
    transactional_ddl=True,
)
context.run_migrations()
