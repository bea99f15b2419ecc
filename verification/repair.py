"""Repair: states that are not what their rows make are made anew.

The rows are the truth, so it refuses where rows themselves are missing. Meanwhile no counter
stores anything: each block partition is held, and its counter waits.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from uuid import uuid4

from clickhouse_connect.driver import Client

from clickhouse.queries import query
from clickhouse.views import states_over
from schemas.position import SLOTS_PER_EPOCH
from stream_workers.store import RANDOM, Store
from verification.ledger import BEHIND, ROWS_AMISS, Flaw
from verification.states import Difference, Key, Scope, parameters_of, reached, rows_of

KEYS_AT_ONCE = 1000
BLOCKS_AT_ONCE = 100
POLL_S = 0.1


class Unrepairable(Exception):
    """What is wrong can't be mended, or not from the rows that there are."""


def repair(client: Client, found: Sequence[Difference], ledger: Sequence[Flaw]) -> None:
    """Make the states of some keys anew, from the rows, and add those of blocks that they lack.

    Readers see too little of these keys until it is done. Should it die in between, a later
    verification finds them again. Raises Unrepairable, NotOwner when a counter went on all the
    same, TimeoutError when an insert under way doesn't end, ClickHouseError.
    """
    missing = [flaw for flaw in ledger if flaw.kind in ROWS_AMISS]
    if missing:
        raise Unrepairable(
            f"rows are missing or too many ({missing[0].detail}): bring them back first,"
            " the states may be what is right"
        )
    behind = [flaw.slot for flaw in ledger if flaw.kind == BEHIND]
    with _held(client, behind) as held:
        keys = [each.key for each in found]
        for first in range(0, len(keys), KEYS_AT_ONCE):
            _rebuild(client, keys[first : first + KEYS_AT_ONCE], held)


class Held:
    """A block partition that is kept from its counter, under an owner number."""

    def __init__(self, client: Client, slot: int) -> None:
        self.slot = slot
        epoch, self.partition = divmod(slot, SLOTS_PER_EPOCH)
        self.store = Store(client, epoch)
        self.owner = self.store.hold(self.partition)

    def renew(self) -> None:
        """Go on holding it. Raises NotOwner when it is too late for that."""
        self.owner = self.store.renew(self.partition, self.owner)

    def release(self) -> None:
        """Let its counter go on. Raises NotOwner when it has already."""
        self.store.release(self.partition, self.owner)


@contextmanager
def _held(client: Client, behind: Sequence[int]) -> Iterator[list[Held]]:
    """Nobody stores a block meanwhile, and the states have every block that is stored."""
    held: list[Held] = []
    with ExitStack() as releasing:  # each, also when another fails
        for slot in sorted({*reached(client), *behind}):
            each = Held(client, slot)
            releasing.callback(each.release)
            held.append(each)
            if slot in behind:
                _fill(each, held)
            each.store.mend(each.partition, each.owner)
        yield held


def _fill(each: Held, held: Sequence[Held]) -> None:
    """Bring the states of a partition nearly up to its blocks, however many they lack."""
    upto = each.store.states_upto(each.partition)
    last = each.store.progress(each.partition).offset
    for after in range(upto, last, BLOCKS_AT_ONCE):
        _renew(held)
        each.store.fill(each.partition, after, min(after + BLOCKS_AT_ONCE, last), each.owner)


def _renew(held: Sequence[Held]) -> None:
    for each in held:
        each.renew()


def _rebuild(client: Client, keys: Sequence[Key], held: Sequence[Held]) -> None:
    """Two statements. They do nothing once a partition has another owner, whenever they arrive.

    Who holds the partitions next waits for the second as for an insert of each of them. How long
    the first takes nobody knows: it rewrites parts whole.
    """
    _renew(held)
    scope = Scope.of([(key.account, key.external_customer_id) for key in keys])
    parameters = {
        **parameters_of(scope, reached(client)),
        "features": [key.feature_id for key in keys],
        "key_accounts": [key.account for key in keys],
        "key_customers": [key.external_customer_id for key in keys],
        "spans": [int(key.span.timestamp()) for key in keys],
        "groups": [key.group_key for key in keys],
        "owners": f"{client.database}.owners",
        "random": RANDOM,
        "held_slots": [each.slot for each in held],
        "holds": [each.owner & RANDOM for each in held],
    }
    client.command(
        f"ALTER TABLE usage_states DELETE WHERE {query('verify_keys')}",
        parameters,
        settings={"mutations_sync": 0},
    )
    _until_deleted(client, held)
    made = states_over(client, rows_of(scope))
    marks = [each.store.mark(each.partition) for each in held]
    client.command(  # texts of ours, whose values are parameters
        f"INSERT INTO usage_states SELECT * FROM ({made}) WHERE {query('verify_keys')}",  # noqa: S608
        parameters,
        settings={
            "insert_deduplicate": 0,
            "query_id": "".join([*marks, f"repair-{uuid4().hex}"]),
        },
    )


def _until_deleted(client: Client, held: Sequence[Held]) -> None:
    """Hold the partitions until no delete is under way, and for the statement after it."""
    while True:
        count, hindrance = client.query(query("verify_deleting")).result_rows[0]
        if hindrance:
            raise Unrepairable(f"the engine doesn't delete states: {hindrance}")
        _renew(held)
        if not count:
            return
        time.sleep(POLL_S)
