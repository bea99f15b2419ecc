"""Bugs, to be planted one at a time: each replaces one function by a likely mistake.

The simulation has to find every one of them; one that it doesn't is a hole in the simulation.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka.structs import OffsetAndMetadata

from clickhouse.client import InsertFailed
from schemas.limits import BLOCK_BYTES_MAX
from schemas.position import SLOTS_PER_EPOCH
from stream_workers import claim_store, claims, folding, partition, store
from stream_workers.claim_store import ClaimStore
from stream_workers.claims import Table, is_there, later, no_claims
from stream_workers.counter import Counting
from stream_workers.coverage import extended
from stream_workers.dedupe import Standing, decide
from stream_workers.group_commit import GroupCommit
from stream_workers.packer import _Run
from stream_workers.packing import Pool
from stream_workers.partition import Partition
from stream_workers.refill import Refill
from stream_workers.store import Store
from tests.simulation.engine import Engine, SimulatedInserts

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Bug:
    """A mistake, the history that shows it, and the fault in it that is known to; "": none."""

    plant: Plant
    history: str
    shown_by: str


BUGS: dict[str, Bug] = {}


def bug(history: str, shown_by: str = "") -> Callable[[Plant], Plant]:
    """Note a bug under its function's name."""

    def noted(plant: Plant) -> Plant:
        BUGS[plant.__name__] = Bug(plant, history, shown_by)
        return plant

    return noted


# Claims


@bug("plain")
def claims_are_not_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Partition, "_claim", lambda *_: None)


@bug("plain", "4:pause")
def a_disk_that_lacks_claims_is_trusted(patch: pytest.MonkeyPatch) -> None:
    real = Partition.open

    def opened(self: Partition) -> None:
        real(self)
        if self._refill is not None:
            self._refill.stop()
            self._refill = None

    patch.setattr(Partition, "open", opened)


@bug("restored")
def a_disk_ahead_of_the_store_is_trusted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClaimStore, "clear", lambda _: None)


@bug("plain", "25:lose")
def the_store_is_not_asked_while_claims_are_read_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Refill, "look_up", lambda *_: no_claims())


@bug("plain", "4:pause")
def reading_back_is_complete_before_it_is(patch: pytest.MonkeyPatch) -> None:
    real = Refill._page

    def page(self: Refill) -> int:
        self._on_core(self.claims.complete, self.upto)
        return real(self)

    patch.setattr(Refill, "_page", page)


@bug("reread")
def what_is_reached_jumps_over_what_is_missing(patch: pytest.MonkeyPatch) -> None:
    real = ClaimStore.write

    def write(self: ClaimStore, offset: int, *rest: Any) -> None:
        self.reached = offset - 1
        real(self, offset, *rest)

    patch.setattr(ClaimStore, "write", write)


@bug("outdated")
def the_earlier_of_two_claims_wins(patch: pytest.MonkeyPatch) -> None:
    def earlier(one: Table, other: Table) -> Table:
        first = np.where(later(one, other) == one, other, one)
        return np.where(is_there(one) & is_there(other), first, later(one, other))

    patch.setattr(claim_store, "later", earlier)
    patch.setattr(partition, "later", earlier)


@bug("forgotten")
def claims_expire_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    def by_the_wall(*rest: Any) -> Any:
        *before, place, horizon_ms, order = rest
        now = place._replace(time=int(time.time() * 1000))
        return decide(*(*before, now, horizon_ms, order))

    patch.setattr(folding, "decide", by_the_wall)


@bug("forgotten")
def a_generation_is_dropped_too_early(patch: pytest.MonkeyPatch) -> None:
    real = ClaimStore._drop_before
    patch.setattr(ClaimStore, "_drop_before", lambda self, oldest: real(self, oldest + 1))


# Decisions


@bug("late")
def every_resent_event_is_taken(patch: pytest.MonkeyPatch) -> None:
    def take_all(*rest: Any) -> Any:
        decision = decide(*rest)
        decision.standings[decision.standings == Standing.DROPPED] = Standing.ACCEPTED
        return decision

    patch.setattr(folding, "decide", take_all)


