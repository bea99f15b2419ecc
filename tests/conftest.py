"""Fixtures that every test may use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import find_program, postgres_server
from tests.stack import clickhouse_server, kafka_server, migrated


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka broker for the whole run: "host:port"."""
    with kafka_server(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """ClickHouse's HTTP interface for the whole run: its URL, with a database."""
    with clickhouse_server(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


@pytest.fixture(scope="module")
def store_url(clickhouse_url: str) -> Iterator[str]:
    """The URL of a migrated database of the module's own."""
    with migrated(clickhouse_url) as url:
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL for the whole run: its user, host and port."""
    initdb, server = find_program("initdb"), find_program("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL here: initdb and postgres are not installed")
    with postgres_server(initdb, server) as place:
        yield place


APART = ("e2e", "storm")
"""Folders whose tests start whole Tallylogs: one of them at a time is what two cores can take."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what has to run in one process: a module, and all of the folders that stand apart."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here).parts
        name = "apart" if place[0] in APART else str(Path(*place))
        item.add_marker(pytest.mark.xdist_group(name))
