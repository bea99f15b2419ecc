"""The pure cores on one core: packing records into blocks, folding blocks into rows."""

import tempfile
import time
from pathlib import Path

from benchmarks.workload import Workload, make
from schemas.block import decode, encode, ipc
from schemas.catalog import Aggregation, Feature, Reset, Status
from schemas.position import Log
from stream_workers.claim_store import ClaimStore
from stream_workers.coverage import Coverage
from stream_workers.dedupe import Place
from stream_workers.folding import fold
from stream_workers.packing import Pool, Record

PARTITIONS = 4
RECORDS_PER_FLUSH = 80
WARM_UP_EVENTS = 10_000
HORIZON_MS = 35 * 24 * 3_600_000
BLOCK_TIME_MS = 1_755_850_000_000
Blocks = list[tuple[int, bytes]]


class TwoFeatures:
    """A catalog with the workload's two features, in memory."""

    def __init__(self) -> None:
        self._features = {
            name: Feature(
                id=f"feat_{name}",
                meter_id=f"meter_{name}",
                account="default",
                event_name=name,
                aggregation=aggregation,
                field=field,
                multiplier=None,
                bucket_size=None,
                group_by=None,
                filters=(),
                reset_usage=Reset.BILLING_PERIOD,
                status=Status.PUBLISHED,
                created_version=1,
                version=1,
            )
            for name, aggregation, field in (
                ("model.usage", Aggregation.SUM, "credits"),
                ("api.calls", Aggregation.COUNT, None),
            )
        }

    def feature_at(self, account: str, event_name: str, version: int) -> Feature | None:
        """The feature of a name."""
        return self._features.get(event_name)

    def customer_status(self, account: str, external_id: str, version: int) -> str:
        """Everybody is known."""
        return "active"


def warm_up() -> None:
    """Run both cores once: what is loaded and made on first use is no cost of an event."""
    count(pack(make(WARM_UP_EVENTS))[1])


def pack(workload: Workload) -> tuple[float, Blocks]:
    """CPU seconds to pack the workload, and its blocks as Kafka would carry them."""
    blocks: Blocks = []
    starts: dict[tuple[int, Log], int] = {}
    log = Log("gateway-events", 0, 0)
    started = time.process_time()
    for first in range(0, len(workload.records), RECORDS_PER_FLUSH):
        pool = Pool()
        bodies = workload.records[first : first + RECORDS_PER_FLUSH]
        records = [
            Record(log, number, "default", BLOCK_TIME_MS, body)
            for number, body in enumerate(bodies, first)
        ]
        pool.add(records, _nobody)
        cut = pool.cut(PARTITIONS, epoch=0, catalog_version=1, starts=starts)
        blocks += [(partition, encode(block)) for partition, block in cut]
    return time.process_time() - started, blocks


def _nobody(account: str, customer_id: str) -> str | None:
    return None


def count(blocks: Blocks) -> tuple[float, list[bytes]]:
    """CPU seconds to fold blocks with claims in RocksDB, and the rows as they are inserted."""
    catalog = TwoFeatures()
    coverage: dict[int, Coverage] = {}
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    streams = []
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            number: ClaimStore(Path(folder) / str(number), identity="b", horizon_ms=HORIZON_MS)
            for number in range(PARTITIONS)
        }
        started = time.process_time()
        for number, value in blocks:
            store = stores[number]
            place = Place(0, number, offsets[number], BLOCK_TIME_MS)
            folded = fold(
                coverage.get(number, {}),
                decode(value),
                place,
                lambda keys, store=store: store.look_up(keys, BLOCK_TIME_MS),  # type: ignore[misc]
                catalog,
                owner=1,
                horizon_ms=HORIZON_MS,
            )
            store.write(place.offset, place.time, folded.claims)
            coverage[number] = folded.coverage
            offsets[number] += 1
            streams.append(ipc(folded.rows, compression=None))
        spent = time.process_time() - started
        for store in stores.values():
            store.close()
    return spent, streams
