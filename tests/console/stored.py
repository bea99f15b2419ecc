"""Rows of `events` as a counter stores them, for tests of what the console shows of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from clickhouse_connect.driver import Client

Row = dict[str, Any]
NOON = datetime(2025, 8, 22, 12, tzinfo=UTC)
MARKER_INDEX = 2**32 - 1
_DEFAULTS: Row = {
    "account": "default",
    "event_name": "model.usage",
    "external_customer_id": "cust_1",
    "timestamp": NOON,
    "event_id": "",
    "ingested_at": NOON,
    "timestamp_given": True,
    "source": "",
    "properties": "",
    "verdict": "counted",
    "detail": "",
    "warnings": "",
    "feature_id": "",
    "aggregation": "",
    "value": Decimal(0),
    "text": "",
    "is_text": False,
    "group_key": "",
    "grain": 3600,
    "first_epoch": 0,
    "first_offset": 0,
    "first_index": 0,
    "log_topic": "gateway-events",
    "log_epoch": 0,
    "log_partition": 0,
    "log_offset": 0,
    "log_index": 0,
    "superseded_epoch": 0,
    "superseded_offset": -1,
    "superseded_index": 0,
    "block_epoch": 0,
    "block_partition": 0,
    "block_offset": 0,
    "block_index": 0,
    "block_time": NOON,
    "catalog_version": 1,
    "owner": 0,
}


def store_rows(client: Client, offset: int, *rows: Row, partition: int = 0) -> None:
    """Insert the rows as the block at an offset of a block partition, with its marker."""
    place = {"block_offset": offset, "block_partition": partition}
    whole = [
        _DEFAULTS
        | {"log_offset": offset, "log_index": index}
        | row
        | place
        | {"block_index": index}
        for index, row in enumerate(rows)
    ]
    marker = {"account": "", "event_name": "", "external_customer_id": "", "verdict": "marker"}
    whole.append(_DEFAULTS | marker | place | {"properties": "[]", "block_index": MARKER_INDEX})
    insert(client, whole)


def insert(client: Client, rows: Sequence[Row]) -> None:
    """Insert whole rows."""
    names = list(_DEFAULTS)
    client.insert("events", [[row[name] for name in names] for row in rows], column_names=names)
