"""A real engine in this process, with a database of its own for each test."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver import Client

from clickhouse.migrator import apply, read_migrations

_numbers = count()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """chDB in this process."""
    path: Path = tmp_path_factory.mktemp("engine")
    client = clickhouse_connect.get_client(
        interface="chdb", path=str(path), settings={"async_insert": 0}, tz_mode="aware"
    )
    yield client
    client.close()


@pytest.fixture
def empty_database(engine: Client) -> Iterator[str]:
    """A database's name; it doesn't exist yet."""
    name = f"test_{next(_numbers)}"
    yield name
    engine.command("USE default")
    engine.command(f"DROP DATABASE IF EXISTS {name} SYNC")


@pytest.fixture
def database(engine: Client, empty_database: str) -> str:
    """A migrated database; the client is in it."""
    apply(engine, empty_database, read_migrations())
    return empty_database
