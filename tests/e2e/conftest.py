"""The whole of Tallylog, started once for all end-to-end tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Tallylog, tallylog_up


@pytest.fixture(scope="session")
def tallylog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tallylog]:
    """A running `tallylog up`; tests keep apart by names and customers of their own."""
    with tallylog_up(tmp_path_factory.mktemp("tallylog")) as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the whole of Tallylog."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
