"""Features: what is metered and sold. What decides counting is fixed, and archiving deletes."""

from collections.abc import Collection

from pydantic_core import PydanticCustomError
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from catalog import listing, meters
from catalog.database import Writing
from catalog.tables import FeatureRow, MeterRow
from schemas.catalog import Status
from schemas.errors import AlreadyExists, InvalidRequest, NotFound, shown
from schemas.features import FeatureSearch, FeatureUpdate, NewFeature, check_bucket_resets

COLUMNS = {
    "feature_ids": FeatureRow.id,
    "meter_ids": FeatureRow.meter_id,
    "lookup_key": FeatureRow.lookup_key,
    "lookup_keys": FeatureRow.lookup_key,
    "event_name": FeatureRow.event_name,
    "name_contains": FeatureRow.name,
}


def create(writing: Writing, account: str, wish: NewFeature) -> FeatureRow:
    """Make a feature with its meter.

    Raises AlreadyExists when an active feature has its event name or lookup key, or a feature its
    meter; InvalidRequest when the meter it names isn't there.
    """
    meter = _meter_for(writing, account, wish)
    feature = FeatureRow(
        account=account,
        meter_id=meter.id,
        meter=meter,
        event_name=meter.event_name,
        name=wish.name,
        lookup_key=wish.lookup_key,
        description=wish.description,
        unit_singular=wish.unit_singular,
        unit_plural=wish.unit_plural,
        details=wish.metadata,
        status=Status.PUBLISHED,
    )
    _check_names_are_free(writing.session, feature)
    return writing.create(feature)


def get(session: Session, account: str, feature_id: str) -> FeatureRow:
    """The feature of this id, archived or not. Raises NotFound."""
    return listing.get(session, FeatureRow, account, feature_id)


def get_published(session: Session, account: str, feature_id: str, place: str) -> FeatureRow:
    """The feature of this id, for something new. Raises NotFound, InvalidRequest when archived."""
    feature = get(session, account, feature_id)
    if feature.status is Status.ARCHIVED:
        detail = f"Feature {shown(feature.id)} is archived: publish it first, or choose another"
        raise InvalidRequest.at(place, "archived", detail)
    return feature


def of_meter(session: Session, account: str, meter_id: str, place: str) -> FeatureRow:
    """The published feature that has a meter.

    Raises NotFound; InvalidRequest where no feature has the meter, or where it is archived.
    """
    meter = meters.get(session, account, meter_id)
    feature_id = session.scalars(ids_of_meters([meter.id])).one_or_none()
    if feature_id is None:
        detail = f"Meter {shown(meter_id)} has no feature: create one with it first"
        raise InvalidRequest.at(place, "no_feature", detail)
    return get_published(session, account, feature_id, place)


def ids_of_meters(meter_ids: Collection[str]) -> Select[str]:
    """The query for the ids of the features that have these meters."""
    return select(FeatureRow.id).where(FeatureRow.meter_id.in_(meter_ids))


def search(session: Session, account: str, page: FeatureSearch) -> listing.Found[FeatureRow]:
    """A page of an account's features."""
    return listing.find(session, FeatureRow, account, page, COLUMNS)


def update(writing: Writing, account: str, feature_id: str, wish: FeatureUpdate) -> FeatureRow:
    """Change what the request names; the rest stays.

    Raises NotFound; AlreadyExists when it would be active beside another of its event name or
    lookup key; InvalidRequest when a bucketed MAX would keep its level.
    """
    feature = get(writing.session, account, feature_id)
    before = feature.document()
    named = wish.model_fields_set
    if wish.name is not None:
        feature.name = wish.name
    if wish.description is not None:
        feature.description = wish.description
    if wish.metadata is not None:
        feature.details = wish.metadata
    for field in ("lookup_key", "unit_singular", "unit_plural"):
        if field in named:
            setattr(feature, field, getattr(wish, field))
    _update_meter(feature.meter, wish)
    if wish.status is not None:
        feature.status = feature.meter.status = wish.status
    if feature.document() == before:
        return feature
    with writing.session.no_autoflush:
        if feature.status is Status.PUBLISHED:
            _check_names_are_free(writing.session, feature)
    if feature.meter.document() != before["meter"]:
        feature.meter.updated_at = writing.at
        feature.meter.version = writing.next_version()
    return writing.update(feature, before)


def archive(writing: Writing, account: str, feature_id: str) -> FeatureRow:
    """Archive a feature: its events stay, new ones don't count. Once more changes nothing."""
    return update(writing, account, feature_id, FeatureUpdate(status=Status.ARCHIVED))


def _meter_for(writing: Writing, account: str, wish: NewFeature) -> MeterRow:
    """The meter that a new feature embeds, or names by its id."""
    if wish.meter is not None:
        meter = meters.build(account, wish.meter, name=wish.name)
        writing.stamp(meter)
        return meter
    try:
        meter = meters.get(writing.session, account, wish.meter_id or "")
    except NotFound as error:
        detail = f"{error.error}: create it, or send the meter itself as `meter`"
        raise InvalidRequest.at("/meter_id", "not_found", detail) from None
    taken = select(FeatureRow).where(FeatureRow.meter_id == meter.id)
    owner = writing.session.scalars(taken).one_or_none()
    if owner is not None:
        raise AlreadyExists(
            f"Meter {shown(meter.id)} belongs to feature {shown(owner.id)}",
            cure="a meter has one feature: create another meter",
            details={"feature_id": owner.id},
        )
    return meter


def _update_meter(meter: MeterRow, wish: FeatureUpdate) -> None:
    if wish.meter is None:
        return
    if wish.meter.name is not None:
        meter.name = wish.meter.name
    if wish.meter.reset_usage is not None:
        try:
            check_bucket_resets(meter.bucket_size, wish.meter.reset_usage)
        except PydanticCustomError as error:
            raise InvalidRequest.at("/meter/reset_usage", error.type, error.message()) from None
        meter.reset_usage = wish.meter.reset_usage


def _check_names_are_free(session: Session, feature: FeatureRow) -> None:
    """Raises AlreadyExists when another active feature has the event name or the lookup key."""
    for field in ("event_name", "lookup_key"):
        name = getattr(feature, field)
        if name is not None:
            listing.check_is_free(session, feature, **{field: name})
