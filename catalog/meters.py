"""Meters: the rules of features. One made alone counts nothing until a feature takes it."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog import changes, listing
from catalog.database import Writing
from catalog.tables import FeatureRow, MeterRow
from schemas.catalog import Status
from schemas.features import MeterSearch, NewMeter

COLUMNS = {"meter_ids": MeterRow.id, "event_name": MeterRow.event_name}


def create(writing: Writing, account: str, wish: NewMeter) -> MeterRow:
    """Make a meter on its own."""
    return writing.create(build(account, wish, name=wish.event_name))


def build(account: str, wish: NewMeter, name: str) -> MeterRow:
    """A meter that isn't stored yet; `name` is for one that has none."""
    rule = wish.aggregation
    return MeterRow(
        account=account,
        name=wish.name or name,
        event_name=wish.event_name,
        aggregation=rule.type,
        field=rule.field,
        multiplier=rule.multiplier,
        bucket_size=rule.bucket_size,
        group_by=rule.group_by,
        filters=[filter.model_dump() for filter in wish.filters],
        reset_usage=wish.reset_usage,
        status=Status.PUBLISHED,
    )


def get(session: Session, account: str, meter_id: str) -> MeterRow:
    """The meter of this id. Raises NotFound."""
    return listing.get(session, MeterRow, account, meter_id)


def history(session: Session, account: str, meter_id: str) -> list[dict[str, Any]]:
    """Every change of a meter, oldest first: those of its feature that are about it as well."""
    found = changes.everything(session, account, MeterRow.kind, meter_id)
    owner = session.scalars(select(FeatureRow.id).where(FeatureRow.meter_id == meter_id)).first()
    if owner is not None:
        for change in changes.everything(session, account, FeatureRow.kind, owner):
            before = None if change["before"] is None else change["before"]["meter"]
            after = change["after"]["meter"]
            if not found or found[-1]["after"] != after:
                found.append(change | {"before": before, "after": after})
    return found


def search(session: Session, account: str, page: MeterSearch) -> listing.Found[MeterRow]:
    """A page of an account's meters."""
    return listing.find(session, MeterRow, account, page, COLUMNS)
