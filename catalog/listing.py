"""A page of a list, and how many there are in all."""

from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from catalog.tables import ApiKeyRow, CustomerRow, FeatureRow, MeterRow
from schemas.requests import Page

Row = TypeVar("Row", ApiKeyRow, CustomerRow, FeatureRow, MeterRow)


class Found(NamedTuple, Generic[Row]):
    """One page of what was found, and the total."""

    items: list[Row]
    total: int


def find(
    session: Session, row: type[Row], account: str, page: Page, *conditions: ColumnElement[bool]
) -> Found[Row]:
    """The page of an account's rows that meet every condition, newest first unless it says else."""
    where = [row.account == account, *conditions]
    if page.start_time is not None:
        where.append(row.created_at >= page.start_time)
    if page.end_time is not None:
        where.append(row.created_at < page.end_time)
    total = session.scalar(select(func.count()).select_from(row).where(*where)) or 0
    query = select(row).where(*where).order_by(*_order(row, page))
    items = list(session.scalars(query.limit(page.limit).offset(page.offset)))
    return Found(items, total)


def with_status(row: type[FeatureRow | CustomerRow | MeterRow], page: Page) -> list[Any]:
    """The condition that a page's status is; none for "all"."""
    return [] if page.status == "all" else [row.status == page.status]


def contains(column: Any, text: str) -> ColumnElement[bool]:
    """Whether a column holds this text somewhere, whatever its case."""
    return func.lower(column).contains(text.lower(), autoescape=True)


def _order(row: type[Row], page: Page) -> list[Any]:
    """The order asked for, made total by the version: no two entities share one."""
    columns = {"created_at": row.created_version, "updated_at": row.version, "name": row.name}
    asked = [(columns[sort.field], sort.direction) for sort in page.sort]
    asked.append((row.created_version, page.order))
    return [column.asc() if way == "asc" else column.desc() for column, way in asked]
