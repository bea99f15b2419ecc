"""/v1/prices: what plans ask for the usage of features."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy.orm import Session
from starlette.routing import BaseRoute

from catalog import prices
from catalog.fixed import changeable
from catalog.plan_tables import PriceRow
from console.entities import Document, Entity
from schemas.documents import PriceDocument
from schemas.offers import NewPrice, PriceEnd, PriceSearch, PriceUpdate


def _show(session: Session, rows: Sequence[PriceRow]) -> list[Document]:
    """Prices with the meters that they are about."""
    return [row.document() | {"meter": row.feature.meter.document()} for row in rows]


PRICES = Entity(
    path="/v1/prices",
    one="price",
    row=PriceRow,
    gives=PriceDocument,
    page=PriceSearch,
    search=prices.search,
    new=NewPrice,
    create=prices.create,
    bulk=True,
    changed=PriceUpdate,
    changeable=partial(changeable, PriceUpdate, "archive the price and create another"),
    update=prices.update,
    archive=prices.archive,
    ends=PriceEnd,
    show=_show,
)


def routes() -> list[BaseRoute]:
    """The routes of prices."""
    return PRICES.routes()
