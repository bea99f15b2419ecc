"""The events that benchmarks send: realistic sizes, random ids, two features, many customers."""

import random
from dataclasses import dataclass

import orjson

CUSTOMERS = 5000
START_MS = 1_755_846_000_000  # 2025-08-22T07:00Z
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Workload:
    """`records` are bulk request bodies of `per_record` events each; ids are random and unique."""

    events: int
    per_record: int
    records: list[bytes]


def make(events: int, per_record: int = 500, seed: int = 1) -> Workload:
    """A workload of so many events, the same for the same seed."""
    chance = random.Random(seed)
    records = []
    for first in range(0, events, per_record):
        batch = [_event(n, chance) for n in range(first, min(first + per_record, events))]
        records.append(orjson.dumps({"events": batch}))
    return Workload(events, per_record, records)


def _event(number: int, chance: random.Random) -> dict[str, object]:
    at = chance.randrange(HOUR_MS)
    return {
        "event_name": "api.calls" if number % 3 == 0 else "model.usage",
        "external_customer_id": f"cust_{chance.randrange(CUSTOMERS)}",
        "event_id": f"evt_{chance.getrandbits(80):020x}",
        "timestamp": f"2025-08-22T07:{at // 60000:02}:{at // 1000 % 60:02}.{at % 1000:03}Z",
        "source": "api",
        "properties": {
            "credits": chance.randrange(1, 50_000) / 100,
            "model": "gpt-4",
            "region": "us-east-1",
            "request_id": f"req_{number}",
        },
    }


FEATURES: list[dict[str, object]] = [
    {
        "name": "Model usage",
        "type": "metered",
        "meter": {
            "name": "credits",
            "event_name": "model.usage",
            "aggregation": {"type": "SUM", "field": "credits"},
        },
    },
    {
        "name": "API calls",
        "type": "metered",
        "meter": {
            "name": "calls",
            "event_name": "api.calls",
            "aggregation": {"type": "COUNT"},
        },
    },
]
"""What counts them."""
