"""The log that requests are appended to: a producer, kept alive, written to in groups.

Requests that arrive while an append is on its way wait and go together into the next one, so that
the broker is asked once for many of them: with one client an append holds one record, under load
hundreds, and nothing ever lingers. What has no ack in time is refused, and the producer replaced:
an idempotent one that lost a batch can't be trusted with the next.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from itertools import count
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from ingest_gateway import metrics
from ingest_gateway.compression import CODEC, compress_quickly
from ingest_gateway.errors import LogUnavailable
from ingest_gateway.settings import Settings
from schemas.failpoint import failpoint
from schemas.limits import MESSAGE_BYTES_MAX
from schemas.topics import GATEWAY_EVENTS

Headers = list[tuple[str, bytes]]
RECORD_OVERHEAD = 512
"""Bytes that a record's headers and framing add at most, generously."""
RETRY_S = 0.5
GRACE_S = 1.0
"""How long the other appends may still succeed once one has failed."""
log = logging.getLogger(__name__)


class Position(NamedTuple):
    """Where a record stands; the offset is -1 when the broker knows only that it has it."""

    partition: int
    offset: int


class _Waiting(NamedTuple):
    value: bytes
    headers: Headers
    timestamp: int
    since: float
    acked: asyncio.Future[Position]


class Log:
    """The topic of gateway events. `run` keeps a producer; `append` may be called at any time."""

    def __init__(self, settings: Settings, topic: str = GATEWAY_EVENTS) -> None:
        self._settings = settings
        self._topic = topic
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._turn = count()
        self._writing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.connected = asyncio.Event()
        """Set once a producer was connected for the first time."""
        self.away: str | None = "not connected yet"
        """Why nothing can be appended; None when it can."""

    def append(self, value: bytes, headers: Headers, timestamp: int) -> asyncio.Future[Position]:
        """Put one record into the log; the future ends when the broker has acknowledged it.

        Raises LogUnavailable, at once or in the future: then the record may or may not be there.
        """
        if self.away is not None:
            raise LogUnavailable(self.away)
        acked: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(value, headers, timestamp, time.monotonic(), acked))
        self._arrived.set()
        self._idle.clear()
        return acked

    async def run(self) -> None:
        """Keep a producer, and replace it when it fails; for ever."""
        compress_quickly()
        ending: set[asyncio.Task[None]] = set()
        try:
            while True:
                try:
                    producer = await self._connected()
                except (KafkaError, OSError, TimeoutError) as error:
                    self._refuse_all(f"no broker: {_named(error)}")
                    await asyncio.sleep(RETRY_S)
                    continue
                try:
                    self.away = None
                    self.connected.set()
                    log.info("connected to the log at %s", self._settings.kafka)
                    failure = await self._serve(producer)
                    log.warning("replacing the producer: %s", _named(failure))
                finally:
                    task = asyncio.create_task(_discard(producer))
                    ending.add(task)
                    task.add_done_callback(ending.discard)
        finally:
            self._refuse_all("closing")
            await asyncio.gather(*ending)

    async def drain(self) -> None:
        """Wait until nothing waits for an ack any more."""
        await self._idle.wait()

    async def _connected(self) -> AIOKafkaProducer:
        """A producer that knows the topic. Raises KafkaError, OSError, TimeoutError."""
        timeout = self._settings.gateway_ack_timeout_s
        await asyncio.wait_for(ensure_topic(self._settings, self._topic), timeout)
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka,
            acks="all",
            enable_idempotence=True,
            compression_type=CODEC,
            linger_ms=0,
            max_batch_size=MESSAGE_BYTES_MAX,
            max_request_size=MESSAGE_BYTES_MAX,
            request_timeout_ms=int(timeout * 1000),
            metadata_max_age_ms=30_000,
        )
        try:
            await asyncio.wait_for(producer.start(), timeout)
            await asyncio.wait_for(producer.partitions_for(self._topic), timeout)
        except BaseException:
            await _discard(producer)
            raise
        return producer

    async def _serve(self, producer: AIOKafkaProducer) -> Exception:
        """Append what arrives until an append fails; the failure."""
        lanes = [
            asyncio.create_task(self._lane(producer)) for _ in range(self._settings.gateway_lanes)
        ]
        try:
            done, others = await asyncio.wait(lanes, return_when=asyncio.FIRST_COMPLETED)
            error = done.pop().result()
            if others:
                await asyncio.wait(others, timeout=GRACE_S)
            return error
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _lane(self, producer: AIOKafkaProducer) -> Exception:
        """Append group after group, one at a time, until one fails."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                if self.away is not None:
                    return LogUnavailable(self.away)
            group = self._next_group()
            self._writing += 1
            try:
                await self._write(producer, group)
            except Exception as error:
                _refuse(group, _named(error))
                self._refuse_all(_named(error))
                return error
            except asyncio.CancelledError:
                _refuse(group, self.away or "closing")
                raise
            finally:
                self._writing -= 1
                self._rest()

    def _next_group(self) -> list[_Waiting]:
        """The longest waiting requests that go well into one append; at least one."""
        waiting = self._waiting
        group = [waiting.popleft()]
        room = self._settings.gateway_batch_bytes_max - len(group[0].value)
        while waiting:
            room -= len(waiting[0].value) + RECORD_OVERHEAD
            if room < 0:
                break
            group.append(waiting.popleft())
        return group

    async def _write(self, producer: AIOKafkaProducer, group: list[_Waiting]) -> None:
        """Append a group to one partition, and tell those who wait."""
        batch = producer.create_batch()
        for each in group:
            batch.append(key=None, value=each.value, timestamp=each.timestamp, headers=each.headers)
        batch.close()
        partition = self._next_partition(producer)
        async with asyncio.timeout_at(self._deadline(group[0].since)):
            failpoint("gateway.sending")
            sent = await producer.send_batch(batch, self._topic, partition=partition)
            sent.add_done_callback(_look_at)
            failpoint("gateway.sent")
            acked = await sent
            failpoint("gateway.acked")
        metrics.append_seconds.observe(time.monotonic() - group[0].since)
        base = acked.offset
        for index, each in enumerate(group):
            if not each.acked.done():
                each.acked.set_result(Position(partition, base + index if base >= 0 else -1))

    def _deadline(self, since: float) -> float:
        """On the loop's clock, when an append has to have its ack."""
        left = since + self._settings.gateway_ack_timeout_s - time.monotonic()
        return asyncio.get_running_loop().time() + left

    def _next_partition(self, producer: AIOKafkaProducer) -> int:
        """Partitions take turns; those without a leader are passed over."""
        cluster = producer.client.cluster
        partitions = sorted(
            cluster.available_partitions_for_topic(self._topic)
            or cluster.partitions_for_topic(self._topic)
            or ()
        )
        if not partitions:
            raise LogUnavailable("the topic has no partitions")
        return int(partitions[next(self._turn) % len(partitions)])

    def _refuse_all(self, why: str) -> None:
        """Nothing can be appended now: say so to all who wait."""
        self.away = why
        group = list(self._waiting)
        self._waiting.clear()
        _refuse(group, why)
        self._arrived.set()
        self._rest()

    def _rest(self) -> None:
        if not self._waiting and not self._writing:
            self._idle.set()


