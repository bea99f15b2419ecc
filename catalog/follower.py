"""Keeps a snapshot up with the catalog, and says who a key belongs to."""

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from sqlalchemy import Row, select
from sqlalchemy.exc import SQLAlchemyError

from catalog import keys
from catalog.attempts import Attempts
from catalog.database import Catalog, CatalogUnavailable
from catalog.snapshot import ChangeRecord, Snapshot
from catalog.tables import Change
from schemas.catalog import ApiKey, Scope
from schemas.errors import PermissionDenied

CHUNK = 10_000
"""Changes read by one query."""

UNKNOWN_KEY_REFRESH_S = 0.1
"""How often unknown but well-formed keys may ask the database whether they are new."""

PATIENCE_S = 5.0
"""How long the database may take for an answer: one that takes longer is away, and may hang."""

log = logging.getLogger(__name__)
_newer = (
    select(Change.version, Change.account, Change.kind, Change.after)
    .order_by(Change.version)
    .limit(CHUNK)
)


class Follower:
    """A snapshot and the catalog that it follows; any thread may refresh."""

    def __init__(self, catalog: Catalog) -> None:
        self.snapshot = Snapshot()
        self._engine = catalog.engine
        self._lock = threading.Lock()
        self._asked = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="catalog")
        self._away: CatalogUnavailable | None = None
        self._looking = asyncio.Lock()
        self._looked = 0.0
        self._attempts = Attempts()

    def refresh(self) -> int:
        """Take in what has changed; the version reached.

        Raises CatalogUnavailable when the database is away, or still owes somebody an answer: the
        snapshot stays as it was.
        """
        if not self._lock.acquire(timeout=self._patience_s):
            raise _away()
        try:
            self._asked = time.monotonic()
            while True:
                newer = self._read(self.snapshot.version)
                self.snapshot.apply(ChangeRecord._make(row) for row in newer)
                if len(newer) < CHUNK:
                    return self.snapshot.version
        except SQLAlchemyError as error:
            raise _away() from error
        finally:
            self._lock.release()

    async def catch_up(self) -> int:
        """`refresh` on a thread, and no longer than PATIENCE_S. Raises CatalogUnavailable.

        The thread does nothing else: whatever other threads wait for, the catalog is followed.
        """
        patience_s = self._patience_s
        if self._lock.locked() and not patience_s:
            raise _away()
        asking = asyncio.wrap_future(self._thread.submit(self.refresh))
        try:
            done, _ = await asyncio.wait([asking], timeout=patience_s or PATIENCE_S)
        except asyncio.CancelledError:
            await asyncio.wait([asking], timeout=PATIENCE_S)  # nobody closes the catalog under it
            raise
        if not done:
            asking.cancel()
            raise _away()
        return asking.result()

    @property
    def _patience_s(self) -> float:
        """How long whoever asks the database now may still take; 0: longer already."""
        return max(0.0, self._asked + PATIENCE_S - time.monotonic())

    def reach(self, version: int) -> Snapshot:
        """The snapshot, refreshed if it hasn't reached this version.

        Raises CatalogUnavailable when the catalog is away, or itself hasn't (a replica, a backup).
        """
        if self.snapshot.version < version and self.refresh() < version:
            raise CatalogUnavailable(
                f"The catalog is at version {self.snapshot.version}, before {version}",
                cure="is it an old copy?",
            )
        return self.snapshot

    async def follow(self, every_s: float = 1.0) -> None:
        """Refresh for ever; while the catalog is away the old snapshot goes on."""
        away = False
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.catch_up()
                away = False
            except CatalogUnavailable:
                if not away:
                    log.warning("catalog unavailable, going on with %d", self.snapshot.version)
                away = True

    async def authenticate(
        self, key: str | None, scope: Scope, now: datetime | None = None, *, peer: str = ""
    ) -> ApiKey:
        """The API key that a request shows, good for this scope at `now`; `peer` is its address.

        A key made a moment ago elsewhere is looked up in the catalog. Raises Unauthorized,
        RateExceeded when the peer has failed too often, PermissionDenied naming the scope,
        CatalogUnavailable when nobody can tell whether there is such a key.
        """
        found = None
        if key is not None and key.isascii():
            key_hash = keys.hash_of(key)
            found = self.snapshot.key(key_hash)
            if found is None and keys.well_formed(key):
                await self._look_for_new_keys()
                found = self.snapshot.key(key_hash)
        if found is None or not found.valid_at(now or datetime.now(UTC)):
            raise self._attempts.failed(peer)
        if scope not in found.scopes:
            raise PermissionDenied(
                f"The API key lacks the scope '{scope}'",
                cure="use a key that has it",
                details={"scope": scope, "scopes": sorted(found.scopes)},
            )
        return found

    async def _look_for_new_keys(self) -> None:
        """Refresh because of an unknown key; those that wait share one refresh, a few a second.

        Raises CatalogUnavailable.
        """
        asked = time.monotonic()
        async with self._looking:
            if self._looked <= asked:
                await asyncio.sleep(self._looked + UNKNOWN_KEY_REFRESH_S - time.monotonic())
                self._looked = time.monotonic()
                self._away = None
                try:
                    await self.catch_up()
                except CatalogUnavailable as error:
                    self._away = error
            if self._away is not None:
                raise _away("API keys that are not known yet can't be checked") from self._away

    def _read(self, version: int) -> "list[Row[tuple[int, str, str, str]]]":
        with self._engine.connect() as connection:
            return list(connection.execute(_newer.where(Change.version > version)))


def _away(what: str = "The catalog is unavailable") -> CatalogUnavailable:
    return CatalogUnavailable(what, cure="send the request again in a moment")
