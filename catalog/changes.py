"""What was changed, by whom and when."""

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.listing import Found
from catalog.tables import Change, moment
from schemas.requests import Slice

FIRST = Slice()


def history(
    session: Session,
    account: str,
    kind: str,
    entity_id: str,
    page: Slice = FIRST,
    hidden: Collection[str] = (),
) -> Found[dict[str, Any]]:
    """Changes of one entity, oldest first: version, at, actor, before, after without `hidden`."""
    where = (Change.account == account, Change.kind == kind, Change.entity_id == entity_id)
    total = session.scalar(select(func.count()).select_from(Change).where(*where)) or 0
    query = select(Change).where(*where).order_by(Change.version)

    def shown(text: str | None) -> dict[str, Any] | None:
        document = {} if text is None else msgspec.json.decode(text)
        return {k: v for k, v in document.items() if k not in hidden} if document else None

    items = [
        {
            "version": change.version,
            "at": moment(change.at),
            "actor": change.actor,
            "before": shown(change.before),
            "after": shown(change.after),
        }
        for change in session.scalars(query.limit(page.limit).offset(page.offset))
    ]
    return Found(items, total)