async def ensure_topic(settings: Settings, topic: str) -> None:
    """Make the topic if it isn't there. Raises KafkaError when the broker is away."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        await admin.start()
        if topic in await admin.list_topics():
            return
        wanted = NewTopic(
            topic,
            settings.gateway_partitions,
            settings.gateway_replication,
            {} if settings.gateway_replication == -1 else None,
            {"max.message.bytes": str(MESSAGE_BYTES_MAX)},
        )
        answer = await admin.create_topics([wanted])
        for _, code, *_ in answer.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                raise for_code(code)(f"creating the topic {topic}")
    finally:
        await admin.close()


def _refuse(group: list[_Waiting], why: str) -> None:
    for each in group:
        if not each.acked.done():
            each.acked.set_exception(LogUnavailable(why))
            each.acked.exception()  # the client may be gone: nobody has to look


async def _discard(producer: AIOKafkaProducer) -> None:
    """End a producer, also one that waits for ever: it must not write later what was refused."""
    with contextlib.suppress(Exception):
        task = producer._sender.sender_task
        if task is not None:
            task.cancel()
        await producer.client.close()
        if task is not None:
            await asyncio.wait([task], timeout=GRACE_S)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(GRACE_S):
            await producer.stop()


def _look_at(sent: "asyncio.Future[Any]") -> None:
    """Keep asyncio from reporting a failure that was answered already."""
    if not sent.cancelled():
        sent.exception()


def _named(error: BaseException) -> str:
    """What happened, in few words."""
    if isinstance(error, TimeoutError):
        return "no acknowledgement in time"
    if isinstance(error, LogUnavailable):
        return error.message
    return type(error).__name__
