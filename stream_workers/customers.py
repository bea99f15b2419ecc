"""Customers that events name by our id: looked up in memory, then asked for, never waited for."""

from catalog.database import CatalogUnavailable
from catalog.follower import Follower
from schemas.event import Unreadable
from stream_workers.packing import Resolve, Unresolved


class Customers:
    """External ids by ours. Two steps, as nothing may wait while events are taken in."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def known(self, account: str, customer_id: str) -> str:
        """The external id, as far as the snapshot knows. Raises Unresolved."""
        external_id = self._find(account, customer_id)
        if external_id is None:
            raise Unresolved
        return external_id

    async def asked(self) -> Resolve:
        """Ask the catalog for what is new; how to resolve with what it said.

        A customer may have been created just before the event that names it. With the catalog away
        nobody can tell: such an event is set aside with that as its reason, and the others go on.
        """
        try:
            await self._follower.catch_up()
        except CatalogUnavailable:
            return self._known_or_set_aside
        return self._find

    def _find(self, account: str, customer_id: str) -> str | None:
        return self._follower.snapshot.external_id_of(account, customer_id)

    def _known_or_set_aside(self, account: str, customer_id: str) -> str:
        external_id = self._find(account, customer_id)
        if external_id is None:
            raise Unreadable(
                "catalog_away",
                f"the catalog was away, and couldn't say which customer has the id {customer_id!r}",
                "customer_id",
            )
        return external_id
