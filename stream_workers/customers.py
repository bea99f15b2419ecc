"""Customers that events name by our id: looked up in memory, and asked for off the event loop."""

from catalog.database import CatalogUnavailable
from catalog.follower import Follower
from stream_workers.packing import Unresolved


class Customers:
    """External ids by ours, in two steps, as nothing may wait while events are taken in."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def known(self, account: str, customer_id: str) -> str:
        """The external id, as far as the snapshot knows. Raises Unresolved."""
        external_id = self.found(account, customer_id)
        if external_id is None:
            raise Unresolved
        return external_id

    async def asked(self) -> bool:
        """Ask the catalog for what is new; False while it is away, and nobody can tell.

        A customer may have been created just before the event that names it.
        """
        try:
            await self._follower.catch_up()
        except CatalogUnavailable:
            return False
        return True

    def found(self, account: str, customer_id: str) -> str | None:
        """The external id once the catalog was asked; None: there is no such customer."""
        return self._follower.snapshot.external_id_of(account, customer_id)
