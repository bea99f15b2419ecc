"""Random streams through the whole of Tallylog, over HTTP and Kafka, against the oracle."""

import asyncio
import json
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from tests import oracle
from tests.e2e.running import Tallylog, until
from tests.oracle import Rule, Sent

START = datetime(2026, 10, 24, 20, tzinfo=UTC)  # the clock of Berlin goes back on the 25th
HOURS = 72
CUSTOMERS = ("ada", "grace", "linus")
KINDS: list[dict[str, Any]] = [
    {"aggregation": "COUNT"},
    {"aggregation": "SUM", "field": "n"},
    {"aggregation": "AVG", "field": "n"},
    {"aggregation": "COUNT_UNIQUE", "field": "who"},
    {"aggregation": "LATEST", "field": "n"},
    {"aggregation": "SUM_WITH_MULTIPLIER", "field": "n", "multiplier": Decimal("0.125")},
    {"aggregation": "MAX", "field": "n"},
    {"aggregation": "MAX", "field": "n", "bucket_size": "15MIN", "group_by": "who"},
    {"aggregation": "WEIGHTED_SUM", "field": "n"},
]
RULES = [
    *KINDS,
    *(kind | {"reset": "NEVER"} for kind in KINDS if "bucket_size" not in kind),
    {"aggregation": "SUM", "field": "n", "filters": {"who": {"a", "7"}}},
]


def create(tallylog: Tallylog, rule: Rule) -> str:
    """Create the rule's feature; its meter's id."""
    return str(create_feature(tallylog, rule)["meter"]["id"])


def create_feature(tallylog: Tallylog, rule: Rule) -> dict[str, Any]:
    """Create the rule's feature, and return it."""
    parts = {"type": rule.aggregation, "field": rule.field, "multiplier": rule.multiplier}
    parts |= {"bucket_size": rule.bucket_size, "group_by": rule.group_by}
    filters = [{"key": key, "values": sorted(values)} for key, values in rule.filters.items()]
    meter = {
        "event_name": rule.event_name,
        "aggregation": {name: str(value) for name, value in parts.items() if value is not None},
        "filters": filters,
        "reset_usage": rule.reset,
    }
    body = {"name": rule.event_name, "meter": meter}
    answer = tallylog.http.post("/v1/features", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def make_events(chance: random.Random, names: Iterable[str], count: int) -> list[dict[str, Any]]:
    """Events in no order of time, each at a millisecond of its own, some of them mistaken."""
    moments = chance.sample(range(HOURS * 3_600_000), count)
    events = []
    choices = list(names)
    for number, moment in enumerate(moments):
        numbers = [Decimal(chance.randrange(-500, 5000)) / 100, chance.randrange(10**12), "2.50"]
        given = {
            "n": chance.choice([*numbers * 3, "two", None, True]),
            "who": chance.choice(["a", "b", "", "7", 7]),
        }
        time = START + timedelta(milliseconds=moment)
        events.append(
            {
                "event_id": f"oracle-{number}",
                "event_name": chance.choice(choices),
                "external_customer_id": chance.choice(CUSTOMERS),
                "timestamp": time.isoformat(timespec="milliseconds"),
                "properties": {k: v for k, v in given.items() if chance.random() > 0.05},
            }
        )
    return events


def text(value: Any) -> bytes:
    """JSON with Decimals as numbers, digit for digit."""

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plain(one) for key, one in part.items()}
        if isinstance(part, list):
            return [plain(one) for one in part]
        return f"\0{part}\0" if isinstance(part, Decimal) else part

    return json.dumps(plain(value)).replace('"\\u0000', "").replace('\\u0000"', "").encode()


async def send_natively(tallylog: Tallylog, records: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=tallylog.kafka, acks="all")
    await producer.start()
    try:
        for record in records:
            await producer.send_and_wait(f"events.{tallylog.account}", record)
    finally:
        await producer.stop()


@pytest.mark.parametrize("seed", [1, 2])
def test_usage_is_what_the_oracle_says(tallylog: Tallylog, seed: int) -> None:
    chance = random.Random(seed)
    with tallylog.as_account(f"oracle-{seed}") as mine:
        rules = [Rule(mine.account, f"e{i}", **kind) for i, kind in enumerate(RULES)]
        meters = {rule.event_name: create(mine, rule) for rule in rules}
        once = make_events(chance, meters, 1200)
        again = once + chance.choices(once, k=300)  # repeats come by any route, at any time
        chance.shuffle(again)
        single, bulk, native = again[:50], again[50:900], again[900:]
        for event in single:
            assert mine.http.post("/v1/events", content=text(event)).status_code == 202
        for first in range(0, len(bulk), 100):
            body = text({"events": bulk[first : first + 100]})
            assert mine.http.post("/v1/events/bulk", content=body).status_code == 202
        asyncio.run(send_natively(mine, [text(native[i : i + 7]) for i in range(0, 600, 7)]))
        stored = "SELECT count() FROM metered_events WHERE account = {account:String}"
        until(lambda: mine.rows(stored, account=mine.account), [(len(again),)])

        received = datetime.now(UTC)
        log = [Sent(mine.account, event, received, (0, i, 0)) for i, event in enumerate(once)]
        judged = oracle.judge(log, rules)
        for _ in range(60):
            rule = chance.choice(rules)
            start = START + timedelta(milliseconds=chance.randrange(HOURS * 3_600_000))
            end = start + timedelta(milliseconds=chance.randrange(1, HOURS * 3_600_000))
            zone = chance.choice(["UTC", "Europe/Berlin", "Asia/Kathmandu"])
            customer = chance.choice(CUSTOMERS)
            question = {
                "meter_id": meters[rule.event_name],
                "external_customer_id": customer,
                "start_time": start.isoformat(timespec="milliseconds"),
                "end_time": end.isoformat(timespec="milliseconds"),
                "timezone": zone,
            }
            answer = mine.http.post("/v1/events/usage/meter", json=question)
            assert answer.status_code == 200, answer.text
            value = json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)["value"]
            wanted = oracle.usage(judged, replace(rule), customer, start, end, zone)
            wanted = None if isinstance(wanted, str) else wanted
            assert value == wanted, (rule, question)
