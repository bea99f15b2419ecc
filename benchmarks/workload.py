"""The events that benchmarks send: realistic sizes, random ids, two features, many customers."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import orjson

from benchmarks.load import HOLE, Body

NAMES = ("api.calls", "model.usage", "model.usage")
"""Of events, in turn."""
NO_MORE: Mapping[str, str] = MappingProxyType({})
CUSTOMERS = 5000
START_MS = 1_755_846_000_000  # 2025-08-22T07:00Z
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Workload:
    """`records` are bulk request bodies of `per_record` events each; ids are random and unique."""

    events: int
    per_record: int
    records: list[bytes]


def make(
    events: int,
    per_record: int = 500,
    seed: int = 1,
    *,
    names: Sequence[str] = NAMES,
    more: Mapping[str, str] = NO_MORE,
) -> Workload:
    """A workload of so many events, the same for the same seed; `more` are further properties."""
    chance = random.Random(seed)
    records = []
    for first in range(0, events, per_record):
        batch = [
            _event(n, chance, names, more) for n in range(first, min(first + per_record, events))
        ]
        records.append(orjson.dumps({"events": batch}))
    return Workload(events, per_record, records)


def bodies(count: int, per_request: int, seed: int = 1) -> list[Body]:
    """Bulk bodies, or those of single events when each has one, with holes for their ids."""
    texts = [orjson.dumps(events) for events in _batches(count, per_request, seed)]
    if per_request == 1:
        return [Body(text[1:-1]) for text in texts]
    return [Body(b'{"events":%b}' % text) for text in texts]


def arrays(count: int, per_record: int, seed: int = 1) -> list[Body]:
    """Values of native records, each an array of events, or an event when it has one."""
    texts = [orjson.dumps(events) for events in _batches(count, per_record, seed)]
    return [Body(text[1:-1] if per_record == 1 else text) for text in texts]


def _batches(count: int, each: int, seed: int) -> Iterator[list[dict[str, object]]]:
    chance = random.Random(seed)
    for first in range(0, count * each, each):
        events = [_event(number, chance) for number in range(first, first + each)]
        yield [event | {"event_id": f"evt_{HOLE.decode()}"} for event in events]


def _event(
    number: int,
    chance: random.Random,
    names: Sequence[str] = NAMES,
    more: Mapping[str, str] = NO_MORE,
) -> dict[str, object]:
    at = chance.randrange(HOUR_MS)
    return {
        "event_name": names[number % len(names)],
        "external_customer_id": f"cust_{chance.randrange(CUSTOMERS)}",
        "event_id": f"evt_{chance.getrandbits(80):020x}",
        "timestamp": f"2025-08-22T07:{at // 60000:02}:{at // 1000 % 60:02}.{at % 1000:03}Z",
        "source": "api",
        "properties": {
            "credits": chance.randrange(1, 50_000) / 100,
            "model": "gpt-4",
            "region": "us-east-1",
            "request_id": f"req_{number}",
            **more,
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
