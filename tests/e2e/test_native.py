"""Kafka-native producers of every kind: what they write counts once, and rubbish stops nobody."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata
from confluent_kafka import Producer

from tests import batches
from tests.e2e.running import Tallylog, until
from tests.sqlite import moved_away

Event = dict[str, Any]
Write = Callable[[Tallylog, str, list[Event]], None]
BYTES_MAX = 16 << 20


def murmur2(data: bytes) -> int:
    """Murmur2 as Kafka's Java client computes it, 32 bits, sign removed as its partitioner does."""
    length, mask = len(data), 0xFFFFFFFF
    h = (0x9747B28C ^ length) & mask
    for at in range(0, length // 4 * 4, 4):
        k = int.from_bytes(data[at : at + 4], "little") * 0x5BD1E995 & mask
        k = (k ^ k >> 24) * 0x5BD1E995 & mask
        h = h * 0x5BD1E995 & mask ^ k
    tail = data[length // 4 * 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * 0x5BD1E995 & mask
    h = (h ^ h >> 13) * 0x5BD1E995 & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def java_partitioner(key: bytes | None, partitions: list[int], available: list[int]) -> int:
    """What DefaultPartitioner does with a key; without one, any partition will do."""
    return available[0] if key is None else partitions[murmur2(key) % len(partitions)]


def records(events: Sequence[Event]) -> list[tuple[bytes | None, bytes]]:
    """Keys and values that hold the events one by one, in an array, and in {"events": []}."""
    third = len(events) // 3
    ones = [
        (None if number % 2 else event["external_customer_id"].encode(), json.dumps(event).encode())
        for number, event in enumerate(events[:third])
    ]
    array = json.dumps(events[third : 2 * third]).encode()
    bulk = json.dumps({"events": events[2 * third :]}).encode()
    return [*ones, (b"any key", array), (None, bulk)]


def send(
    tallylog: Tallylog, topic: str, values: Sequence[tuple[bytes | None, bytes | None]], **how: Any
) -> list[RecordMetadata]:
    """Write records with aiokafka, one after the other; where each one is."""

    async def write() -> list[RecordMetadata]:
        producer = AIOKafkaProducer(
            bootstrap_servers=tallylog.kafka,
            acks="all",
            max_request_size=BYTES_MAX,
            **how,
        )
        async with producer:
            return [await producer.send_and_wait(topic, value, key) for key, value in values]

    return asyncio.run(write())


def aiokafka_default(tallylog: Tallylog, topic: str, events: list[Event]) -> None:
    send(tallylog, topic, records(events))


def java_style(tallylog: Tallylog, topic: str, events: list[Event]) -> None:
    send(tallylog, topic, records(events), partitioner=java_partitioner)


def librdkafka(compression: str) -> Write:
    def write(tallylog: Tallylog, topic: str, events: list[Event]) -> None:
        faults: list[object] = []

        def delivered(fault: object, message: object) -> None:
            if fault is not None:
                faults.append(fault)

        producer = Producer(
            {"bootstrap.servers": tallylog.kafka, "compression.type": compression, "linger.ms": 5}
        )
        for key, value in records(events):
            producer.produce(topic, value, key, on_delivery=delivered)
        assert producer.flush(30) == 0
        assert not faults

    write.__name__ = f"librdkafka_{compression}"
    return write


PRODUCERS: list[Write] = [
    aiokafka_default,
    java_style,
    *(librdkafka(compression) for compression in ("none", "gzip", "snappy", "lz4", "zstd")),
]


@pytest.mark.parametrize(
    ("key", "hash"),
    [
        (b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971), (b"abc", 479470107),
    ],
)  # fmt: skip
def test_murmur2_is_that_of_the_java_client(key: bytes, hash: int) -> None:
    assert murmur2(key) == hash & 0x7FFFFFFF  # values of Kafka's own UtilsTest


def test_the_same_events_by_every_kind_of_producer_count_once(tallylog: Tallylog) -> None:
    name = f"native.{uuid4().hex[:8]}"
    meter = tallylog.create_feature(name, "SUM", "credits")
    customers = [f"cust_{number % 3}_{name}" for number in range(90)]
    events = [
        {
            "event_id": f"{name}-{number}",
            "event_name": name,
            "external_customer_id": customer,
            "properties": {"credits": number / 4},
        }
        for number, customer in enumerate(customers)
    ]
    for write in PRODUCERS:
        write(tallylog, f"events.{tallylog.account}", events)
    repeats = (len(PRODUCERS) - 1) * len(events)
    until(lambda: tallylog.verdicts(name), {"counted": len(events), "duplicate": repeats})
    for customer in set(customers):
        wanted = sum(
            (Decimal(n) / 4 for n, each in enumerate(customers) if each == customer), Decimal(0)
        )
        assert tallylog.usage(meter, customer) == wanted


def test_a_new_topic_is_read_from_its_first_record_within_seconds(tallylog: Tallylog) -> None:
    value = json.dumps({"event_name": "first", "external_customer_id": "cust_1"}).encode()
    with tallylog.as_account(f"fresh-{uuid4().hex[:8]}") as fresh:
        send(fresh, f"events.{fresh.account}", [(None, value), (None, value)])
        until(lambda: fresh.verdicts("first"), {"unknown_event_name": 2}, timeout_s=15)


def test_rubbish_is_accounted_for_and_stops_nobody(tallylog: Tallylog) -> None:
    name = f"rubbish.{uuid4().hex[:8]}"
    tallylog.create_feature(name)
    topic = f"events.{tallylog.account}"
    good = {"event_name": name, "external_customer_id": "cust_1"}
    many = [
        {**good, "event_id": f"{name}-{n}", "properties": {"pad": "x" * 130}} for n in range(40_000)
    ]
    array = json.dumps(many, separators=(",", ":")).encode()
    mixed: list[object] = [good] * 99
    mixed.insert(42, {**good, "event_name": 7})
    long = json.dumps({**good, "properties": {"text": "x" * 1_000_000}}).encode()
    longer = json.dumps({**good, "properties": {"text": "x" * (1 << 20)}}).encode()
    assert 9_000_000 < len(array) <= 10 << 20
    values: list[tuple[bytes | None, bytes | None]] = [
        (None, b"\xff\xfe rubbish \x00"),
        (None, b""),
        (b"tombstone", None),
        (None, array),
        (None, json.dumps(mixed).encode()),
        (None, long),
        (None, longer),
        (None, json.dumps(good).encode()),
    ]
    rubbish, empty, null, forty, bad, fits, too_long, last = (
        (each.topic, each.partition, each.offset) for each in send(tallylog, topic, values)
    )
    counted = 40_000 + 99 + 1 + 1
    until(lambda: tallylog.verdicts(name), {"counted": counted}, timeout_s=60)
    until(lambda: len(tallylog.dead_letters(*too_long)), 1)
    assert tallylog.dead_letters(*rubbish) == [(0, "invalid_utf8", 12)]
    assert tallylog.dead_letters(*empty) == [(0, "empty", 0)]
    assert tallylog.dead_letters(*null) == [(0, "empty", 0)]
    assert tallylog.dead_letters(*bad) == [(42, "wrong_type", len(json.dumps(mixed[42])))]
    assert tallylog.dead_letters(*too_long) == [(0, "too_large", len(longer))]
    for place in (forty, fits, last):
        assert tallylog.dead_letters(*place) == []


def test_without_a_catalog_only_the_partition_waits_that_names_somebody_unknown(
    tallylog: Tallylog,
) -> None:
    """Only the catalog can tell whether there is such a customer; nobody else has to know."""
    name = "nobody.knows"
    good = json.dumps({"event_name": name, "external_customer_id": "c"}).encode()
    unknown = json.dumps({"event_name": name, "customer_id": "cust_nobody"}).encode()
    with tallylog.as_account(f"unknown-{uuid4().hex[:6]}") as own:
        own.create_feature(name)
        topic = f"events.{own.account}"

        def send_to(partition: int, *values: bytes) -> None:
            made = batches.batch(0, values, at=None)
            asyncio.run(batches.write(own.kafka, topic, partition, [made]))

        send_to(0, good)
        assert own.http.post("/v1/events", content=good).status_code == 202
        until(lambda: own.verdicts(name), {"counted": 2})
        with moved_away(Path(own.data_dir)):
            send_to(0, unknown, good)
            send_to(1, good)
            assert own.http.post("/v1/events", content=good).status_code == 202
            until(lambda: own.verdicts(name), {"counted": 4})
            time.sleep(1.5)
            send_to(1, good)
            until(lambda: own.verdicts(name), {"counted": 5})
        until(lambda: own.verdicts(name), {"counted": 6})
        [(index, reason, _)] = own.dead_letters(topic, 0, 1)
        assert (index, reason.split(":")[0]) == (0, "unknown_customer_id")
