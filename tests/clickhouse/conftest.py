"""Clients of the run's ClickHouse, and a database of its own for each test."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import connect
from clickhouse.migrator import apply, read_migrations


@pytest.fixture
def engine(clickhouse_url: str) -> Iterator[Client]:
    """A client that is in no database yet."""
    client = connect(clickhouse_url, database="")
    yield client
    client.close()


@pytest.fixture
def empty_database(engine: Client) -> Iterator[str]:
    """A database's name; it doesn't exist yet."""
    name = f"test_{uuid4().hex}"
    yield name
    engine.database = ""
    engine.command(f"DROP DATABASE IF EXISTS {name} SYNC")


@pytest.fixture
def database(engine: Client, empty_database: str) -> str:
    """A migrated database; the client is in it."""
    apply(engine, empty_database, read_migrations())
    return empty_database
