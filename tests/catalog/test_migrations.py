"""The tables: made once, by however many processes, and as the models say."""

import json
import multiprocessing
from datetime import timedelta
from decimal import Decimal

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from catalog import invoices
from catalog.bootstrap import bootstrap
from catalog.database import Catalog, open_engine
from catalog.invoice_tables import InvoiceRow
from catalog.invoices import Closed
from catalog.migrations import configuration, migrate
from tests.catalog.offers import START, Sold


def test_migrating_twice_changes_nothing(empty_url: str) -> None:
    migrate(empty_url)
    migrate(empty_url)


def test_the_migrations_make_what_the_models_say(catalog_url: str) -> None:
    engine = open_engine(catalog_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, InvoiceRow.metadata) == []
    engine.dispose()


def test_migrations_are_numbered_without_gaps(catalog_url: str) -> None:
    engine = open_engine(catalog_url)
    with engine.connect() as connection:
        scripts = list(ScriptDirectory.from_config(configuration(connection)).walk_revisions())
        applied = connection.scalar(text("SELECT version_num FROM alembic_version"))
    engine.dispose()
    numbers = [script.revision for script in reversed(scripts)]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    assert applied == numbers[-1]


def test_what_older_invoices_billed_is_read_from_their_content(catalog: Catalog) -> None:
    with catalog.writing("ada") as writing:
        sold = Sold(writing)
        price = sold.price(writing)
        row = sold.subscription(writing)
        content = json.dumps(
            {"lines": [{"feature_id": sold.feature.id, "price_id": price.id, "amount": "1"}]}
        )
        end = START + timedelta(days=1)
        closed = Closed(START, end, Decimal(1), content, [], {})
        invoice_id = invoices.store(writing, row, 1, closed).id
    with catalog.engine.begin() as connection:
        command.downgrade(configuration(connection), "0003")
    with catalog.engine.begin() as connection:
        command.upgrade(configuration(connection), "head")
    with catalog.reading() as session:
        invoice = invoices.get(session, "acme", invoice_id)
        assert invoice.billed == {sold.feature.id: price.id}
        assert invoice.content == content


def test_of_processes_that_start_at_once_one_makes_the_tables_and_the_key(empty_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        made = pool.map(bootstrap, [empty_url] * 3, chunksize=1)
        pool.close()
        pool.join()
    assert [each.account for each in made] == ["default"] * 3
    assert sum(each.api_key is not None for each in made) == 1


def test_the_journal_of_sqlite_is_a_wal_and_references_hold(sqlite_catalog: Catalog) -> None:
    with sqlite_catalog.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert connection.scalar(text("PRAGMA synchronous")) == 2
