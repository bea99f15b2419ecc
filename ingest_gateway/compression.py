"""How appends are compressed: zstd at its first level, which aiokafka has no setting for.

At the third, Kafka's default, events take 1.7 times the CPU, and no fewer bytes (JSON of alike
events with random ids: 33 bytes an event, 30 at the first). A name of aiokafka 0.14.0 is replaced
here, for all producers of the process; tests/ingest_gateway/test_compression.py fails when it
moves.
"""

import sys
from functools import partial

from aiokafka.codec import zstd_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder

CODEC = "zstd"
LEVEL = 1


def compress_quickly() -> None:
    """Let this process's producers compress at LEVEL where they use CODEC."""
    module = sys.modules[DefaultRecordBatchBuilder.__module__]
    module.zstd_encode = partial(zstd_encode, level=LEVEL)  # type: ignore[attr-defined]
