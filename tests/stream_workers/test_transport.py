"""What the counter overrides of Faust and aiokafka: fails when a name or a signature moves."""

import asyncio
import inspect
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiokafka
import faust
import mode
import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.tables import TableManager
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer as AnyConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

from stream_workers.transport import (
    FETCH_MAX_WAIT_MS,
    IDLE_S,
    NoTables,
    StoreConsumer,
    _Thread,
    transport,
)

PINNED = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}


@pytest.mark.parametrize("name", PINNED)
def test_versions_whose_private_names_are_used_are_pinned(name: str) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert f"{name}=={PINNED[name]}" in project["project"]["dependencies"]
    assert version(name) == PINNED[name]


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_overridden_names_are_where_they_were() -> None:
    assert parameters(AIOKafkaConsumerThread._create_worker_consumer) == ["self", "transport"]
    assert parameters(Consumer._new_consumer_thread) == ["self"]
    assert parameters(Consumer._getmany) == ["self", "active_partitions", "timeout"]
    assert parameters(Consumer._wait_next_records) == ["self", "timeout"]
    assert parameters(Consumer.seek_to_committed) == ["self"]
    assert parameters(Consumer.sleep) == ["self", "n"]
    for name in ("earliest_offsets", "highwaters"):
        assert parameters(getattr(Consumer, name)) == ["self", "partitions"]
    assert parameters(Consumer.seek_wait) == ["self", "partitions"]


def test_faust_asks_the_overridden_methods() -> None:
    """An override that nobody calls would start at the group's commit, and wait a second a time."""
    perform = inspect.getsource(AnyConsumer.perform_seek)
    assert "await self.seek_to_committed()" in perform
    getmany = inspect.getsource(AnyConsumer.getmany)
    assert "await self._wait_next_records(timeout)" in getmany and "records is None" in getmany
    recovery = inspect.getsource(Recovery._resume_streams)
    assert recovery.index("consumer.perform_seek()") < recovery.index("consumer.resume_flow()")
    wait = inspect.getsource(AnyConsumer._wait_next_records)
    assert "await self._getmany(" in wait and "await self.sleep(1)" in wait
    assert "self._new_consumer_thread()" in inspect.getsource(
        Consumer.on_start
    ) + inspect.getsource(Consumer.__init__) + inspect.getsource(
        AnyConsumer.__init__
    ) + inspect.getsource(Consumer.__mro__[1].__init__)


def test_aiokafka_reads_the_fetch_wait_when_it_starts() -> None:
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in inspect.getsource(
        aiokafka.AIOKafkaConsumer.start
    )


def test_epochs_can_ask_for_the_commits_metadata() -> None:
    assert parameters(GroupCoordinator.fetch_committed_offsets) == ["self", "partitions"]
    assert "_coordinator" in inspect.getsource(aiokafka.AIOKafkaConsumer.start)


def test_the_gateway_can_end_a_producers_sender() -> None:
    assert "self._sender" in inspect.getsource(aiokafka.AIOKafkaProducer.__init__)


async def assigned(
    partitions: set[TP], earliest: Mapping[TP, int], ends: Mapping[TP, int]
) -> Mapping[TP, int]:
    return {tp: earliest[tp] + ends[tp] for tp in partitions}


def test_the_transport_makes_our_consumer() -> None:
    app = faust.App("test", broker="kafka://127.0.0.1:1", store="memory://")
    made = transport(app, assigned)
    assert isinstance(made, Transport)
    assert issubclass(made.Consumer, StoreConsumer)
    assert made.Consumer.assigned is assigned


async def test_an_assignment_starts_where_the_store_says() -> None:
    tp = TP("event-blocks", 0)
    sought: list[Mapping[TP, int]] = []

    async def offsets(*partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 21)

    async def seek_wait(starts: Mapping[TP, int]) -> None:
        sought.append(starts)

    it: Any = SimpleNamespace(
        assignment=lambda: {tp},
        earliest_offsets=offsets,
        highwaters=offsets,
        seek_wait=seek_wait,
        assigned=assigned,
        _seeking=asyncio.Lock(),
    )
    assert await StoreConsumer.seek_to_committed(it) == {tp: 42}
    assert sought == [{tp: 42}]


@pytest.mark.parametrize("stopped", [False, True])
async def test_what_is_fetched_while_the_flow_is_stopped_is_dropped_without_a_seek(
    monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """Whoever stopped the flow seeks when it goes on: until then it may seek what is another's."""
    tp = TP("event-blocks", 0)
    sought: list[bool] = []

    async def getmany(self: Any, active: Any, timeout_s: float) -> dict[TP, list[int]]:
        if stopped:
            self.stop_flow()
        return {tp: [7]}

    async def perform_seek(self: Any) -> None:
        sought.append(True)

    monkeypatch.setattr(Consumer, "_getmany", getmany)
    monkeypatch.setattr(Consumer, "perform_seek", perform_seek)
    monkeypatch.setattr(Consumer, "_to_message", lambda _, tp, record: record)
    monkeypatch.setattr(Consumer, "highwater", lambda *_: 8)
    monkeypatch.setattr(StoreConsumer, "_new_consumer_thread", lambda _: mode.Service())
    app = faust.App("test", broker="kafka://127.0.0.1:1", store="memory://")
    made = transport(app, assigned)
    nothing = SimpleNamespace()
    consumer = made.Consumer(made, nothing, nothing, nothing)
    monkeypatch.setattr(consumer, "_active_partitions", {tp})
    got = [record async for record in consumer.getmany(1.0)]
    assert (got, sought) == ([] if stopped else [(tp, 7)], [])


async def test_the_two_waits_of_the_consumer_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def getmany(self: Any, active: Any, timeout_s: float) -> None:
        waited.append(timeout_s)

    async def sleep(self: Any, n: float) -> None:
        waited.append(n)

    monkeypatch.setattr(Consumer, "_getmany", getmany)
    monkeypatch.setattr(Consumer, "sleep", sleep)
    consumer = StoreConsumer.__new__(StoreConsumer)
    await consumer._getmany(set(), 5.0)
    await consumer.sleep(1)
    await consumer.sleep(3)
    assert waited == [IDLE_S, IDLE_S, 3]


def test_long_polls_return_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(_fetch_max_wait_ms=1500)
    monkeypatch.setattr(AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_: made)
    thread = _Thread.__new__(_Thread)
    assert thread._create_worker_consumer(None) is made
    assert made._fetch_max_wait_ms == FETCH_MAX_WAIT_MS


async def test_no_table_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "await self.sleep(1.0)" in inspect.getsource(TableManager.on_start)
    waits: list[float] = []

    async def sleep(self: Any, n: float, **options: Any) -> None:
        waits.append(n)

    monkeypatch.setattr(TableManager, "sleep", sleep)
    await NoTables.sleep(object.__new__(NoTables), 1.0)
    assert waits == [IDLE_S]
