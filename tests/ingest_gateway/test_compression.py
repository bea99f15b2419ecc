"""How appends are compressed."""

from importlib.metadata import version

import cramjam
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from benchmarks.workload import make
from ingest_gateway.compression import LEVEL, compress_quickly

HEAD_BYTES = 61
ZSTD = 4


def test_a_batch_is_compressed_at_the_first_level() -> None:
    assert version("aiokafka") == "0.14.0"
    compress_quickly()
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=ZSTD,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for offset, record in enumerate(make(2000).records):
        builder.append(offset, timestamp=1, key=None, value=record, headers=[])
    packed = bytes(builder.build())[HEAD_BYTES:]
    plain = bytes(cramjam.zstd.decompress(packed))
    assert packed == bytes(cramjam.zstd.compress(plain, level=LEVEL))
    assert packed != bytes(cramjam.zstd.compress(plain, level=3))
