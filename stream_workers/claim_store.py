"""The claims of one block partition on disk: a RocksDB folder that ClickHouse can always refill.

A claim lives in the generation of its block time, `time // horizon`; a look-up reads the block's
own generation and the one before, and older ones are dropped whole: expiry follows the log.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    ColumnFamily,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from stream_workers.claims import later

BLOOM_BITS = 10
CACHE_BYTES = 64 << 20
WRITE_BUFFER_BYTES = 8 << 20
"""Small, with a filter in front: a look-up of an absent key costs 0.4 us in it, 1.5 in 32 MiB."""
MEMTABLE_BLOOM_RATIO = 0.1
FILE_BYTES = 8 << 20
"""Of a file of claims: its filter, 300 KB, has to fit into one of the cache's 64 shards, or it is
read from the file for each look-up, which then costs 8 us instead of 1."""
FILES_OPEN_MAX = 500
"""Of a partition: 100 million claims."""
FIRST_LEVEL_BYTES = 32 << 20
"""Each flush is merged into all of this level: in one of 256 MiB a claim is written 15 times."""
_BY_KEY = WriteOptions()
"""For claims in the order of their keys: each starts from where the last one went."""
_BY_KEY.memtable_insert_hint_per_batch = True
_REACHED = b"reached"
_IDENTITY = b"identity"


class ClaimStore:
    """Claims of one block partition, and the offset up to which they are complete.

    `reached` is an offset up to which every block's claims are in (-1: none). Blocks beyond it may
    be written while older claims are still read back: it moves over them when nothing is missing
    before them. One thread at a time.
    """

    def __init__(self, folder: Path, *, identity: str, horizon_ms: int) -> None:
        """Open or create the folder; one that belongs to another log or store is emptied first."""
        self._folder = folder
        self._horizon_ms = horizon_ms
        self._cache = Cache(CACHE_BYTES)
        self._open()
        self._identity = identity.encode()
        if self._db.get(_IDENTITY) not in (None, self._identity):
            self.clear()
        self._db.put(_IDENTITY, self._identity)
        self._written = range(0)  # the blocks written since, without a gap

    def clear(self) -> None:
        """Forget everything: these claims are of no use."""
        self.close()
        shutil.rmtree(self._folder)
        self._open()
        self._db.put(_IDENTITY, self._identity)
        self._written = range(0)

    def _open(self) -> None:
        options = self._options()
        names = Rdict.list_cf(str(self._folder), options) if self._folder.exists() else []
        self._folder.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(
            str(self._folder),
            options=options,
            column_families={name: self._options() for name in names if name != "default"},
            access_type=AccessType.read_write(),
        )
        self._families: dict[int, Rdict] = {}
        self._handles: dict[int, ColumnFamily] = {}
        for name in names:
            if name != "default":
                self._hold(int(name))
        stored = self._db.get(_REACHED)
        self.reached = -1 if stored is None else int.from_bytes(stored, "little", signed=True)

    def _options(self) -> Options:
        """Point look-ups of random keys, nearly all of them absent."""
        table = BlockBasedOptions()
        table.set_bloom_filter(BLOOM_BITS, False)
        table.set_block_cache(self._cache)
        table.set_cache_index_and_filter_blocks(True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_compression_type(DBCompressionType.none())  # random keys don't shrink
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO)
        options.set_memtable_whole_key_filtering(True)
        options.set_target_file_size_base(FILE_BYTES)
        options.set_max_bytes_for_level_base(FIRST_LEVEL_BYTES)
        options.set_max_open_files(FILES_OPEN_MAX)
        options.set_keep_log_file_num(2)
        return options

    def _hold(self, generation: int) -> None:
        self._families[generation] = self._db.get_column_family(str(generation))
        self._handles[generation] = self._db.get_column_family_handle(str(generation))

    def look_up(self, keys: list[bytes], time: int) -> Sequence[bytes | None]:
        """The packed claims of keys for a block appended at `time` (ms), the latest per key."""
        generation = time // self._horizon_ms
        found: Sequence[bytes | None] | None = None
        for number in (generation + 1, generation, generation - 1):
            family = self._families.get(number)
            if family is None:
                continue
            older = family[keys]
            if found is None or not any(found):
                found = older
            elif any(older):
                found = [a or b for a, b in zip(found, older, strict=True)]
        return [None] * len(keys) if found is None else found

    def write(self, offset: int, time: int, claims: Iterable[tuple[bytes, bytes]]) -> None:
        """Add the claims of the block at `offset`, appended at `time`; blocks come in order.

        Claims in the order of their keys go in faster.
        `reached` moves there, in one batch with them, when it stood right before.
        """
        generation = time // self._horizon_ms
        self._make_room(generation)
        batch = WriteBatch(raw_mode=True)
        handle = self._handles[generation]
        for key, claim in claims:
            batch.put(key, claim, handle)
        reached = offset if offset == self.reached + 1 else self.reached
        batch.put(_REACHED, reached.to_bytes(8, "little", signed=True))
        self._db.write(batch, _BY_KEY)
        self.reached = reached
        self._written = range(self._written.start if self._written else offset, offset + 1)

    def add(self, claims: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Add (block time, key, packed claim) read back from the store, in any order.

        Of several claims of an id the later position stays, also when `write` brought it.
        `reached` stays until `complete` says otherwise.
        """
        batch = WriteBatch(raw_mode=True)
        generations: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        for time, key, claim in claims:
            generations[time // self._horizon_ms].append((key, claim))
        for generation, entries in generations.items():
            if generation not in self._handles:
                self._create(generation)
            keys, handle = [key for key, _ in entries], self._handles[generation]
            held = dict(zip(keys, self._families[generation][keys], strict=True))
            for key, claim in entries:
                if later(held[key], claim) is not held[key]:
                    held[key] = claim
                    batch.put(key, claim, handle)
        self._db.write(batch)

    def complete(self, offset: int) -> None:
        """Say that every claim up to `offset` is in; `reached` takes what was written after it."""
        if offset + 1 in self._written:
            offset = self._written.stop - 1
        self._db.put(_REACHED, offset.to_bytes(8, "little", signed=True))
        self.reached = offset

    def _make_room(self, generation: int) -> None:
        """Create the generation, and drop those whose claims have all expired."""
        if generation in self._families:
            return
        self._create(generation)
        for old in [number for number in self._families if number < generation - 1]:
            del self._families[old], self._handles[old]
            self._db.drop_column_family(str(old))

    def _create(self, generation: int) -> None:
        self._db.create_column_family(str(generation), self._options())
        self._hold(generation)

    def close(self) -> None:
        """Flush and close; another worker may open the folder afterwards."""
        for family in self._families.values():
            family.close()
        self._families.clear()
        self._handles.clear()
        self._db.close()
