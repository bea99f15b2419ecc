"""A migrated ClickHouse database for tests of the store."""

from collections.abc import AsyncIterator, Iterator

import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import Inserts, connect
from tests.stack import migrated


@pytest.fixture(scope="module")
def url(clickhouse_url: str) -> Iterator[str]:
    """A migrated database of the module's own."""
    with migrated(clickhouse_url) as each:
        yield each


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
