"""Batches within bounds: all that is sound reads as ever, and what isn't is one record each."""

import asyncio
import inspect
import struct
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import cramjam
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from schemas import batches as module
from schemas.batches import RECORD_BYTES, BoundedConsumer, _Batches, _Room
from schemas.event import Unread
from schemas.limits import BATCH_BYTES_MAX, BATCH_HEADERS_MAX, BATCH_RECORDS_MAX
from tests.batches import CODECS, batch, changed, write

MIB = 1 << 20
codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())


def read(data: bytes, room: int = 1 << 40) -> list[Any]:
    """What a consumer gets of fetched bytes."""
    records = PartitionRecords(
        TopicPartition("t", 0), _Batches(data, _Room(room)), [], 0, None, None, True, 1
    )
    return list(records)


def read_by_aiokafka(data: bytes) -> list[Any]:
    return list(
        PartitionRecords(TopicPartition("t", 0), MemoryRecords(data), [], 0, None, None, True, 1)
    )


def unread(records: list[Any]) -> Unread:
    """The only record, which stands for its batch."""
    [record] = records
    assert isinstance(record.value, Unread) and record.value == b""
    return record.value


@codecs
def test_a_sound_batch_reads_as_aiokafka_reads_it(codec: int) -> None:
    values = [b"one", None, b"", b"x" * 5_000_000, b"last"]
    data = batch(codec, values, [("h\u00e9", b"\xff"), ("none", None)])
    found = read(data)
    assert found == read_by_aiokafka(data)
    assert [record.value for record in found] == values


@codecs
def test_what_holds_too_much_is_one_record_at_its_end(codec: int) -> None:
    """The broker takes a batch by its size as sent; the others around it are read."""
    data = batch(codec, [b"before", bytes(BATCH_BYTES_MAX), b"after"])
    record = read(data)
    if codec == CODECS["none"]:
        assert [each.value for each in record] == [b"before", bytes(BATCH_BYTES_MAX), b"after"]
        return
    flaw = unread(record)
    assert (record[0].offset, record[0].timestamp) == (2, 1002)
    assert flaw.code == "too_large"
    assert f"more than {BATCH_BYTES_MAX} bytes" in flaw.detail and "offset 2" in flaw.detail


def test_raw_snappy_is_read_and_bounded() -> None:
    plain = batch(0, [b"one", b"two"])
    data = changed(plain, bytes(cramjam.snappy.compress_raw(plain[61:])), codec=2)
    assert [record.value for record in read(data)] == [b"one", b"two"]
    large = batch(0, [bytes(BATCH_BYTES_MAX)])
    data = changed(large, bytes(cramjam.snappy.compress_raw(large[61:])), codec=2)
    assert unread(read(data)).code == "too_large"


