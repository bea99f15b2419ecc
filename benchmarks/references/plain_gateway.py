"""The obvious gateway: Starlette and aiokafka, a check of two fields, 202 after acks=all."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TOPIC = "plain-gateway"


@asynccontextmanager
async def _running(app: Starlette) -> AsyncIterator[None]:
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["TALLYLOG_KAFKA"],
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        max_batch_size=1 << 18,
        max_request_size=10 << 20,
    )
    await producer.start()
    app.state.producer = producer
    yield
    await producer.stop()


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    if not (event.get("event_name") and event.get("external_customer_id")):
        raise ValueError("event_name and external_customer_id are required")
    event.setdefault("event_id", uuid.uuid4().hex)
    event.setdefault("timestamp", time.time())
    return event | {"ingested_at": time.time()}


async def single(request: Request) -> Response:
    """One event, one record."""
    return await _publish(request, [_checked(orjson.loads(await request.body()))])


async def array(request: Request) -> Response:
    """All events of a request in one record: the most that this design gives."""
    events = [_checked(each) for each in orjson.loads(await request.body())["events"]]
    return await _publish(request, [events])


async def bulk(request: Request) -> Response:
    """A record for each event."""
    events = [_checked(each) for each in orjson.loads(await request.body())["events"]]
    return await _publish(request, events)


async def _publish(request: Request, values: list[Any]) -> Response:
    producer: AIOKafkaProducer = request.app.state.producer
    sent = [await producer.send(TOPIC, orjson.dumps(value)) for value in values]
    await asyncio.gather(*sent)
    return Response(b'{"message":"accepted"}', 202, media_type="application/json")


app = Starlette(
    lifespan=_running,
    routes=[
        Route("/v1/events", single, methods=["POST"]),
        Route("/v1/events/bulk", bulk, methods=["POST"]),
        Route("/v1/events/array", array, methods=["POST"]),
    ],
)
