"""What was changed, by whom and when."""

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.tables import Change, moment


def everything(session: Session, account: str, kind: str, entity_id: str) -> list[dict[str, Any]]:
    """Every change of one entity, oldest first: version, at, actor, before, after."""
    query = select(Change).where(
        Change.account == account, Change.kind == kind, Change.entity_id == entity_id
    )
    return [
        {
            "version": change.version,
            "at": moment(change.at),
            "actor": change.actor,
            "before": None if change.before is None else msgspec.json.decode(change.before),
            "after": msgspec.json.decode(change.after),
        }
        for change in session.scalars(query.order_by(Change.version))
    ]
