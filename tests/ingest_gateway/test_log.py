"""The log on a real broker: what is written, and what happens when the broker goes away."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from starlette.types import Receive, Scope, Send

from ingest_gateway.app import create_app
from ingest_gateway.errors import LogUnavailable
from ingest_gateway.log import Log, ensure_topic
from ingest_gateway.settings import Settings
from local_stack.children import Children
from local_stack.kafka import kafka_child
from schemas.ids import event_id_at
from schemas.limits import BODY_BYTES_MAX, MESSAGE_BYTES_MAX
from schemas.topics import GATEWAY_EVENTS
from tests.stack import stack_settings

pytestmark = pytest.mark.kafka
NOW = 1_755_846_349_441
EVENT = b'{"event_name": "api.calls", "external_customer_id": "cust_1", "properties": {"x": 1.50}}'


def settings_for(kafka: str, **others: object) -> Settings:
    return Settings.model_validate({"kafka": kafka, "gateway_ack_timeout_s": 3, **others})


@asynccontextmanager
async def running(settings: Settings, topic: str = "") -> AsyncIterator[Log]:
    log = Log(settings, topic or f"test-{uuid.uuid4().hex}")
    task = asyncio.create_task(log.run())
    try:
        async with asyncio.timeout(20):
            await log.connected.wait()
        yield log
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


Written = tuple[bytes, dict[str, bytes], int]


async def everything_in(kafka: str, topic: str) -> dict[tuple[int, int], Written]:
    """Every record of a topic by partition and offset: value, headers, timestamp."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=MESSAGE_BYTES_MAX,
    )
    await consumer.start()
    try:
        places = list(consumer.assignment())
        ends = await consumer.end_offsets(places)
        found: dict[tuple[int, int], Written] = {}
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and len(found) < sum(ends.values()):
            for place, records in (await consumer.getmany(timeout_ms=1000)).items():
                for r in records:
                    found[place.partition, r.offset] = (r.value, dict(r.headers), r.timestamp)
        return found
    finally:
        await consumer.stop()


async def test_records_are_in_the_log_where_the_answer_says_they_are(kafka: str) -> None:
    async with running(settings_for(kafka)) as log:
        sent = [
            (b"%d" % number, [("account", b"acme"), ("received-at", b"%d" % number)], NOW + number)
            for number in range(300)
        ]
        positions = await asyncio.gather(*(log.append(*each) for each in sent))
        found = await everything_in(kafka, log._topic)
    assert len(found) == 300
    for (value, headers, timestamp), place in zip(sent, positions, strict=True):
        assert found[place] == (value, dict(headers), timestamp)


async def test_appends_spread_over_the_partitions(kafka: str) -> None:
    async with running(settings_for(kafka)) as log:
        partitions = [(await log.append(b"x", [], NOW)).partition for _ in range(8)]
    assert sorted(partitions) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_the_largest_request_fits_also_beside_others(kafka: str) -> None:
    body = os.urandom(BODY_BYTES_MAX)  # what can't be compressed
    async with running(settings_for(kafka)) as log:
        await asyncio.gather(*(log.append(each, [], NOW) for each in (b"a", body, b"b", body)))
        values = [value for value, _, _ in (await everything_in(kafka, log._topic)).values()]
    assert sorted(map(len, values)) == [1, 1, BODY_BYTES_MAX, BODY_BYTES_MAX]


async def test_the_topic_is_made_once_with_room_for_large_records(kafka: str) -> None:
    topic = f"test-{uuid.uuid4().hex}"
    settings = settings_for(kafka, gateway_partitions=3)
    await asyncio.gather(*(ensure_topic(settings, topic) for _ in range(3)))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        (answer,) = await admin.describe_configs([resource])
    finally:
        await admin.close()
    assert len(described["partitions"]) == 3
    values = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert values["max.message.bytes"] == str(MESSAGE_BYTES_MAX)


