"""A migrated ClickHouse database for tests of the store."""

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import Inserts, connect
from clickhouse.migrator import apply, read_migrations


@pytest.fixture(scope="module")
def url(clickhouse_url: str) -> Iterator[str]:
    """A migrated database of the run's ClickHouse."""
    database = f"workers_{uuid4().hex}"
    client = connect(clickhouse_url, database="")
    apply(client, database, read_migrations())
    yield f"{clickhouse_url.rpartition('/')[0]}/{database}"
    client.command(f"DROP DATABASE {database} SYNC")
    client.close()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client of the database, whose tables are empty."""
    client = connect(url)
    for table in ("events", "usage_states"):
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()


@pytest.fixture
async def inserts(url: str) -> AsyncIterator[Inserts]:
    """The counter's way to insert."""
    inserts = Inserts(url)
    yield inserts
    await inserts.close()
