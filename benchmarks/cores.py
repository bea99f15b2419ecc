"""The pure cores on one core: packing records into blocks, folding blocks into rows."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.workload import NAMES, Workload, make
from schemas.block import decode, encode, ipc
from schemas.catalog import Aggregation, Feature, Reset, Status
from schemas.position import Log
from stream_workers.claim_store import ClaimStore
from stream_workers.coverage import Coverage
from stream_workers.dedupe import Place
from stream_workers.folding import fold
from stream_workers.packing import Pool, Record

SECTION = "cores, one core's CPU"
PARTITIONS = 4
RECORDS_PER_FLUSH = 80
WARM_UP_EVENTS = 10_000
HORIZON_MS = 35 * 24 * 3_600_000
BLOCK_TIME_MS = 1_755_850_000_000
Blocks = list[tuple[int, bytes]]
Filters = tuple[tuple[str, frozenset[str]], ...]


class Features:
    """A catalog in memory: the features of a workload's names."""

    def __init__(self, names: Iterable[str], filters: Filters = ()) -> None:
        self._features = {name: _feature(name, filters) for name in names}

    def feature_at(self, account: str, event_name: str, version: int) -> Feature | None:
        """The feature of a name."""
        return self._features.get(event_name)

    def customer_status(self, account: str, external_id: str, version: int) -> str:
        """Everybody is known."""
        return "active"


def _feature(name: str, filters: Filters) -> Feature:
    """Calls are counted, of everything else the credits are summed up."""
    is_calls = name == "api.calls"
    return Feature(
        id=f"feat_{name}",
        meter_id=f"meter_{name}",
        account="default",
        event_name=name,
        aggregation=Aggregation.COUNT if is_calls else Aggregation.SUM,
        field=None if is_calls else "credits",
        multiplier=None,
        bucket_size=None,
        group_by=None,
        filters=filters,
        reset_usage=Reset.BILLING_PERIOD,
        status=Status.PUBLISHED,
        created_version=1,
        version=1,
    )


TEN_PROPERTIES = {f"label_{number}": f"value {number}" for number in range(10)}
TEN_FILTERS: Filters = tuple(
    (key, frozenset({value, "another"})) for key, value in TEN_PROPERTIES.items()
)
"""Which every event with the ten properties gets through."""
THOUSAND_NAMES = tuple(f"name.{number}" for number in range(1000))


def measure(events: int, runs: int) -> tuple[list[Figure], list[bytes]]:
    """Events a second of one core's CPU, and the rows of the last run as they are inserted."""
    rates: dict[str, list[float]] = {}

    def note(name: str, spent: float) -> None:
        rates.setdefault(f"{name}, events/s", []).append(events / spent)

    warm_up()
    for seed in range(runs):
        load = make(events, seed=seed)
        spent, blocks = pack(load)
        note("packer", spent)
        spent, streams = count(blocks)
        note("counter, new ids", spent)
        again = pack(load, first_record=len(load.records))[1]
        note("counter, all duplicates", count(again, before=blocks)[0])
        one = pack(make(events, seed=seed, names=("model.usage",)))[1]
        note("counter, one feature", count(one)[0])
        thousand = pack(make(events, seed=seed, names=THOUSAND_NAMES))[1]
        note("counter, a thousand features", count(thousand, Features(THOUSAND_NAMES))[0])
        ten = pack(make(events, seed=seed, more=TEN_PROPERTIES))[1]
        note("counter, ten filters", count(ten, Features(NAMES, TEN_FILTERS))[0])
    return [Figure(SECTION, name, values) for name, values in rates.items()], streams


def warm_up() -> None:
    """Run both cores once: what is loaded and made on first use is no cost of an event."""
    count(pack(make(WARM_UP_EVENTS))[1])


def pack(workload: Workload, first_record: int = 0) -> tuple[float, Blocks]:
    """CPU seconds to pack the workload, and its blocks as Kafka would carry them.

    `first_record` is where its records begin in the log: the same events are duplicates there.
    """
    blocks: Blocks = []
    starts: dict[tuple[int, Log], int] = {}
    log = Log("gateway-events", 0, 0)
    started = time.process_time()
    for first in range(0, len(workload.records), RECORDS_PER_FLUSH):
        pool = Pool()
        bodies = workload.records[first : first + RECORDS_PER_FLUSH]
        records = [
            Record(log, number, "default", BLOCK_TIME_MS, body)
            for number, body in enumerate(bodies, first_record + first)
        ]
        pool.add(records, _nobody)
        cut = pool.cut(PARTITIONS, epoch=0, catalog_version=1, starts=starts)
        blocks += [(partition, encode(block)) for partition, block in cut]
    return time.process_time() - started, blocks


def _nobody(account: str, customer_id: str) -> str | None:
    return None


def count(
    blocks: Blocks, catalog: Features | None = None, before: Blocks | None = None
) -> tuple[float, list[bytes]]:
    """CPU seconds to fold blocks with claims on disk, and the rows as they are inserted.

    `before` are blocks that were counted already.
    """
    catalog = catalog or Features(NAMES)
    coverage: dict[int, Coverage] = {}
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    streams: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            number: ClaimStore(Path(folder) / str(number), identity="b", horizon_ms=HORIZON_MS)
            for number in range(PARTITIONS)
        }

        def fold_all(all_blocks: Blocks) -> None:
            for number, value in all_blocks:
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

        fold_all(before or [])
        streams.clear()
        started = time.process_time()
        fold_all(blocks)
        spent = time.process_time() - started
        for store in stores.values():
            store.close()
    return spent, streams
