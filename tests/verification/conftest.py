"""A store with the blocks of features of every aggregation."""

import random
from collections.abc import Iterator

import pyarrow as pa
import pytest
from clickhouse_connect.driver import Client

from billing.windows import to_datetime
from clickhouse.client import connect
from stream_workers.store import Store
from tests.stream_workers.test_folding import block_of
from tests.stream_workers.worlds import NOW, Counted, make_catalog, make_event, make_feature

KINDS = ["COUNT", "SUM", "AVG", "COUNT_UNIQUE", "LATEST", "WEIGHTED_SUM", "MAX"]
BLOCKS = 4
HOUR = 3_600_000


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """A client of a database that holds four blocks of each of two partitions."""
    client = connect(store_url)
    for table in ("events", "usage_states", "owners"):
        client.command(f"TRUNCATE TABLE {table}")
    for partition in (0, 1):
        counter = Counted(
            make_catalog(*(make_feature(kind, "v", event_name=kind) for kind in KINDS)), partition
        )
        count(client, counter, BLOCKS)
    yield client
    client.close()


def count(client: Client, counter: Counted, blocks: int) -> None:
    """Store blocks of random events, with duplicates and a dead letter in each."""
    chance = random.Random(counter.partition)
    owner = Store(client, 0).acquire(counter.partition)
    for _ in range(blocks):
        first = counter.next_offset
        events = [
            make_event(
                f"{counter.partition}-{first}-{number % 20}",
                event_name=chance.choice(KINDS),
                external_customer_id=f"cust_{chance.randrange(3)}",
                timestamp=to_datetime(NOW - chance.randrange(3 * HOUR)).isoformat(),
                properties={"v": chance.randrange(100)},
            )
            for number in range(25)
        ]
        block = block_of(*events, {"event_name": ""}, offset=first)
        rows = counter.fold(block, owner=owner).rows
        client.insert_arrow("events", pa.Table.from_batches([rows]))
