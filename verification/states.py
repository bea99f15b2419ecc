"""Views equal raw: the states of a customer are what their view makes of the customer's rows.

Blocks go on being stored meanwhile, so states and rows are compared at one cut of the log. Markers
lie in the same parts as the states of their blocks: what one SELECT reads of both is such a cut.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self

from clickhouse_connect.driver import Client

from clickhouse.queries import query
from clickhouse.views import states_over
from schemas.position import SLOTS_PER_EPOCH, slot_of

ROWS_MAX = 10_000
"""So many differences are told at once."""
CUSTOMERS = "$customers"
"""Stands in the queries for the condition of a scope."""
Cut = Mapping[int, int]
"""By slot (epoch of the block topic * 65536 + block partition), before which block."""


class Key(NamedTuple):
    """Which states: those of one span of a customer's use of a feature."""

    account: str
    feature_id: str
    external_customer_id: str
    span: datetime
    group_key: str


class Aggregates(NamedTuple):
    """What states of one key say, Decimals and the latest event as texts."""

    events: int
    value_sum: str
    value_time_sum: str
    value_max: str
    latest: str
    uniques: int


class Difference(NamedTuple):
    """States that are not what their rows make."""

    key: Key
    stored: Aggregates
    made: Aggregates


class Scope(NamedTuple):
    """Customers: those whose hash falls into `shard` of `shards`, or (no shards) those named."""

    shards: int
    shard: int
    accounts: Sequence[str] = ()
    customers: Sequence[str] = ()

    @classmethod
    def of(cls, customers: Sequence[tuple[str, str]]) -> Self:
        """The customers (account, external id) named."""
        named = sorted(set(customers))
        return cls(0, 0, [account for account, _ in named], [customer for _, customer in named])

    def with_(self, customers: Sequence[tuple[str, str]]) -> Self:
        """The customers named, and others (account, external id)."""
        return self.of([*zip(self.accounts, self.customers, strict=True), *customers])

    @property
    def condition(self) -> str:
        """In SQL, with parameters."""
        return query("verify_shard" if self.shards else "verify_named")


def rows_of(scope: Scope) -> str:
    """The query for the counted rows of a scope, up to a cut."""
    return query("verify_rows").replace(CUSTOMERS, scope.condition)


def parameters_of(scope: Scope, cut: Cut) -> dict[str, Any]:
    """A scope and a cut as the queries take them."""
    return {
        "shards": scope.shards,
        "shard": scope.shard,
        "accounts": list(scope.accounts),
        "customers": list(scope.customers),
        "slots": list(cut),
        "befores": list(cut.values()),
    }


def differences(client: Client, scope: Scope) -> list[Difference]:
    """Where the states of some customers differ from their rows, the first ROWS_MAX of them.

    Where blocks were stored while it looked, it looks again, with the rows up to where the states
    were at the first look. Raises UnknownView, ClickHouseError.
    """
    cut = reached(client)
    found, seen = compare(client, scope, cut)
    if not found or seen == cut:
        return found
    named = Scope.of([(each.key.account, each.key.external_customer_id) for each in found])
    again, then = compare(client, named, seen)
    if then == seen:
        return again
    made = {each.key: each.made for each in again}
    return [
        Difference(each.key, each.stored, made[each.key])
        for each in found
        if each.key in made and each.stored != made[each.key]
    ]


def reached(client: Client) -> Cut:
    """Up to where the states are."""
    rows = client.query(query("states_reached")).result_rows
    return {slot_of(epoch, partition): offset + 1 for epoch, partition, offset in rows}


def compare(client: Client, scope: Scope, cut: Cut) -> tuple[list[Difference], Cut]:
    """The states against the rows up to a cut; and the cut that the states are at."""
    parameters = {**parameters_of(scope, cut), "rows_max": ROWS_MAX + SLOTS_PER_EPOCH}
    made = states_over(client, rows_of(scope))
    found: list[Difference] = []
    seen: dict[int, int] = {}
    compared = query("verify_states").replace(CUSTOMERS, scope.condition)
    rows = client.query(f"WITH fresh AS ({made}) {compared}", parameters).result_rows
    for row in rows:
        key = Key._make(row[:5])
        epoch, partition, upto, stored, made_of, stored_uniques, made_uniques, _ = row[5:]
        if key.feature_id:
            sides = [
                Aggregates._make((*stored, stored_uniques)),
                Aggregates._make((*made_of, made_uniques)),
            ]
            found.append(Difference(key, *sides))
        else:
            seen[slot_of(epoch, partition)] = upto + 1
    return found[:ROWS_MAX], seen


def sample(client: Client, count: int) -> Scope:
    """Some customers at random, of those with states and those with events of late."""
    rows = client.query(query("verify_sample"), {"count": count}).result_rows
    return Scope.of([(account, customer) for account, customer in rows])
