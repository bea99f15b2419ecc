"""A migrated database on the ClickHouse of the run."""

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import connect
from tests.stack import migrated


@pytest.fixture(scope="session")
def store(clickhouse_url: str) -> Iterator[Client]:
    """A client in a database of its own."""
    with migrated(clickhouse_url) as url, connect(url) as client:
        yield client
