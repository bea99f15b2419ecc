"""The checks of a store, one after the other, and mending until none finds anything more."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from clickhouse_connect.driver import Client

from clickhouse.queries import query
from stream_workers.store import NO_ANSWER, NotOwner, StoreBehind
from verification import ledger, once, states
from verification.ledger import BEHIND, Flaw
from verification.once import Repeated
from verification.repair import Unrepairable, repair
from verification.states import Difference, Scope

EVENTS_A_SHARD = 5_000_000
Track = Callable[[Sequence[Scope], str], Iterable[Scope]]
"""Gives scopes one by one, and shows how far it is with what they are looked at for."""


class Found(NamedTuple):
    """What the checks of a store found.

    events      How many rows there are.
    repaired    How many states were made anew, and flaws of the ledger mended, before this.
    unrepaired  Why what is here could not be mended.
    """

    events: int
    states: list[Difference]
    ledger: list[Flaw]
    repeated: list[Repeated]
    repaired: int = 0
    unrepaired: str | None = None

    @property
    def well(self) -> bool:
        """Whether there is nothing."""
        return not (self.states or self.ledger or self.repeated)


class Checks:
    """Everything that can be asked of a store; or (`sample` > 0) the states of some customers.

    Its methods raise what the client of ClickHouse raises, UnknownView, and TimeoutError when an
    insert doesn't end.
    """

    def __init__(self, client: Client, horizon_ms: int, sample: int, track: Track) -> None:
        self._client = client
        self._horizon_ms = horizon_ms
        self._track = track
        self._events = int(client.query(query("rows_stored")).result_rows[0][0])
        shards = 1 + self._events // EVENTS_A_SHARD
        self._shards = [] if sample else [Scope(shards, shard) for shard in range(shards)]
        self._scopes = self._shards or [states.sample(client, sample)]

    def look(self) -> Found:
        """Look at everything."""
        repeated = [
            each
            for scope in self._track(self._shards, "Ids that count twice")
            for each in once.repeated(self._client, *scope[:2], self._horizon_ms)
        ]
        return Found(self._events, self._states(), ledger.flaws(self._client), repeated)

    def mend(self, found: Found) -> Found:
        """Mend what was found and may be mended, and look again, until nothing new is found."""
        done: set[object] = set()
        while True:
            differing = [each for each in found.states if each.key not in done]
            flaws = [each for each in found.ledger if each.kind == BEHIND and each not in done]
            if not differing and not flaws:
                return found
            try:
                repair(self._client, differing, found.ledger)
                done.update([*(each.key for each in differing), *flaws])
                differing, flaws = self._states(), ledger.flaws(self._client)
            except (Unrepairable, NotOwner, StoreBehind, TimeoutError, *NO_ANSWER) as error:
                return found._replace(unrepaired=str(error))
            found = found._replace(states=differing, ledger=flaws, repaired=len(done))

    def _states(self) -> list[Difference]:
        return [
            each
            for scope in self._track(self._scopes, "States against rows")
            for each in states.differences(self._client, scope)
        ]
