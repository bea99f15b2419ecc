"""Once: no event_id counts more than once within the horizon."""

from typing import NamedTuple

from clickhouse_connect.driver import Client

from clickhouse.queries import query

ROWS_MAX = 1000


class Repeated(NamedTuple):
    """An event that counts more than once, and the customers whose usage it is."""

    account: str
    event_id: str
    times: int
    customers: list[str]


def repeated(client: Client, shards: int, shard: int, horizon_ms: int) -> list[Repeated]:
    """The events of a shard of all ids that count too often. Raises ClickHouseError."""
    parameters = {
        "shards": shards,
        "shard": shard,
        "horizon_ms": horizon_ms,
        "rows_max": ROWS_MAX,
    }
    rows = client.query(query("verify_once"), parameters).result_rows
    return [Repeated(*row) for row in rows]
