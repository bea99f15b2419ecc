"""The conservation gap: records that are counted by their positions, but have no row."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from clickhouse_connect.driver import Client

from clickhouse.client import connect
from console.progress import conservation_gap
from console.store import Store
from console.watermarks import Mark
from tests.console.stored import Row, store_rows
from tests.stack import migrated

pytestmark = pytest.mark.clickhouse


@pytest.fixture
def store_url(clickhouse_url: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    with migrated(clickhouse_url) as url:
        yield url


def record(offset: int, partition: int = 0, **more: object) -> Row:
    now = datetime.now(UTC)
    return {"log_offset": offset, "log_partition": partition, "block_time": now, **more}


def test_a_record_without_a_row_is_a_gap_and_one_not_counted_yet_is_none(store_url: str) -> None:
    client: Client = connect(store_url)
    store = Store(store_url)
    rows = [record(offset) for offset in range(100, 200) if offset not in (150, 151)]
    rows += [record(120, log_index=1), record(7, partition=1, verdict="dead_letter", event_name="")]
    store_rows(client, 1, *rows)
    now = int(datetime.now(UTC).timestamp() * 1000)
    assert conservation_gap(store, Mark(now, {0: 200, 1: 8})) == 2
    assert conservation_gap(store, Mark(now, {0: 150, 1: 8})) == 0
    assert conservation_gap(store, Mark(now, {0: 210, 1: 8})) == 12
    assert conservation_gap(store, Mark(now, {0: 0, 1: 0})) == 0
    store_rows(client, 2, record(150), record(151))
    assert conservation_gap(store, Mark(now, {0: 200, 1: 8})) == 0
    store.close()
    client.close()
