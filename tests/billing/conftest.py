"""A migrated database on the ClickHouse of the run."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import connect
from clickhouse.migrator import apply, read_migrations


@pytest.fixture(scope="session")
def store(clickhouse_url: str) -> Iterator[Client]:
    """A client in a database of its own."""
    client = connect(clickhouse_url, database="")
    database = f"billing_{uuid4().hex}"
    apply(client, database, read_migrations())
    yield client
    client.command(f"DROP DATABASE {database} SYNC")
    client.close()
