"""A block: one Kafka message with the events of many records, in columns, and what it covers.

The packer writes blocks, the counter folds them. Positions, order and content are fixed once the
block is in the log, so whoever reads it again sees the same.
"""

from collections.abc import Sequence

import msgspec
import pyarrow as pa

import schemas.arrow  # noqa: F401
from schemas.position import Log, Range

VERSION = 1
DICTIONARY = pa.dictionary(pa.int32(), pa.utf8())

COLUMNS = pa.schema(
    [
        ("key", pa.binary(16)),  # claim key: SHA-256 of account NUL event_id, cut
        ("content", pa.uint32()),  # CRC of what the client sent, before defaults
        ("account", DICTIONARY),
        ("event_name", DICTIONARY),
        ("external_customer_id", pa.utf8()),
        ("event_id", pa.utf8()),
        ("timestamp", pa.int64()),  # ms since 1970
        ("timestamp_given", pa.bool_()),
        ("ingested_at", pa.int64()),  # ms since 1970
        ("source", DICTIONARY),
        ("properties", pa.binary()),  # JSON text as sent, empty where there was none
        ("log", pa.uint16()),  # number of the source log in `logs`
        ("position", pa.uint64()),  # where in it
    ]
)
RESENT_COLUMNS = pa.schema(
    [
        ("home_log", pa.uint16()),  # where the producer's own record is
        ("home_position", pa.uint64()),
        ("superseded_epoch", pa.uint16()),  # the row that it replaces
        ("superseded_offset", pa.int64()),  # -1: none
        ("superseded_index", pa.uint32()),
    ]
)
"""Only in blocks that hold re-sent events."""


class DeadLetter(msgspec.Struct, frozen=True, array_like=True):
    """A record, or one event of a record, that could not be read: its bytes, place and reason."""

    account: str
    log: int
    position: int
    ingested_at: int
    code: str
    detail: str
    content: bytes


class Block(msgspec.Struct, frozen=True):
    """The events of one block partition from a stretch of every source log.

    `ranges` say which source positions the block covers for its partition, empty stretches
    included; `logs` numbers the source logs. `events` is an Arrow IPC stream of one batch with
    COLUMNS (and RESENT_COLUMNS). Dead letters stand after the events.
    """

    version: int
    epoch: int
    catalog_version: int
    logs: list[Log]
    ranges: list[Range]
    events: bytes
    dead_letters: list[DeadLetter] = []

    def table(self) -> pa.RecordBatch:
        """The events as one Arrow batch."""
        with pa.ipc.open_stream(self.events) as reader:
            return reader.read_next_batch()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Block)


class UnreadableBlock(ValueError):
    """A record of the block topic that no packer of ours wrote."""


def encoded(texts: list[str]) -> pa.DictionaryArray:
    """A column of texts, each distinct one kept once."""
    return pa.array(texts, pa.utf8()).dictionary_encode()


def ipc(batch: pa.RecordBatch, compression: str | None = "lz4") -> bytes:
    """One Arrow batch as an IPC stream; within one machine it is quicker uncompressed."""
    options = pa.ipc.IpcWriteOptions(compression=compression)
    if compression is not None:
        sink = pa.BufferOutputStream()
        _write(batch, sink, options)
        return bytes(sink.getvalue())
    measured = pa.MockOutputStream()  # or the buffer grows, and is copied each time
    _write(batch, measured, options)
    buffer = pa.allocate_buffer(measured.size())
    _write(batch, pa.FixedSizeBufferWriter(buffer), options)
    return bytes(buffer)


def _write(batch: pa.RecordBatch, sink: pa.NativeFile, options: pa.ipc.IpcWriteOptions) -> None:
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema as one, with one dictionary for each column."""
    if len(batches) == 1:
        return batches[0]
    [whole] = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()
    return whole


def encode(block: Block) -> bytes:
    """A block as the value of a Kafka message."""
    return _encoder.encode(block)


def decode(value: bytes) -> Block:
    """A block from a Kafka message. Raises UnreadableBlock."""
    try:
        block = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableBlock(str(error)) from error
    if block.version != VERSION:
        raise UnreadableBlock(f"version {block.version}: this worker reads {VERSION}")
    return block
