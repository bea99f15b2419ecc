"""A catalog on SQLite, and the same on a real PostgreSQL where its programs are installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog import accounts
from catalog.database import Catalog
from catalog.migrations import migrate
from schemas.keys import NewAccount
from tests.postgres import create_database


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'catalog.db'}"
    return create_database(request.getfixturevalue("postgres"))


@pytest.fixture
def catalog_url(empty_url: str) -> str:
    """The URL of a migrated database."""
    migrate(empty_url)
    return empty_url


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """A catalog with the accounts `acme` and `other`."""
    catalog = Catalog(catalog_url)
    with catalog.writing("test") as writing:
        accounts.create(writing, NewAccount(id="acme", name="Acme"))
        accounts.create(writing, NewAccount(id="other", name="Other"))
    yield catalog
    catalog.close()


@pytest.fixture
def sqlite_catalog(tmp_path: Path) -> Iterator[Catalog]:
    """The same, on SQLite only: for what doesn't depend on the database."""
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    migrate(url)
    catalog = Catalog(url)
    with catalog.writing("test") as writing:
        accounts.create(writing, NewAccount(id="acme", name="Acme"))
    yield catalog
    catalog.close()
