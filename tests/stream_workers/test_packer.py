"""A packer's run with a broker of our own: what is sent and committed when sends fail."""

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from catalog.database import CatalogUnavailable
from schemas.block import Block, decode
from schemas.event import Unread
from schemas.position import Log, position
from schemas.topics import GATEWAY_EVENTS
from stream_workers import packer as module
from stream_workers.epochs import Bookmark, Opened
from stream_workers.packer import LogWentBack, Packer, _Run
from stream_workers.packing import Pool
from stream_workers.settings import PackerSettings
from tests.stream_workers.worlds import NOW, make_event, no_customer

TP = TopicPartition("events.acme", 0)
LOG = Log("events.acme", 0, 0)


class FakeBroker:
    """Producer and consumer in one; each send waits for `land` or `fail`."""

    def __init__(self) -> None:
        self.sends: list[tuple[Block, asyncio.Future[None]]] = []
        self.sent = asyncio.Event()
        self.commits: list[int] = []
        self.positions: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.positions[tp] = offset

    def pause(self, tp: TopicPartition) -> None:
        self.paused.add(tp)

    def resume(self, tp: TopicPartition) -> None:
        self.paused.discard(tp)

    async def send(self, topic: str, value: bytes, partition: int) -> "asyncio.Future[None]":
        self.sends.append((decode(value), asyncio.get_running_loop().create_future()))
        self.sent.set()
        return self.sends[-1][1]

    async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        self.commits.append(offsets[TP].offset)

    def land(self, number: int) -> None:
        self.sends[number][1].set_result(None)

    def fail(self, number: int) -> None:
        self.sends[number][1].set_exception(KafkaTimeoutError())

    def ranges(self) -> list[tuple[int, int]]:
        return [(r.start >> 20, r.stop >> 20) for block, _ in self.sends for r in block.ranges]


class FakeFollower:
    snapshot = SimpleNamespace(version=1, external_id_of=no_customer)

    async def catch_up(self) -> int:
        return 1


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def run(broker: FakeBroker, tmp_path: Path) -> _Run:
    follower: Any = FakeFollower()
    packer = Packer(PackerSettings(data_dir=tmp_path), 1, follower)
    made: Any = broker
    run = _Run(packer, made, made)
    run._logs[TP] = LOG
    return run


def record(offset: int, *events: dict[str, Any], **more: Any) -> Any:
    value = json.dumps(list(events) or [make_event(f"id{offset}")]).encode()
    given = {"topic": TP.topic, "offset": offset, "timestamp": NOW, "headers": (), "value": value}
    return SimpleNamespace(**(given | more))


async def turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_commit_follows_the_blocks_of_all_flushes_before_it(
    run: _Run, broker: FakeBroker
) -> None:
    for offset in (0, 1):
        await run._gather(TP, [record(offset)])
        await run._flush()
    broker.land(1)
    await turn()
    assert broker.commits == []
    broker.land(0)
    await run._settle()
    assert broker.commits == [1, 2]
    assert broker.ranges() == [(0, 1), (1, 2)]


async def test_nothing_is_sent_or_committed_after_a_failed_send(
    run: _Run, broker: FakeBroker
) -> None:
    """A later block may have landed; a later commit would lose what failed before it."""
    for offset in (0, 1):
        await run._gather(TP, [record(offset)])
        await run._flush()
    broker.fail(0)
    broker.land(1)
    await turn()
    await run._gather(TP, [record(2)])
    with pytest.raises(KafkaError):
        await run._flush()
    await run.on_partitions_revoked([TP])
    await run.cancel()
    assert (len(broker.sends), broker.commits) == (2, [])


async def test_a_rebalance_after_a_failure_that_was_seen_writes_nothing(
    run: _Run, broker: FakeBroker
) -> None:
    await run._gather(TP, [record(0)])
    await run._flush()
    broker.fail(0)
    await turn()
    with pytest.raises(KafkaError):
        await run._raise_failures()
    await run._gather(TP, [record(1)])
    await run.on_partitions_revoked([TP])
    assert (len(broker.sends), broker.commits) == (1, [])