@pytest.mark.parametrize("codec", [0, 4], ids=["none", "zstd"])
def test_a_million_headers_of_two_bytes_are_too_many(codec: int) -> None:
    data = batch(codec, [bytes(4 * MIB)], [("", None)] * (BATCH_HEADERS_MAX + 1))
    flaw = unread(read(data))
    assert flaw.code == "too_large" and f"more than {BATCH_HEADERS_MAX} headers" in flaw.detail
    data = batch(codec, [bytes(4 * MIB), b"x"], [("", None)] * (BATCH_HEADERS_MAX // 2))
    assert len(read(data)) == 2


def test_too_many_records_are_not_even_decompressed() -> None:
    data = bytearray(batch(3, [b"x"]))
    struct.pack_into(">i", data, 57, BATCH_RECORDS_MAX + 1)
    flaw = unread(read(changed(bytes(data), bytes(data[61:]))))
    assert flaw.code == "too_large" and f"at most {BATCH_RECORDS_MAX}" in flaw.detail


BROKEN: dict[str, Callable[[], bytes]] = {
    "gzip_of_rubbish": lambda: changed(batch(1, [b"x"]), b"rubbish"),
    "snappy_of_rubbish": lambda: changed(batch(2, [b"x"]), b"\xff" * 50),
    "xerial_of_rubbish": lambda: changed(batch(2, [b"x"]), batch(2, [b"x"])[61:80] + b"\0" * 8),
    "lz4_of_rubbish": lambda: changed(batch(3, [b"x"]), b"rubbish"),
    "zstd_of_rubbish": lambda: changed(batch(4, [b"x"]), b"rubbish"),
    "gzip_cut": lambda: changed(batch(1, [b"x" * 99]), batch(1, [b"x" * 99])[61:-9]),
    "lz4_cut": lambda: changed(batch(3, [b"x" * 99]), batch(3, [b"x" * 99])[61:-9]),
    "zstd_cut": lambda: changed(batch(4, [b"x" * 99]), batch(4, [b"x" * 99])[61:-3]),
    "gzip_in_a_million_members": lambda: changed(batch(1, [b"x"]), batch(1, [])[61:] * 1_000_000),
    "a_codec_that_is_none": lambda: changed(batch(0, [b"x"]), batch(0, [b"x"])[61:], codec=5),
    "fewer_records_than_said": lambda: changed(
        batch(0, [b"x", b"y"]), batch(0, [b"x", b"y"])[61:70]
    ),
    "records_of_a_negative_length": lambda: changed(batch(0, [b"x"]), b"\x01\x00\x00\x00"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_opened_is_one_record_and_the_next_batch_is_read(name: str) -> None:
    broken = BROKEN[name]()
    assert unread(read(broken)).code == "unreadable_batch"
    after = bytearray(batch(0, [b"after"]))
    struct.pack_into(">q", after, 0, 10)
    *_, last = read(broken + bytes(after))
    assert (last.offset, last.value) == (10, b"after")


def test_behind_a_header_that_is_no_text_the_rest_of_its_batch_is_one_record() -> None:
    """The broker takes it; aiokafka can't read it, and once a packer began anew for ever."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, MIB)
    for offset, name in enumerate(["good", "evil", "good"]):
        builder.append(offset, 1000 + offset, None, b"v", [(name, b"")])
    plain = bytes(builder.build())
    data = changed(plain, plain[61:].replace(b"evil", b"\xff\xfe\xff\xfe"))
    first, rest = read(data)
    assert (first.offset, first.value) == (0, b"v")
    assert (rest.offset, rest.value.code) == (2, "unreadable_batch")
    assert "UnicodeDecodeError" in rest.value.detail or "utf-8" in rest.value.detail


def test_a_wrong_checksum_is_no_producers_fault_and_read_again() -> None:
    data = bytearray(batch(0, [b"x"]))
    data[-1] ^= 1
    with pytest.raises(Exception, match="CRC"):
        read(bytes(data))


def test_batches_are_opened_as_far_as_there_is_room() -> None:
    one = batch(4, [bytes(MIB)])
    room = _Room(3 * MIB)
    found = _Batches(one * 100, room)
    opened = 0
    while found.has_next():
        opened += len(list(found.next_batch()))
    assert opened == 3
    assert _Batches(one, room).has_next()  # something came: the fetcher asks only that
    small = batch(0, [b"x"] * 100)
    assert len(read(small * 100, room=50 * RECORD_BYTES)) == 100


async def all_of(consumer: Any, tp: TopicPartition, count: int) -> list[list[Any]]:
    """So many records from the beginning, by the look that gave them."""
    looks: list[list[Any]] = []
    async with asyncio.timeout(30), consumer:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        while sum(map(len, looks)) < count:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                looks.append(records)
    return looks


async def test_a_consumer_takes_what_it_has_room_for_and_steps_over_a_bomb(kafka: str) -> None:
    """60 MiB and a batch of 64 MiB are some kilobytes as sent: they come in one fetch."""
    tp = TopicPartition(f"bounded-{uuid4().hex}", 0)
    rows = [bytes([number % 250]) * (MIB // 2) for number in range(120)]
    halves = [[one, two] for one, two in zip(rows[::2], rows[1::2], strict=True)]
    every = [*halves, [bytes(64 * MIB), b"lost"], [b"behind"]]
    await write(kafka, tp.topic, 0, [batch(4, values) for values in every])
    own = BoundedConsumer(bytes_max=8 * MIB, bootstrap_servers=kafka, enable_auto_commit=False)
    looks = await all_of(own, tp, 122)
    found = [record for records in looks for record in records]
    assert [record.value for record in found] == [*rows, b"", b"behind"]
    assert [record.offset for record in found] == [*range(120), 121, 122]
    assert found[120].value.code == "too_large"
    sizes = [sum(len(record.value) for record in records) for records in looks]
    assert max(sizes) <= 9 * MIB

    again = BoundedConsumer(bytes_max=MIB, bootstrap_servers=kafka, enable_auto_commit=False)
    async with again:
        again.assign([tp])
        again.seek(tp, 121)
        record = await again.getone(tp)
    assert (record.offset, record.value.detail) == (121, found[120].value.detail)

    plain = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    [*_, last] = await all_of(plain, tp, 123)
    assert not any(isinstance(record.value, Unread) for record in last)


async def test_a_consumer_whose_fetching_has_died_says_so(kafka: str) -> None:
    """As uvloop ends it: a write to a connection that has just been closed is a RuntimeError."""
    tp = TopicPartition(f"dying-{uuid4().hex}", 0)
    await write(kafka, tp.topic, 0, [batch(0, [b"one"])])
    consumer = BoundedConsumer(bytes_max=MIB, bootstrap_servers=kafka, enable_auto_commit=False)

    async def closed(*_: Any, **__: Any) -> None:
        raise RuntimeError("the handler is closed")

    async with asyncio.timeout(30), consumer:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        assert (await consumer.getone()).value == b"one"
        consumer._client.send = closed
        await write(kafka, tp.topic, 0, [batch(0, [b"two"])])
        with pytest.raises(KafkaError, match="data retrieval"):
            while True:
                await consumer.getmany(timeout_ms=100)
        with pytest.raises(KafkaError, match="data retrieval"):
            await consumer.getone()
        with suppress(KafkaError):
            await consumer.stop()


def test_what_is_replaced_in_aiokafka_is_where_it_was() -> None:
    assert version("aiokafka") == "0.14.0"
    fetched = inspect.getsource(Fetcher._proc_fetch_request)
    assert "records = MemoryRecords(part_data[-1])\n" in fetched
    assert fetched.count("records.has_next()") == 1
    assert "create_task(self._fetch_requests_routine())" in inspect.getsource(Fetcher.__init__)
    assert "self._fetcher = Fetcher(" in inspect.getsource(AIOKafkaConsumer.start)
    opened = inspect.getsource(PartitionRecords._unpack_records)
    assert "while records.has_next():\n" in opened and "for record in next_batch:\n" in opened
    assert inspect.getmodule(Fetcher).MemoryRecords is module._memory_records  # type: ignore[union-attr]
