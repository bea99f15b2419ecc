"""/v1/plans: what is offered."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import entitlements, plans, prices
from catalog.fixed import changeable
from catalog.listing import Found
from catalog.plan_tables import PlanRow
from console.calls import look, page_answer, query_as
from console.entities import Document, Entity
from console.entitlements import ENTITLEMENTS
from console.routing import Resource, reads
from schemas.documents import EntitlementDocument, Listed, PlanDocument
from schemas.offers import EntitlementSearch, NewPlan, PlanSearch, PlanUpdate
from schemas.requests import Slice


def _show(session: Session, rows: Sequence[PlanRow]) -> list[Document]:
    """Plans with their published prices and entitlements."""
    if not rows:
        return []
    account, ids = rows[0].account, [row.id for row in rows]
    belong: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for price in prices.published(session, account, ids):
        belong[price.plan_id, "prices"].append(price.document())
    for entitlement in entitlements.published(session, account, ids):
        belong[entitlement.plan_id, "entitlements"].append(entitlement.document())
    return [
        row.document() | {name: belong[row.id, name] for name in ("prices", "entitlements")}
        for row in rows
    ]


PLANS = Entity(
    path="/v1/plans",
    one="plan",
    row=PlanRow,
    gives=PlanDocument,
    page=PlanSearch,
    search=plans.search,
    new=NewPlan,
    create=plans.create,
    changed=PlanUpdate,
    changeable=partial(changeable, PlanUpdate, "use its own route, or create a new plan"),
    update=plans.update,
    archive=plans.archive,
    show=_show,
)


async def list_plan_entitlements(request: Request) -> Response:
    """GET /v1/plans/:id/entitlements: a page of what the plan gives for free. 404."""
    page = query_as(Slice, request)

    def find(session: Session, account: str) -> Found[Document]:
        plan = plans.get(session, account, request.path_params["id"])
        wish = EntitlementSearch(plan_ids=[plan.id], limit=page.limit, offset=page.offset)
        found = entitlements.search(session, account, wish)
        return Found(ENTITLEMENTS.show(session, found.items), found.total)

    return page_answer(await look(request, find), page)


def routes() -> list[BaseRoute]:
    """The routes of plans. Archiving one ends its sale; its subscriptions go on."""
    listed = reads(list_plan_entitlements, asks=Slice, gives=Listed[EntitlementDocument])
    return [*PLANS.routes(), Resource("/v1/plans/{id}/entitlements", GET=listed)]
