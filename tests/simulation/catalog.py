"""The catalog: features by event name, each from a version on, and a follower of it."""

from dataclasses import dataclass, field

from catalog.database import CatalogUnavailable
from schemas.catalog import Feature
from tests.simulation.fibers import effect
from tests.stream_workers.worlds import make_feature


@dataclass
class Catalog:
    """What versions there are, and since which one a feature is there.

    `was_away`: a packer may have gone on with an older version.
    """

    version: int = 1
    since: dict[str, int] = field(default_factory=dict)
    was_away: bool = False

    def create(self, event_name: str) -> None:
        """One more feature, which sums the property `v`."""
        self.version += 1
        self.since[event_name] = self.version

    def knows(self, event_name: str, version: int) -> bool:
        """Whether a feature had the name at a version."""
        return version >= self.since.get(event_name, version + 1)


@dataclass
class Snapshot:
    """The catalog as a process knows it."""

    catalog: Catalog
    version: int = 0

    def feature_at(self, account: str, event_name: str, version: int) -> Feature | None:
        if not self.catalog.knows(event_name, min(version, self.version)):
            return None
        return make_feature("SUM", "v", event_name=event_name)

    def customer_status(self, account: str, external_id: str, version: int) -> str:
        return "active"

    def external_id_of(self, account: str, customer_id: str) -> str | None:
        return None


class Follower:
    """Follows the catalog when it is told to."""

    def __init__(self, catalog: Catalog) -> None:
        self.snapshot = Snapshot(catalog)

    def refresh(self) -> int:
        if effect("catalog") is not None:
            self.snapshot.catalog.was_away = True
            raise CatalogUnavailable("away", cure="wait")
        self.snapshot.version = self.snapshot.catalog.version
        return self.snapshot.version

    async def catch_up(self) -> int:
        return self.refresh()

    def reach(self, version: int) -> Snapshot:
        if self.snapshot.version < version:
            self.refresh()
        return self.snapshot
