"""Repair: states that are not what their rows make are made anew.

The rows are the truth, so it refuses where rows themselves are missing. Meanwhile no counter
stores anything: each block partition is held, and its counter waits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from uuid import uuid4

from clickhouse_connect.driver import Client

from clickhouse.queries import query
from clickhouse.views import states_over
from schemas.position import SLOTS_PER_EPOCH
from stream_workers.store import Store
from verification.ledger import Flaw
from verification.states import Difference, Key, Scope, parameters_of, reached, rows_of

KEYS_AT_ONCE = 1000


class Unrepairable(Exception):
    """The rows that the states would be made from are not all there."""


def repair(client: Client, found: Sequence[Difference], ledger: Sequence[Flaw]) -> None:
    """Make the states of some keys anew, from the rows.

    Readers see too little of these keys until it is done. Should it die in between, a later
    verification finds them again. Raises Unrepairable, NotOwner when a counter went on all the
    same, TimeoutError when an insert under way doesn't end, ClickHouseError.
    """
    missing = [flaw for flaw in ledger if flaw.kind in ("blocks_missing", "rows_differ")]
    if missing:
        raise Unrepairable(
            f"rows are missing or too many ({missing[0].detail}): bring them back first,"
            " the states may be what is right"
        )
    with _held(client) as held:
        keys = [each.key for each in found]
        for first in range(0, len(keys), KEYS_AT_ONCE):
            _rebuild(client, keys[first : first + KEYS_AT_ONCE], held)


class Held(NamedTuple):
    """A block partition that is kept from its counter, under an owner number."""

    store: Store
    slot: int
    partition: int
    owner: int


@contextmanager
def _held(client: Client) -> Iterator[list[Held]]:
    """Nobody stores a block meanwhile, and what was stored last is whole."""
    held: list[Held] = []
    try:
        for slot in reached(client):
            epoch, partition = divmod(slot, SLOTS_PER_EPOCH)
            store = Store(client, epoch)
            owner = store.hold(partition)
            held.append(Held(store, slot, partition, owner))
            store.mend(partition, owner)
        yield held
    finally:
        for each in held:
            each.store.release(each.partition, each.owner)


def _rebuild(client: Client, keys: Sequence[Key], held: Sequence[Held]) -> None:
    """Two statements. They do nothing once a partition has another owner, whenever they arrive.

    Who holds the partitions next waits for the second as for an insert of the first of them.
    """
    scope = Scope.of([(key.account, key.external_customer_id) for key in keys])
    parameters = {
        **parameters_of(scope, reached(client)),
        "features": [key.feature_id for key in keys],
        "key_accounts": [key.account for key in keys],
        "key_customers": [key.external_customer_id for key in keys],
        "spans": [int(key.span.timestamp()) for key in keys],
        "groups": [key.group_key for key in keys],
        "owners": f"{client.database}.owners",
        "held_slots": [each.slot for each in held],
        "held_owners": [each.owner for each in held],
    }
    query_id = held[0].store.mark(held[0].partition, f"repair-{uuid4().hex}")
    client.command(
        f"ALTER TABLE usage_states DELETE WHERE {query('verify_keys')}",
        parameters,
        settings={"mutations_sync": 2},
    )
    made = states_over(client, rows_of(scope))
    client.command(  # texts of ours, whose values are parameters
        f"INSERT INTO usage_states SELECT * FROM ({made}) WHERE {query('verify_keys')}",  # noqa: S608
        parameters,
        settings={"insert_deduplicate": 0, "query_id": query_id},
    )
