"""Rows of `events`, as a counter would write them, from what the oracle says of each event."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from itertools import count
from typing import Any

from clickhouse_connect.driver import Client
from clickhouse_connect.driver.insert import InsertContext

from schemas.catalog import Aggregation, Feature, Reset, Status, Window
from tests.oracle import Counted, Rule

GRAINS = {"MINUTE": 60, "15MIN": 900, "30MIN": 900}
_offsets = count(1)


def feature_of(rule: Rule, feature_id: str) -> Feature:
    """A rule of the oracle as the product's own definition; an empty id is ad hoc."""
    return Feature(
        id=feature_id,
        meter_id=feature_id,
        account=rule.account,
        event_name=rule.event_name,
        aggregation=Aggregation(rule.aggregation),
        field=rule.field,
        multiplier=rule.multiplier,
        bucket_size=None if rule.bucket_size is None else Window(rule.bucket_size),
        group_by=rule.group_by,
        filters=tuple((key, frozenset(values)) for key, values in rule.filters.items()),
        reset_usage=Reset(rule.reset),
        status=Status.PUBLISHED,
        created_version=1,
        version=1,
    )


def text_of(properties: dict[str, Any]) -> str:
    """Properties as JSON text, decimals as they are written."""
    marks = {f"\0{i}": str(v) for i, v in enumerate(properties.values()) if isinstance(v, Decimal)}
    names = iter(marks)
    plain = {k: next(names) if isinstance(v, Decimal) else v for k, v in properties.items()}
    text = json.dumps(plain)
    for mark, number in marks.items():
        text = text.replace(json.dumps(mark), number)
    return text


def store_block(
    client: Client,
    judged: Iterable[Counted],
    rules: dict[str, Rule],
    ids: dict[str, str],
    resent: bool = False,
) -> None:
    """Insert one block of events; `resent`: they were stored before, without a feature."""
    if resent:
        before = next(_offsets)
        rows = [
            _row(one, rules, ids, before, index) | {"verdict": "unknown_event_name"}
            for index, one in enumerate(judged)
        ]
        _insert(client, [row | {"feature_id": "", "aggregation": ""} for row in rows])
    offset = next(_offsets)
    rows = [_row(one, rules, ids, offset, index) for index, one in enumerate(judged)]
    if resent:
        rows = [
            row | {"superseded_offset": before, "superseded_index": index}
            for index, row in enumerate(rows)
        ]
    marker = {"verdict": "marker", "block_offset": offset, "block_index": 2**32 - 1, "grain": 3600}
    _insert(client, [*rows, marker])


def _insert(client: Client, rows: list[dict[str, Any]]) -> None:
    names = list(rows[0])
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    moments = dict.fromkeys(("timestamp", "ingested_at", "block_time"), epoch)
    empty = {**moments, "is_text": False, "value": Decimal(0)}
    numbers = {name for name, value in rows[0].items() if isinstance(value, int)}
    context = _context(client, tuple(names))
    context.data = [
        [row.get(n, empty.get(n, 0 if n in numbers else "")) for n in names] for row in rows
    ]
    client.insert(context=context)


@cache
def _context(client: Client, names: tuple[str, ...]) -> InsertContext:
    """What an insert of these columns has to know of the table, asked for once."""
    return client.create_insert_context("events", names)


def _row(
    one: Counted, rules: dict[str, Rule], ids: dict[str, str], offset: int, index: int
) -> dict[str, Any]:
    sent = one.sent
    name = sent.event["event_name"]
    rule = rules.get(name)
    counted = one.verdict == "counted" and rule is not None
    value = one.value if counted and rule and rule.aggregation != "COUNT" else None
    is_unique = rule is not None and rule.aggregation == "COUNT_UNIQUE"
    return {
        "account": sent.account,
        "event_name": name,
        "external_customer_id": sent.event["external_customer_id"],
        "timestamp": one.time,
        "event_id": sent.event["event_id"],
        "ingested_at": sent.received_at,
        "source": sent.event.get("source", ""),
        "properties": text_of(sent.event["properties"]),
        "verdict": one.verdict,
        "feature_id": ids.get(name, "") if one.verdict != "duplicate" else "",
        "aggregation": rule.aggregation if counted and rule else "",
        "value": value if isinstance(value, Decimal) else Decimal(0),
        "text": value if isinstance(value, str) else "",
        "is_text": isinstance(value, str) and not is_unique,
        "group_key": one.group,
        "grain": GRAINS.get((rule.bucket_size if rule else None) or "", 3600),
        "log_partition": sent.position[0],
        "log_offset": sent.position[1],
        "log_index": sent.position[2],
        "superseded_offset": -1,
        "superseded_index": 0,
        "block_offset": offset,
        "block_index": index,
        "block_time": sent.received_at,
    }
