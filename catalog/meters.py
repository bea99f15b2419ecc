"""Meters: the rules of features. One made alone counts nothing until a feature takes it."""

from sqlalchemy.orm import Session

from catalog import listing
from catalog.database import Writing
from catalog.tables import MeterRow
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


def search(session: Session, account: str, page: MeterSearch) -> listing.Found[MeterRow]:
    """A page of an account's meters."""
    return listing.find(session, MeterRow, account, page, COLUMNS)