@bug("late")
def a_resent_event_is_like_any_other(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(folding, "_superseded", lambda _: None)


@bug("twice")
def a_resent_event_claims_its_id(patch: pytest.MonkeyPatch) -> None:
    """As it once was: it was taken while the id's claim stood where its row stands."""
    patch.setattr(folding, "resent_key", lambda key, _: key)


@bug("twice")
def who_is_sent_again_claims_all_rows_of_its_id(patch: pytest.MonkeyPatch) -> None:
    real = claims.resent_key
    patch.setattr(folding, "resent_key", lambda key, row: real(key, row._replace(offset=0)))


@bug("late", "23:away")
def the_newest_catalog_is_matched_with(patch: pytest.MonkeyPatch) -> None:
    real = Partition._fold

    def newest(self: Partition, block: Any, place: Any, catalog: Any, stored: Any) -> Any:
        version = self._parts.follower.refresh()
        block = msgspec.structs.replace(block, catalog_version=version)
        return real(self, block, place, catalog, stored)

    patch.setattr(Partition, "_fold", newest)


@bug("late")
def the_catalogs_version_is_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    async def known(self: Any) -> int:
        return int(self._packer._follower.snapshot.version)

    patch.setattr(_Run, "_catalog_version", known)


# Coverage


@bug("plain", "1:pause")
def coverage_is_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(folding, "_uncovered", lambda *_: None)


@bug("pieces", "2:deny")
def coverage_is_a_high_water_mark(patch: pytest.MonkeyPatch) -> None:
    def below(spans: Any, positions: Any) -> Any:
        return positions < np.uint64(spans[-1][1])

    patch.setattr(folding, "covers", below)


@bug("overlapping", "10:kill")
def the_last_range_is_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(folding, "extended", lambda held, ranges: extended(held, list(ranges)[:-1]))


@bug("pieces", "2:deny")
def every_block_covers_from_the_beginning(patch: pytest.MonkeyPatch) -> None:
    real = Pool.cut

    def cut(self: Pool, *rest: Any, bytes_max: int = BLOCK_BYTES_MAX, **named: Any) -> Any:
        for part, block in real(self, *rest, bytes_max=bytes_max, **named):
            ranges = [msgspec.structs.replace(each, start=0) for each in block.ranges]
            yield part, msgspec.structs.replace(block, ranges=ranges)

    patch.setattr(Pool, "cut", cut)


# The packer's order


@bug("plain")
def positions_are_committed_before_their_blocks_are_sent(patch: pytest.MonkeyPatch) -> None:
    real = _Run._cut_and_send

    async def send(self: Any) -> None:
        await _commit(self, self._reached)
        await real(self)

    patch.setattr(_Run, "_cut_and_send", send)


@bug("plain", "2:deny")
def positions_are_committed_although_a_send_failed(patch: pytest.MonkeyPatch) -> None:
    async def land(self: Any, before: Any, sends: Any, reached: Any, started: float) -> None:
        await asyncio.gather(*sends, return_exceptions=True)
        await _commit(self, reached)

    patch.setattr(_Run, "_land", land)


@bug("plain", "2:deny")
def the_packer_goes_on_after_a_failed_send(patch: pytest.MonkeyPatch) -> None:
    async def go_on(self: Any) -> None:
        self._flushes = [flush for flush in self._flushes if not flush.done()]

    patch.setattr(_Run, "_raise_failures", go_on)


# The counter's order


@bug("plain")
def a_block_is_acknowledged_when_it_is_read(patch: pytest.MonkeyPatch) -> None:
    real = Counting.put

    async def put(self: Counting, event: Any) -> None:
        event.ack()
        await real(self, event)

    patch.setattr(Counting, "put", put)


@bug("plain", "7:hang")
def a_failed_insert_is_passed_over(patch: pytest.MonkeyPatch) -> None:
    real = SimulatedInserts.insert

    async def insert(self: Any, *rest: Any, **named: Any) -> None:
        with suppress(InsertFailed):
            await real(self, *rest, **named)

    patch.setattr(SimulatedInserts, "insert", insert)


@bug("joint")
def a_joint_insert_that_failed_counts_for_all_but_one(patch: pytest.MonkeyPatch) -> None:
    real = GroupCommit._send

    async def send(self: GroupCommit, waiting: Any) -> None:
        (first, *others), loop = waiting, asyncio.get_running_loop()
        unseen = [(piece, loop.create_future()) for piece, _ in others]
        await real(self, [first, *unseen])
        for (_, inserted), (_, result) in zip(others, unseen, strict=True):
            result.exception()
            inserted.set_result(None)

    patch.setattr(GroupCommit, "_send", send)


@bug("plain", "14:hang")
def a_failed_insert_is_sent_again_without_looking(patch: pytest.MonkeyPatch) -> None:
    async def nothing_landed(self: Partition, offset: int) -> bool:
        self._owner = self._parts.store.acquire(self.number, self._owner)
        return False

    patch.setattr(Partition, "_landed", nothing_landed)


@bug("doubted", "17:pause")
def another_owners_progress_is_taken_for_ones_own(patch: pytest.MonkeyPatch) -> None:
    async def landed(self: Partition, offset: int) -> bool:
        def reached() -> int:
            self._owner = self._parts.store.acquire(self.number, self._owner)
            return self._parts.store.mend(self.number, self._owner).offset

        return await self._ask(reached) >= offset

    patch.setattr(Partition, "_landed", landed)


# The store


@bug("plain", "15:refuse")
def a_token_is_used_by_every_attempt(patch: pytest.MonkeyPatch) -> None:
    _retoken(patch, lambda token: re.sub(r"(block-\d+-\d+-\d+)-\d+", r"\1", token))


@bug("plain")
def a_token_is_used_by_every_block_of_an_owner(patch: pytest.MonkeyPatch) -> None:
    _retoken(patch, lambda token: re.sub(r"(block-\d+-\d+)-\d+", r"\1", token))


@bug("plain", "13:hang")
def the_marker_of_the_states_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "mend", lambda self, number, owner: self.progress(number))


