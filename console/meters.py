"""/v1/meters: the rules of features, which clients may make first and name by id."""

from starlette.routing import BaseRoute

from catalog import meters
from catalog.tables import MeterRow
from console.entities import Entity
from schemas.documents import MeterDocument
from schemas.features import MeterSearch, NewMeter

METERS = Entity(
    path="/v1/meters",
    one="meter",
    row=MeterRow,
    gives=MeterDocument,
    page=MeterSearch,
    search=meters.search,
    new=NewMeter,
    create=meters.create,
    history=meters.history,
)


def routes() -> list[BaseRoute]:
    """The routes of meters; one counts once a feature has it, and changes through that feature."""
    return METERS.routes()
