"""One entity by its id, and a page of a list with how many there are in all."""

from collections.abc import Collection, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from catalog.tables import EntityTable
from schemas.catalog import Status
from schemas.errors import AlreadyExists, InvalidRequest, NotFound, pointer, shown
from schemas.requests import Page

Row = TypeVar("Row", bound=EntityTable)
Item = TypeVar("Item")
Columns = Mapping[str, InstrumentedAttribute[Any]]
"""Which column each field of a search is about."""


class Found(NamedTuple, Generic[Item]):
    """One page of what was found, and the total."""

    items: list[Item]
    total: int


def get(session: Session, row: type[Row], account: str, entity_id: str) -> Row:
    """The account's entity of this id, archived or not. Raises NotFound."""
    found = session.get(row, entity_id)
    if found is None or found.account != account:
        raise NotFound(f"{row.word} {shown(entity_id)} not found")
    return found


def assign(row: Any, wish: BaseModel, nullable: Collection[str]) -> None:
    """Take over what an update names; null empties what is nullable, and means nothing else."""
    for field in wish.model_fields_set:
        value = getattr(wish, field)
        if value is not None or field in nullable:
            setattr(row, "details" if field == "metadata" else field, value)


def look_up(session: Session, row: Any, account: str, lookup_key: str) -> Any:
    """The published entity with this lookup key, the newest of several. Raises NotFound."""
    query = select(row).where(
        row.account == account, row.lookup_key == lookup_key, row.status == Status.PUBLISHED
    )
    found = session.scalars(query.order_by(row.created_version.desc())).first()
    if found is None:
        raise NotFound(f"{row.word} with lookup_key {shown(lookup_key)} not found")
    return found


def find(
    session: Session,
    row: type[Row],
    account: str,
    page: Page,
    columns: Columns,
    *conditions: ColumnElement[bool],
) -> Found[Row]:
    """The page of an account's rows that meet every condition, newest first unless it says else.

    A field of the page in `columns` that is not None has to be its column's value, or a list with
    it in; `..._contains` a part of its text, whatever its case.
    """
    where = [row.account == account, *conditions]
    for field, column in columns.items():
        wanted = getattr(page, field)
        if isinstance(wanted, list):
            where.append(column.in_(wanted))
        elif field.endswith("_contains") and wanted is not None:
            where.append(func.lower(column).contains(wanted.lower(), autoescape=True))
        elif wanted is not None:
            where.append(column == wanted)
    if page.status != "all" and "status" in row.__mapper__.columns:
        where.append(row.__mapper__.columns["status"] == page.status)
    if page.start_time is not None:
        where.append(row.created_at >= page.start_time)
    if page.end_time is not None:
        where.append(row.created_at < page.end_time)
    total = session.scalar(select(func.count()).select_from(row).where(*where)) or 0
    query = select(row).where(*where).order_by(*_order(row, page))
    items = list(session.scalars(query.limit(page.limit).offset(page.offset)))
    return Found(items, total)


def check_is_free(session: Session, own: Any, **taken: object) -> None:
    """Raises AlreadyExists when another published row of its kind has all these values."""
    row = type(own)
    holder = session.scalars(
        select(row.id).where(
            row.account == own.account,
            row.status == Status.PUBLISHED,
            row.id != (own.id or ""),
            *(getattr(row, field) == value for field, value in taken.items()),
        )
    ).first()
    if holder is not None:
        said = " and ".join(f"{field} {shown(value)}" for field, value in taken.items())
        raise AlreadyExists(
            f"An active {row.word.lower()} with {said} already exists",
            cure=f"change that one, or archive it first: {holder}",
            details={"field": next(iter(taken)), f"{row.kind}_id": holder},
        )


def _order(row: type[EntityTable], page: Page) -> list[Any]:
    """The order asked for, made total by the version: no two entities share one."""
    columns: dict[str, Any] = {"created_at": row.created_version, "updated_at": row.version}
    columns |= {"name": row.name} if hasattr(row, "name") else {}
    asked = [(sort.field, sort.direction) for sort in page.sort]
    for index, (field, _) in enumerate(asked):
        if field not in columns:
            detail = f"there is no {field} to sort by here: use {', '.join(columns)}"
            raise InvalidRequest.at(pointer("sort", index, "field"), "unknown_value", detail)
    order = [(columns[field], way) for field, way in asked]
    order.append((row.created_version, page.order))
    return [column.asc() if way == "asc" else column.desc() for column, way in order]
