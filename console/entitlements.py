"""/v1/entitlements: how much of a feature a plan gives for free."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy.orm import Session
from starlette.routing import BaseRoute

from catalog import entitlements
from catalog.fixed import changeable
from catalog.plan_tables import EntitlementRow
from console.entities import Document, Entity
from schemas.documents import EntitlementDocument
from schemas.offers import EntitlementSearch, EntitlementUpdate, NewEntitlement


def _show(session: Session, rows: Sequence[EntitlementRow]) -> list[Document]:
    """Entitlements with their features."""
    return [row.document() | {"feature": row.feature.document()} for row in rows]


ENTITLEMENTS = Entity(
    path="/v1/entitlements",
    one="entitlement",
    row=EntitlementRow,
    gives=EntitlementDocument,
    page=EntitlementSearch,
    search=entitlements.search,
    new=NewEntitlement,
    create=entitlements.create,
    bulk=True,
    changed=EntitlementUpdate,
    changeable=partial(changeable, EntitlementUpdate, "archive it and create another"),
    update=entitlements.update,
    archive=entitlements.archive,
    show=_show,
)


def routes() -> list[BaseRoute]:
    """The routes of entitlements."""
    return ENTITLEMENTS.routes()
