"""Kafka's record batches, read within bounds: what producers compress may be anything's size.

aiokafka's consumer decompresses whatever was fetched, and gives all of it at once. The one here
opens batch after batch, as far as its memory allows, and none that is beyond the limits. In
place of one that can't be opened comes one record whose value is `Unread`.

A name of aiokafka 0.14.0's fetcher is replaced here and nowhere else, for these consumers alone;
the version is pinned, and tests/schemas/test_batches.py fails when the name moves.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import cramjam
import lz4.frame
import zstandard
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

from schemas.event import Unread
from schemas.limits import BATCH_BYTES_MAX, BATCH_HEADERS_MAX, BATCH_RECORDS_MAX

FETCH_BYTES = 4 << 20
PARTITION_FETCH_BYTES = 1 << 20
"""What is fetched at once, as it was compressed; a batch that is larger comes all the same."""
RECORD_BYTES = 500
"""What a record takes in memory besides its bytes, roughly."""
SCANNED_BYTES = 4 << 20
"""The headers of a larger batch are counted first: two bytes of it may be one of 90 in memory."""
WINDOW_BYTES_MAX = 1 << 27
"""What zstd may look back at: as much as other consumers of Kafka allow."""
FRAMES_MAX = 16

_BEGIN = struct.Struct(">qi")  # base offset, length of what follows
_ATTRIBUTES = struct.Struct(">h")
_COUNT = struct.Struct(">i")
_MAGIC_AT, _ATTRIBUTES_AT, _COUNT_AT, _RECORDS_AT = 16, 21, 57, 61
_CODEC = 7
_XERIAL = b"\x82SNAPPY\0"
_XERIAL_HEAD = 16
_BROKEN = (
    KafkaError,
    ValueError,
    IndexError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    zstandard.ZstdError,
    cramjam.DecompressionError,
)


class BoundedConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer whose `getmany` gives some `bytes_max`, and at most one batch more."""

    def __init__(self, *, bytes_max: int, **options: Any) -> None:
        super().__init__(
            fetch_max_bytes=FETCH_BYTES, max_partition_fetch_bytes=PARTITION_FETCH_BYTES, **options
        )
        self._room = _Room(bytes_max)

    async def start(self) -> None:
        """Connect; what the tasks begun here fetch is bounded. Nothing is left when it fails."""
        token = _room.set(self._room)
        try:
            await super().start()
        except BaseException:
            await self.stop()
            raise
        finally:
            _room.reset(token)

    async def stop(self) -> None:
        """Leave and disconnect, also when fetching has died: that is raised afterwards."""
        try:
            await super().stop()
        except KafkaError:
            await self._client.close()
            raise

    async def getmany(self, *partitions: Any, **options: Any) -> Any:
        """Records by partition, in order, opened now. Raises KafkaError when none can come."""
        self._look_alive()
        return await super().getmany(*partitions, **options)

    async def getone(self, *partitions: Any) -> Any:
        """The next record. Raises KafkaError when none can come."""
        self._look_alive()
        return await super().getone(*partitions)

    def _look_alive(self) -> None:
        """Make room; raise what ended the task that fetches: aiokafka would wait for ever.

        A fault it doesn't expect ends it, such as uvloop's RuntimeError when it writes to a
        connection that the broker's death has closed in that moment.
        """
        self._room.clear()
        fetching = self._fetcher.error_future
        if fetching.done() and not fetching.cancelled():
            fetching.result()


class _Room:
    """How much more may be opened until somebody asks again."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._left = bytes_max

    def clear(self) -> None:
        self._left = self._bytes_max

    def take(self, size: int) -> None:
        self._left -= size

    @property
    def is_full(self) -> bool:
        return self._left <= 0


_room: ContextVar[_Room | None] = ContextVar("room", default=None)


def _memory_records(data: bytes) -> Any:
    room = _room.get()
    return MemoryRecords(data) if room is None else _Batches(data, room)


fetcher.MemoryRecords = _memory_records


class _Batches:
    """What a fetch brought of one partition, as MemoryRecords, for as long as there is room.

    What is left then is fetched again: the fetcher goes on from the last record that it gave.
    """

    def __init__(self, data: bytes, room: _Room) -> None:
        self._data = memoryview(data)
        self._room = room
        self._at = 0
        self._is_new = True

    def size_in_bytes(self) -> int:
        return len(self._data)

    def has_next(self) -> bool:
        """Whether there is a whole batch and room for it; the fetcher first asks for a batch."""
        is_new, self._is_new = self._is_new, False
        return self._end() is not None and (is_new or not self._room.is_full)

    def next_batch(self) -> Any:
        end = self._end()
        if end is None:
            return None
        batch, self._at = self._data[self._at : end], end
        if len(batch) <= _MAGIC_AT:
            raise CorruptRecordException(f"a batch of {len(batch)} bytes")
        if batch[_MAGIC_AT] < 2:  # no broker of today writes these, whoever sent them
            return LegacyRecordBatch(batch, batch[_MAGIC_AT])
        return _Batch(batch, self._room)

    def _end(self) -> int | None:
        """Where the next batch ends; None when not all of it is there."""
        if len(self._data) - self._at < _BEGIN.size:
            return None
        end = self._at + _BEGIN.size + int(_BEGIN.unpack_from(self._data, self._at)[1])
        return end if self._at < end <= len(self._data) else None


class _Record(NamedTuple):
    """What stands for records that nobody could read."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: Unread
    key: None = None
    checksum: None = None
    headers: tuple[()] = ()