async def test_a_failed_producer_is_replaced(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a wedged idempotent producer is: its appends fail, or never end."""
    async with running(settings_for(kafka, gateway_ack_timeout_s=0.5)) as log:
        await log.append(b"before", [], NOW)

        async def wedged(*args: object) -> None:
            await asyncio.sleep(3600)

        with monkeypatch.context() as patch:
            patch.setattr("aiokafka.producer.sender.Sender._send_produce_req", wedged)
            started = time.monotonic()
            waiting = [log.append(b"lost", [], NOW) for _ in range(3)]
            for each in waiting:
                with pytest.raises(LogUnavailable) as raised:
                    await each
                assert "no acknowledgement in time" in raised.value.message
            assert time.monotonic() - started < 1.5
        async with asyncio.timeout(10):
            while log.away is not None:
                with pytest.raises(LogUnavailable):
                    await log.append(b"refused", [], NOW)
                await asyncio.sleep(0.05)
            await log.append(b"after", [], NOW)
        values = {value for value, _, _ in (await everything_in(kafka, log._topic)).values()}
    assert {b"before", b"after"} <= values
    assert b"refused" not in values


@asynccontextmanager
async def client_of(settings: Settings, api_key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a whole gateway in this process."""
    app = create_app(settings)
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(state or {})
            await app(scope, receive, send)

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(with_state),
            base_url="http://gateway",
            headers={"x-api-key": api_key},
        ) as client:
            yield client


async def test_the_gateway_from_request_to_record(
    kafka: str, settings: Settings, api_key: str
) -> None:
    async with client_of(settings.model_copy(update={"kafka": kafka}), api_key) as client:
        before = await everything_in(kafka, GATEWAY_EVENTS)
        assert (await client.get("/readyz")).status_code == 200
        answered = await client.post("/v1/events", content=EVENT)
        assert answered.status_code == 202
        bulk = b'{"events": [%s, %s]}' % (EVENT, EVENT)
        assert (await client.post("/v1/events/bulk", content=bulk)).status_code == 202
        after = await everything_in(kafka, GATEWAY_EVENTS)
    records = sorted(after[place] for place in after.keys() - before.keys())
    assert [value for value, _, _ in records] == [EVENT, bulk]
    for _, record_headers, timestamp in records:
        assert record_headers["account"] == b"default"
        assert record_headers["received-at"] == b"%d" % timestamp
    first_id = records[0][1]["first-id"].decode()
    assert answered.json()["event_id"] == event_id_at(first_id, 0)


async def test_the_broker_may_be_away_stop_and_come_back(
    tmp_path: Path, settings: Settings, api_key: str
) -> None:
    """Away at the start, up, frozen, up, dead, up: 503 in time each time, and never 202."""
    stack = stack_settings(tmp_path / "stack")
    kafka = f"127.0.0.1:{stack.kafka_port}"
    impatient = settings.model_copy(update={"kafka": kafka, "gateway_ack_timeout_s": 1.5})
    accepted = 0
    async with client_of(impatient, api_key) as client:

        async def post() -> int:
            started = time.monotonic()
            response = await client.post("/v1/events", content=EVENT)
            assert time.monotonic() - started < 2.5
            assert response.status_code in (202, 503)
            if response.status_code == 503:
                assert "retry-after" in response.headers
                assert response.json()["error"] == "Events were not accepted"
            return response.status_code

        async def until_accepted() -> int:
            async with asyncio.timeout(20):
                while await post() != 202:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            return 1

        assert await post() == 503
        assert (await client.get("/readyz")).status_code == 503
        children = Children(tmp_path / "logs")
        await children.start(kafka_child(stack))
        accepted += await until_accepted()
        await freeze(children.pids()["kafka"])
        assert await post() == 503
        os.kill(children.pids()["kafka"], signal.SIGCONT)
        accepted += await until_accepted()
        await children.stop()
        assert await post() == 503
        children = Children(tmp_path / "logs")
        await children.start(kafka_child(stack))
        accepted += await until_accepted()
        records = await everything_in(kafka, GATEWAY_EVENTS)
        await children.stop()
    assert len(records) >= accepted == 3
    assert {value for value, _, _ in records.values()} == {EVENT}


async def freeze(pid: int) -> None:
    """Stop a process as SIGSTOP does, and wait until it stands."""
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
