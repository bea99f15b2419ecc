"""Meters: the rules of features. One made alone counts nothing until a feature takes it."""

from sqlalchemy.orm import Session
from ulid import ULID

from catalog import listing
from catalog.database import Writing
from catalog.tables import MeterRow
from schemas.catalog import Status
from schemas.errors import NotFound, shown
from schemas.features import MeterSearch, NewMeter


def create(writing: Writing, account: str, wish: NewMeter) -> MeterRow:
    """Make a meter on its own."""
    meter = build(writing, account, wish, name=wish.event_name)
    writing.session.add(meter)
    writing.record(account, meter, before=None)
    return meter


def build(writing: Writing, account: str, wish: NewMeter, name: str) -> MeterRow:
    """A meter that isn't stored yet; `name` is for one that has none."""
    rule = wish.aggregation
    return MeterRow(
        id=f"meter_{ULID()}",
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
        created_at=writing.at,
        updated_at=writing.at,
        created_version=writing.next_version(),
        version=writing.next_version(),
    )


def get(session: Session, account: str, meter_id: str) -> MeterRow:
    """The meter of this id. Raises NotFound."""
    meter = session.get(MeterRow, meter_id)
    if meter is None or meter.account != account:
        raise NotFound(f"Meter {shown(meter_id)} not found")
    return meter


def search(session: Session, account: str, page: MeterSearch) -> listing.Found[MeterRow]:
    """A page of an account's meters."""
    where = listing.with_status(MeterRow, page)
    if page.meter_ids is not None:
        where.append(MeterRow.id.in_(page.meter_ids))
    if page.event_name is not None:
        where.append(MeterRow.event_name == page.event_name)
    return listing.find(session, MeterRow, account, page, *where)