class _Batch:
    """A batch that is opened when it is iterated over, or else is one record, its last."""

    def __init__(self, data: memoryview, room: _Room) -> None:
        self._data = data
        self._batch = DefaultRecordBatch(data)
        self._room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._opened()
        except _TooLarge as error:
            yield self._unread("too_large", str(error))
        except _BROKEN as error:
            yield self._unread("unreadable_batch", f"{type(error).__name__}: {error}")

    def _opened(self) -> Any:
        [count] = _COUNT.unpack_from(self._data, _COUNT_AT)
        if count > BATCH_RECORDS_MAX:
            raise _TooLarge(f"{count} records: at most {BATCH_RECORDS_MAX}")
        [attributes] = _ATTRIBUTES.unpack_from(self._data, _ATTRIBUTES_AT)
        codec, records = attributes & _CODEC, self._data[_RECORDS_AT:]
        self._room.take(RECORD_BYTES * count)
        if not codec:
            self._room.take(len(records))
            _check_headers(records, count)
            return self._batch
        opened = _decompressed(codec, records)
        self._room.take(len(opened))
        _check_headers(opened, count)
        head = bytearray(self._data[:_RECORDS_AT])
        _ATTRIBUTES.pack_into(head, _ATTRIBUTES_AT, attributes & ~_CODEC)
        return DefaultRecordBatch(b"".join((head, opened)))

    def _unread(self, code: str, why: str) -> _Record:
        batch = self._batch
        last = batch.next_offset - 1
        detail = f"a batch that ends at offset {last}, {len(self._data)} bytes as sent: {why}"
        return _Record(last, batch.max_timestamp, batch.timestamp_type, Unread(code, detail))


class _TooLarge(Exception):
    """A batch is beyond the limits; the text says which."""


def _decompressed(codec: int, data: memoryview) -> bytes:
    """The records of a batch. Raises _TooLarge, or what the codec raises."""
    if codec == 1:
        return _of_frames(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), data)
    if codec == 2:
        return _of_snappy(data)
    if codec == 3:
        return _of_frames(lz4.frame.LZ4FrameDecompressor, data)
    if codec == 4:
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
        stream = decompressor.stream_reader(data, read_across_frames=True)
        opened: bytes = stream.read(BATCH_BYTES_MAX + 1)
        _check_size(len(opened))
        return opened
    raise ValueError(f"there is no codec {codec}")


def _of_frames(decompressor: Callable[[], Any], data: memoryview | bytes) -> bytes:
    """Gzip or LZ4, of which producers write one frame."""
    pieces, size = [], 0
    for _ in range(FRAMES_MAX):
        frame = decompressor()
        pieces.append(frame.decompress(data, BATCH_BYTES_MAX + 1 - size))
        size += len(pieces[-1])
        _check_size(size)
        if not frame.eof:
            raise EOFError("the last frame has no end")
        data = frame.unused_data
        if not data:
            return b"".join(pieces)
    raise ValueError(f"more than {FRAMES_MAX} frames")


def _of_snappy(data: memoryview) -> bytes:
    """Snappy, raw or in the frames that Java writes: each says how large it is."""
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        _check_size(cramjam.snappy.decompress_raw_len(data))
        return bytes(cramjam.snappy.decompress_raw(data))
    pieces, at, size = [], _XERIAL_HEAD, 0
    while at < len(data):
        [length] = _COUNT.unpack_from(data, at)
        piece = data[at + _COUNT.size : at + _COUNT.size + length]
        if not 0 < length == len(piece):
            raise ValueError(f"a piece of {length} bytes")
        size += cramjam.snappy.decompress_raw_len(piece)
        _check_size(size)
        pieces.append(bytes(cramjam.snappy.decompress_raw(piece)))
        at += _COUNT.size + length
    return b"".join(pieces)


def _check_size(size: int) -> None:
    if size > BATCH_BYTES_MAX:
        raise _TooLarge(f"more than {BATCH_BYTES_MAX} bytes when decompressed")


def _check_headers(data: bytes | memoryview, count: int) -> None:
    """Count the headers of a large batch. Raises _TooLarge."""
    if len(data) <= SCANNED_BYTES:
        return
    at = headers = 0
    for _ in range(count):
        length, start = decode_varint(data, at)
        _, here = decode_varint(data, start + 1)  # behind the attributes: the time
        _, here = decode_varint(data, here)  # the offset
        for _ in ("key", "value"):
            size, here = decode_varint(data, here)
            here += max(size, 0)
        headers += decode_varint(data, here)[0]
        if headers > BATCH_HEADERS_MAX:
            raise _TooLarge(f"more than {BATCH_HEADERS_MAX} headers")
        at = start + length
