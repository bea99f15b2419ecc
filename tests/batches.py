"""Batches of Kafka's producers, made and written byte for byte."""

import struct
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
RECORDS_AT = 61
"""Where the records begin in a batch."""
MESSAGE_BYTES_MAX = 16 << 20
Headers = Sequence[tuple[str, bytes | None]]


def batch(
    codec: int, values: Sequence[bytes | None], headers: Headers = (), at: int | None = 1000
) -> bytes:
    """A batch as producers write it; `at` is the first record's time, None is now for all."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for offset, value in enumerate(values):
        time = None if at is None else at + offset
        assert builder.append(offset, time, b"key", value, list(headers)) is not None
    return bytes(builder.build())


def changed(data: bytes, records: bytes, codec: int | None = None) -> bytes:
    """A batch with other records, and with a checksum that is right."""
    made = bytearray(data[:RECORDS_AT]) + records
    struct.pack_into(">i", made, 8, len(made) - 12)
    if codec is not None:
        struct.pack_into(">h", made, 21, codec)
    struct.pack_into(">I", made, 17, calc_crc32c(bytes(made[21:])))
    return bytes(made)


async def write(kafka: str, topic: str, partition: int, batches: Sequence[bytes]) -> list[int]:
    """Append batches to a partition as they are; the offset of each one's last record."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, acks="all", max_request_size=MESSAGE_BYTES_MAX
    )
    last = []
    async with producer:
        await producer.partitions_for(topic)
        for data in batches:
            made = producer.create_batch()
            made.append(timestamp=None, key=b"in place of", value=b"the whole batch")
            made.close()
            made._buffer = data
            sent = await producer.send_batch(made, topic, partition=partition)
            last.append((await sent).offset + struct.unpack_from(">i", data, 23)[0])
    return last
