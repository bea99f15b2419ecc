"""What partitions have ready at the same time goes as one INSERT; nobody waits who needn't."""

import asyncio
from typing import Any

import pyarrow as pa
import pytest

from clickhouse.client import InsertFailed
from stream_workers.group_commit import ENOUGH_ROWS, GroupCommit, Piece


class Recorded:
    """Notes rows and query id of each INSERT, which waits for `go` and fails with `error`."""

    def __init__(self) -> None:
        self.inserts: list[tuple[list[str], str]] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def insert(self, table: str, stream: bytes, *, token: str, query_id: str) -> None:
        assert (table, token) == ("events", query_id)
        with pa.ipc.open_stream(stream) as reader:
            self.inserts.append((reader.read_all().column("x").to_pylist(), query_id))
        await self.go.wait()
        if self.error is not None:
            raise self.error


def piece(mark: str, *texts: str) -> Piece:
    column = pa.array(texts).dictionary_encode()
    return Piece(pa.record_batch([column], names=["x"]), mark)


def grouped() -> tuple[GroupCommit, Recorded]:
    recorded: Any = Recorded()
    return GroupCommit(recorded), recorded


async def test_a_piece_that_nobody_follows_goes_at_once() -> None:
    commits, recorded = grouped()
    with commits.coming():
        inserted = commits.insert(piece("one", "a"))
    await asyncio.sleep(0)
    assert recorded.inserts == [(["a"], "tallylog-one")]
    assert not inserted.done()
    recorded.go.set()
    await inserted


async def test_pieces_wait_for_those_that_are_being_made_and_go_together() -> None:
    commits, recorded = grouped()
    recorded.go.set()
    with commits.coming():
        with commits.coming():
            first = commits.insert(piece("one", "a", "b"))
        await asyncio.sleep(0)
        assert recorded.inserts == []
        second = commits.insert(piece("two", "c", "a"))  # the dictionaries differ
    await asyncio.gather(first, second)
    assert recorded.inserts == [(["a", "b", "c", "a"], "tallylog-one-two")]


async def test_who_makes_nothing_after_all_holds_nobody_up() -> None:
    commits, recorded = grouped()
    recorded.go.set()
    with pytest.raises(ValueError, match="unreadable"), commits.coming():
        inserted = commits.insert(piece("one", "a"))
        raise ValueError("unreadable")
    await inserted
    assert [name for _, name in recorded.inserts] == ["tallylog-one"]


async def test_enough_rows_wait_for_nobody() -> None:
    commits, recorded = grouped()
    recorded.go.set()
    with commits.coming():
        await commits.insert(piece("one", *["a"] * ENOUGH_ROWS))
        assert len(recorded.inserts) == 1


async def test_a_failure_is_told_to_each() -> None:
    commits, recorded = grouped()
    recorded.error = InsertFailed(None, "no answer")
    recorded.go.set()
    with commits.coming():
        both = [commits.insert(piece(name, name)) for name in ("one", "two")]
    found = await asyncio.gather(*both, return_exceptions=True)
    assert found == [recorded.error] * 2
    assert len(recorded.inserts) == 1


async def test_rows_that_do_not_fit_together_fail_and_do_not_hang() -> None:
    commits, recorded = grouped()
    with commits.coming():
        odd = Piece(pa.record_batch([pa.array([1])], names=["y"]), "odd")
        both = [commits.insert(piece("one", "a")), commits.insert(odd)]
    found = await asyncio.gather(*both, return_exceptions=True)
    assert all(isinstance(each, pa.ArrowInvalid) for each in found)
    assert recorded.inserts == []