async def test_a_rebalance_after_the_run_was_given_up_flushes_nothing(
    run: _Run, broker: FakeBroker
) -> None:
    await run._gather(TP, [record(0)])
    await run._flush()
    await run._gather(TP, [record(1)])
    await run.cancel()
    await run.on_partitions_revoked([TP])
    assert (len(broker.sends), broker.commits) == (1, [])


async def test_a_rebalance_writes_and_commits_what_was_read(run: _Run, broker: FakeBroker) -> None:
    await run._gather(TP, [record(0)])
    revoking = asyncio.create_task(run.on_partitions_revoked([TP]))
    await broker.sent.wait()
    broker.land(0)
    await revoking
    assert broker.commits == [1]
    assert (run._logs, len(run._pool), run._starts) == ({}, 0, {})


async def test_a_rebalance_waits_for_the_flush_at_hand_which_keeps_its_ranges(
    run: _Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges from the log's beginning would cover the failed block before it."""
    await run._gather(TP, [record(0)])
    await run._flush()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly() -> int:
        asked.set()
        await answer.wait()
        return 1

    monkeypatch.setattr(run, "_catalog_version", slowly)
    await run._gather(TP, [record(1)])
    flushing = asyncio.create_task(run._flush())
    await asked.wait()
    revoking = asyncio.create_task(run.on_partitions_revoked([TP]))
    await turn()
    broker.fail(0)
    answer.set()
    await flushing
    broker.land(1)
    await revoking
    await turn()
    assert broker.ranges() == [(0, 1), (1, 2)]
    assert broker.commits == []
    await run.cancel()


async def test_the_log_gathers_where_there_is_time_and_little_came(
    run: _Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MUCH_ROWS", 3)
    asked: list[int] = []
    coming = [[record(0)], [record(1)], [record(2), record(3), record(4)], [record(5)]]

    async def getmany(timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        asked.append(timeout_ms)
        return {TP: coming.pop(0)}

    monkeypatch.setattr(broker, "getmany", getmany, raising=False)
    waits = [200, 1000, module.GATHER_MS, 1000]
    began = time.monotonic()
    for wait_ms in waits:
        assert await run._take_in(wait_ms)
    assert asked == [200, 0, module.GATHER_MS, 1000]  # first, gathered, no time to, much came
    assert time.monotonic() - began >= module.GATHER_MS / 1000


async def test_records_before_the_seek_of_a_new_assignment_are_not_taken(
    run: _Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(consumer: Any, tps: list[TopicPartition]) -> dict[TopicPartition, Opened]:
        if run._unopened is None and not looks:
            looks.append(tps)
            await run.on_partitions_assigned([TP])
        return {TP: Opened(4)}

    looks: list[list[TopicPartition]] = []
    monkeypatch.setattr(module, "open_epochs", opened)
    await run.on_partitions_assigned([TP])
    await run._open()
    await run._gather(TP, [record(0)])
    assert (run._logs, len(run._pool)) == ({}, 0)
    await run._open()
    assert run._logs == {TP: Log("events.acme", 4, 0)}


async def test_headers_of_native_producers_may_be_anything(run: _Run, broker: FakeBroker) -> None:
    """Tracing headers are binary; once such a record stopped the packer for good."""
    headers = (("trace", b"\xff\xfe"), ("account", b"other"), ("received-at", b"1"), ("n", None))
    await run._gather(TP, [record(0, headers=headers)])
    await run._flush()
    broker.land(0)
    await run._settle()
    table = broker.sends[0][0].table()
    assert table.column("account").to_pylist() == ["acme"]
    assert table.column("ingested_at").to_pylist() == [NOW]


@pytest.mark.parametrize(
    ("name", "value"), [("received-at", b"\xb2"), ("received-at", b"9" * 40), ("first-id", b"x")]
)
async def test_a_header_that_no_gateway_writes_is_passed_over(
    run: _Run, name: str, value: bytes
) -> None:
    tp = TopicPartition(GATEWAY_EVENTS, 0)
    run._logs[tp] = Log(GATEWAY_EVENTS, 0, 0)
    headers = (("account", b"acme"), (name, value))
    await run._gather(tp, [record(0, make_event(), topic=GATEWAY_EVENTS, headers=headers)])
    assert len(run._pool) == 1


async def test_a_record_without_a_believable_time_is_received_now(run: _Run) -> None:
    for offset, stamp in enumerate((-1, 0, NOW * 1000)):
        await run._gather(TP, [record(offset, timestamp=stamp)])
    [(_, block)] = run._pool.cut(1, epoch=0, catalog_version=1, starts={})
    times = block.table().column("ingested_at").to_pylist()
    assert all(NOW < time < 2 * NOW for time in times)


async def test_a_gap_stands_behind_its_first_record(run: _Run) -> None:
    run._gaps[TP] = "log_truncated: lost"
    await run._gather(TP, [record(5), record(6)])
    blocks = list(run._pool.cut(1, epoch=0, catalog_version=1, starts={}, bytes_max=1))
    letters = [letter for _, block in blocks for letter in block.dead_letters]
    assert [letter.code for letter in letters] == ["log_truncated"]
    stops = [r.stop for _, block in blocks for r in block.ranges]
    assert stops == sorted(stops) and stops[-1] == position(7)


async def test_a_bookmark_is_taken_of_the_last_record(run: _Run) -> None:
    await run._gather(TP, [record(3), record(4)])
    assert run._reached[TP] == Bookmark.after(0, record(4))


async def test_a_bookmark_counts_the_events_of_its_log(run: _Run) -> None:
    run._events[TP] = 7
    garbage = record(4, value=b"garbage")
    await run._gather(TP, [record(3, make_event(), {"nameless": 1}, make_event()), garbage])
    assert run._reached[TP].events == 7 + 3 + 1
    run._gaps[TP] = "log_truncated: lost"
    await run._gather(TP, [record(9), record(10)])
    assert run._reached[TP].events == 11 + 1 + 2


async def test_an_event_that_the_pool_loses_is_counted(
    run: _Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run._events[TP] = 0
    monkeypatch.setattr(Pool, "add", lambda *_: ())
    await run._gather(TP, [record(3), record(4, make_event(), make_event())])
    assert (len(run._pool), run._reached[TP].events) == (0, 3)


async def test_what_was_read_before_anybody_counted_stays_unknown(run: _Run) -> None:
    await run._gather(TP, [record(3)])
    assert run._reached[TP].events is None


class Customers:
    """A catalog that learns of `cust_new`, and of nobody while it is away; `asking` may hold it."""

    def __init__(self, away: bool = False) -> None:
        self.away = away
        self._known: dict[str, str] = {}
        self.asked = 0
        self.asking = asyncio.Event()
        self.asking.set()
        self.snapshot = SimpleNamespace(
            version=1, external_id_of=lambda account, customer_id: self._known.get(customer_id)
        )

    async def catch_up(self) -> int:
        self.asked += 1
        await self.asking.wait()
        if self.away:
            raise CatalogUnavailable("away", cure="wait")
        self._known["cust_new"] = "acme"
        return 1


def named(offset: int, *ids: str) -> Any:
    return record(offset, *({"event_name": "e", "customer_id": each} for each in ids))


def run_of(broker: FakeBroker, follower: Any, folder: Path) -> _Run:
    made: Any = broker
    run = _Run(Packer(PackerSettings(data_dir=folder), 1, follower), made, made)
    run._logs[TP] = LOG
    return run


async def test_a_customer_created_just_before_its_event_is_known(
    broker: FakeBroker, tmp_path: Path
) -> None:
    follower = Customers()
    run = run_of(broker, follower, tmp_path)
    batch = [record(0), named(1, "cust_new", "cust_new", "cust_none", "cust_none"), record(2)]
    await run._gather(TP, batch)
    assert follower.asked == 1
    await run._flush()
    (block, _), *_ = broker.sends
    customers = block.table().column("external_customer_id").to_pylist()
    assert customers == [customers[0], "acme", "acme", customers[0]]
    assert [letter.code for letter in block.dead_letters] == ["unknown_customer_id"] * 2
    assert broker.ranges() == [(0, 3)]


async def test_without_a_catalog_only_the_partition_waits_that_names_somebody_unknown(
    broker: FakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once one such event, by anybody, stopped all accounts."""
    monkeypatch.setattr(module, "HOLD_S", 0.0)
    follower, other = Customers(away=True), TopicPartition("events.other", 0)
    run = run_of(broker, follower, tmp_path)
    run._logs[other] = Log("events.other", 0, 0)
    run._events = {TP: 0, other: 0}
    garbage = record(1, value=b"garbage: one by one")
    await run._gather(TP, [record(0), garbage, named(2, "cust_new"), record(3)])
    await run._gather(other, [record(0, topic="events.other")])
    assert (broker.positions, broker.paused) == ({TP: 2}, {TP})
    assert run._reached[TP] == Bookmark.after(0, garbage, 2)
    assert other in run._reached
    await run._flush()
    (block, landed), *_ = broker.sends
    assert {block.logs[r.log].topic: r.stop for r in block.ranges} == {
        "events.acme": position(2),
        "events.other": position(1),
    }
    landed.set_result(None)
    await run._settle()
    assert broker.commits == [2]

    run._release()
    assert broker.paused == set()
    await run._gather(TP, [named(2, "cust_new"), record(3)])
    assert (broker.positions, broker.paused, run._reached) == ({TP: 2}, {TP}, {})
    follower.away = False
    run._release()
    await run._gather(TP, [named(2, "cust_new", "cust_none"), record(3)])
    assert run._reached[TP] == Bookmark.after(0, record(3), 5)
    await run._flush()
    (block, _) = broker.sends[-1]
    assert "acme" in block.table().column("external_customer_id").to_pylist()
    assert [letter.code for letter in block.dead_letters] == ["unknown_customer_id"]
    assert broker.ranges()[-1] == (2, 4)


async def test_a_gap_is_told_with_its_first_record_also_when_that_waits(
    broker: FakeBroker, tmp_path: Path
) -> None:
    follower = Customers(away=True)
    run = run_of(broker, follower, tmp_path)
    run._gaps[TP], run._events[TP] = "log_truncated: lost", 0
    await run._gather(TP, [named(5, "cust_new"), record(6)])
    assert (len(run._pool), run._reached, broker.positions) == (0, {}, {TP: 5})
    follower.away = False
    await run._gather(TP, [named(5, "cust_new"), record(6)])
    assert run._reached[TP].events == 3
    assert run._gaps == {}


async def test_partitions_that_go_while_the_catalog_is_asked_are_left_to_their_next_owner(
    broker: FakeBroker, tmp_path: Path
) -> None:
    """What was taken in before goes out; nothing says that the rest was covered."""
    follower = Customers()
    follower.asking.clear()
    run = run_of(broker, follower, tmp_path)
    await run._gather(TP, [record(0)])
    batch = [record(1), named(2, "cust_new"), record(3, value=b"garbage: one by one")]
    gathering = asyncio.create_task(run._gather(TP, batch))
    await turn()
    assert not gathering.done()
    broker.sent.clear()
    revoking = asyncio.create_task(run.on_partitions_revoked([TP]))
    await turn()
    follower.asking.set()
    await broker.sent.wait()
    broker.land(0)
    await revoking
    await gathering
    assert broker.ranges() == [(0, 2)]
    assert broker.commits == [1]
    assert (len(run._pool), run._reached, run._read) == (0, {}, {})


async def test_a_batch_that_cannot_be_opened_is_one_dead_letter(
    run: _Run, broker: FakeBroker
) -> None:
    why = "a batch that ends at offset 7: more than it may hold"
    run._events[TP] = 0
    await run._gather(TP, [record(0), record(7, value=Unread("too_large", why)), record(8)])
    assert run._reached[TP].events == 3
    await run._flush()
    (block, _), *_ = broker.sends
    [letter] = block.dead_letters
    assert (letter.code, letter.detail, letter.content) == ("too_large", why, b"")
    assert letter.position == position(7)
    assert block.table().num_rows == 2
    assert broker.ranges() == [(0, 9)]


async def test_a_log_that_begins_again_under_a_run_ends_the_run(
    run: _Run, broker: FakeBroker
) -> None:
    """Its new records stand where others stood: as covered, they would be lost without a word."""
    for offset in (3, 4):
        await run._gather(TP, [record(offset)])
    with pytest.raises(LogWentBack):
        await run._gather(TP, [record(0)])
    await run.on_partitions_assigned([TP])
    run._logs[TP] = Log("events.acme", 1, 0)
    await run._gather(TP, [record(0)])
