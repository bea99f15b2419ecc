"""Plans: what is offered. Archiving one ends its sale; its subscriptions go on."""

from sqlalchemy.orm import Session

from catalog import listing
from catalog.database import Writing
from catalog.plan_tables import PlanRow
from schemas.catalog import Status
from schemas.errors import InvalidRequest, shown
from schemas.offers import NewPlan, PlanSearch, PlanUpdate

COLUMNS = {
    "plan_ids": PlanRow.id,
    "lookup_key": PlanRow.lookup_key,
    "lookup_keys": PlanRow.lookup_key,
    "name_contains": PlanRow.name,
}


def create(writing: Writing, account: str, wish: NewPlan) -> PlanRow:
    """Make one. Raises AlreadyExists when an active plan has its lookup key."""
    plan = PlanRow(
        account=account,
        name=wish.name,
        lookup_key=wish.lookup_key,
        description=wish.description,
        display_order=wish.display_order,
        details=wish.metadata,
        status=Status.PUBLISHED,
    )
    _check(writing.session, plan)
    return writing.create(plan)


def get(session: Session, account: str, plan_id: str) -> PlanRow:
    """The plan of this id, archived or not. Raises NotFound."""
    return listing.get(session, PlanRow, account, plan_id)


def get_published(session: Session, account: str, plan_id: str, place: str) -> PlanRow:
    """The plan of this id, for something new. Raises NotFound, InvalidRequest when archived."""
    plan = get(session, account, plan_id)
    if plan.status is Status.ARCHIVED:
        detail = f'Plan {shown(plan.id)} is archived: PUT it with {{"status": "published"}} first'
        raise InvalidRequest.at(place, "archived", detail)
    return plan


def search(session: Session, account: str, page: PlanSearch) -> listing.Found[PlanRow]:
    """A page of an account's plans."""
    return listing.find(session, PlanRow, account, page, COLUMNS)


def update(writing: Writing, account: str, plan_id: str, wish: PlanUpdate) -> PlanRow:
    """Change what the request names; the rest stays.

    Raises NotFound, AlreadyExists when an active plan has its lookup key.
    """
    plan = get(writing.session, account, plan_id)
    before = plan.document()
    listing.assign(plan, wish, nullable={"lookup_key", "display_order"})
    with writing.session.no_autoflush:
        _check(writing.session, plan)
    return writing.update(plan, before)


def archive(writing: Writing, account: str, plan_id: str) -> PlanRow:
    """End its sale; once more changes nothing. Raises NotFound."""
    return update(writing, account, plan_id, PlanUpdate(status=Status.ARCHIVED))


def _check(session: Session, plan: PlanRow) -> None:
    if plan.status is Status.PUBLISHED and plan.lookup_key is not None:
        listing.check_is_free(session, plan, lookup_key=plan.lookup_key)
