"""Where a source partition is read on, and in which epoch, by a log of our own."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream_workers import epochs
from stream_workers.epochs import Bookmark, Opened, open_epochs

TP = TopicPartition("events.acme", 0)


def made(offset: int, value: bytes | None = b"x", timestamp: int = 1000) -> Any:
    return SimpleNamespace(offset=offset, timestamp=timestamp + offset, value=value)


@dataclass
class FakeLog:
    """One partition with the records of some offsets, and a commit."""

    offsets: range
    value: bytes = b"x"
    commit: int = -1
    metadata: str = ""
    sought: list[int] = field(default_factory=list)

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {TP: self.offsets.start}

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {TP: self.offsets.stop}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.sought.append(offset)

    async def getone(self, tp: TopicPartition) -> Any:
        if self.sought[-1] not in self.offsets:
            await asyncio.sleep(3600)
        return made(self.sought[-1], self.value)

    @property
    def _coordinator(self) -> Any:
        async def fetch(tps: list[TopicPartition]) -> Any:
            return {TP: SimpleNamespace(offset=self.commit, metadata=self.metadata)}

        return SimpleNamespace(fetch_committed_offsets=fetch)


async def opened(log: FakeLog) -> Opened:
    return (await open_epochs(log, [TP]))[TP]


def bookmark(offset: int, epoch: int = 0, value: bytes = b"x", events: int | None = 8) -> str:
    return Bookmark.after(epoch, made(offset, value), events).to_text()


async def test_without_a_commit_reading_begins_at_the_first_record() -> None:
    log = FakeLog(range(3, 9))
    assert await opened(log) == Opened(0, events=0)
    assert log.sought[-1] == 3


async def test_the_log_that_was_committed_on_is_read_on() -> None:
    log = FakeLog(range(9), commit=5, metadata=bookmark(4, epoch=2))
    assert await opened(log) == Opened(2, events=8)
    assert log.sought[-1] == 5


async def test_another_record_at_the_bookmark_is_another_log() -> None:
    log = FakeLog(range(9), value=b"y", commit=5, metadata=bookmark(4, epoch=2))
    found = await opened(log)
    assert (found.epoch, found.events, log.sought[-1]) == (3, 0, 0)
    assert found.gap is not None and found.gap.startswith("log_recreated: ")
    assert "read up to offset 4" in found.gap


async def test_a_log_that_ends_before_the_commit_is_another_one() -> None:
    log = FakeLog(range(3), commit=5, metadata=bookmark(4))
    found = await opened(log)
    assert (found.epoch, log.sought[-1]) == (1, 0)


async def test_records_deleted_before_they_were_read_are_a_gap() -> None:
    log = FakeLog(range(7, 9), commit=5, metadata=bookmark(4, epoch=1))
    found = await opened(log)
    assert (found.epoch, found.events, log.sought[-1]) == (1, 8, 7)
    assert found.gap is not None and found.gap.startswith("log_truncated: ")
    assert "offsets 5 to 6" in found.gap


async def test_a_deleted_bookmark_alone_is_no_gap() -> None:
    log = FakeLog(range(5, 9), commit=5, metadata=bookmark(4))
    assert await opened(log) == Opened(0, events=8)
    assert log.sought[-1] == 5


async def test_a_commit_of_somebody_else_is_believed() -> None:
    log = FakeLog(range(9), commit=5, metadata="not ours")
    assert await opened(log) == Opened(0)
    assert log.sought[-1] == 5


async def test_a_record_that_does_not_come_counts_as_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epochs, "LOOK_MS", 10)
    log = FakeLog(range(9), commit=9, metadata=bookmark(8))
    log.offsets = range(0, 9)
    monkeypatch.setattr(FakeLog, "getone", lambda *_: asyncio.sleep(3600))
    assert await opened(log) == Opened(0, events=8)


async def test_behind_a_bookmark_that_counted_nothing_nobody_knows_how_many_there_were() -> None:
    """A packer before this one wrote it."""
    log = FakeLog(range(9), commit=5, metadata=bookmark(4, events=None))
    assert await opened(log) == Opened(0, events=None)


@pytest.mark.parametrize("text", ["", "{}", "null", "[1]", '{"epoch": "x"}'])
def test_only_a_bookmark_is_read_as_one(text: str) -> None:
    assert Bookmark.from_text(text) is None


def test_a_bookmark_survives_its_text() -> None:
    mark = Bookmark.after(3, made(7, None))
    assert Bookmark.from_text(mark.to_text()) == mark
