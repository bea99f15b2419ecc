"""The tables: made once, by however many processes, and as the models say."""

import multiprocessing

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from catalog.bootstrap import bootstrap
from catalog.database import Catalog, open_engine
from catalog.invoice_tables import InvoiceRow
from catalog.migrations import configuration, migrate


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