@bug("plain", "14:hang")
def only_the_last_block_is_filled(patch: pytest.MonkeyPatch) -> None:
    real = Store.fill

    def fill(self: Store, number: int, after: int, upto: int, owner: int) -> None:
        real(self, number, upto, upto, owner)

    patch.setattr(Store, "fill", fill)


@bug("halved", "27:hang")
def a_filling_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    def fill(self: Store, number: int, after: int, upto: int, owner: int) -> None:
        for offset in self._blocks(number, after, upto):
            self._fill_block(number, offset, owner, "")

    patch.setattr(Store, "fill", fill)


@bug("plain", "13:hang")
def inserts_under_way_are_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "_settle", lambda *_: None)


@bug("plain", "12:pause")
def there_is_no_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "permits", lambda *_: True)


@bug("stopped", "15:pause")
def a_greater_owner_number_than_the_last_is_let_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "permits", lambda _, owner, current: owner >= current)


@bug("stopped")
def an_owner_number_is_chosen_twice(patch: pytest.MonkeyPatch) -> None:
    def next_one(self: Store, number: int, held: int | None = None) -> int:
        slot = self._epoch * SLOTS_PER_EPOCH + number
        owner = self._owner_of(slot) + 1
        self._set_owner(slot, owner)
        self._settle(number)
        return owner

    patch.setattr(Store, "acquire", next_one)


@bug("plain", "12:hang")
def a_partition_is_not_taken_over(patch: pytest.MonkeyPatch) -> None:
    def read(self: Store, number: int, held: int | None = None) -> int:
        return self._owner_of(self._epoch * SLOTS_PER_EPOCH + number)

    patch.setattr(Store, "acquire", read)


# Repair


@bug("repaired")
def a_repair_holds_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "hold", lambda self, number: self._owner_of(number))
    patch.setattr(Store, "release", lambda *_: None)


@bug("repaired")
def a_hold_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_is_held", lambda _: False)


@bug("repaired", "37:pause")
def statements_of_a_repair_are_good_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "holds", lambda *_: True)


@bug("repaired")
def states_are_made_anew_beside_the_old_ones(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "delete", lambda self, usages, owners: self.make_anew([], {}, owners))


async def _commit(run: Any, reached: Mapping[Any, Any]) -> None:
    """Commit what a flush has read."""
    await run._consumer.commit(
        {tp: OffsetAndMetadata(mark.offset + 1, mark.to_text()) for tp, mark in reached.items()}
    )


def _retoken(patch: pytest.MonkeyPatch, changed: Callable[[str], str]) -> None:
    """Insert with other tokens."""
    real = SimulatedInserts.insert

    async def insert(self: Any, table: str, stream: bytes, *, token: str, query_id: str) -> None:
        await real(self, table, stream, token=changed(token), query_id=query_id)

    patch.setattr(SimulatedInserts, "insert", insert)
