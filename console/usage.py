"""/v1/events/usage: how much of an event name or a feature was used, for any range of time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.aggregation import Quantity, plain
from billing.usage import Amount, Labels, Usage
from billing.windows import Span, to_datetime
from catalog import features
from catalog.follower import Follower
from console.calls import body_as, json_answer, look
from console.ranges import asked
from console.routing import Resource, caller, reads
from console.store import Store
from schemas.catalog import Feature, Reset, Status
from schemas.errors import InvalidRequest, NotFound, shown
from schemas.features import FeatureSearch
from schemas.usage import (
    PROPERTY_PREFIX,
    SOURCE,
    FilteredRange,
    MeterUsageRequest,
    UsageDocument,
    UsageRequest,
)

GROUPS_MAX = 1000
T = TypeVar("T")
_AD_HOC = ""


async def get_usage(request: Request) -> Response:
    """POST /v1/events/usage: a name's events that are no duplicates, by the request's definition.

    Raises InvalidRequest (400), NotFound (404), ServiceUnavailable (503).
    """
    wish = await body_as(UsageRequest, request)
    wanted = Feature(
        id=_AD_HOC,
        meter_id=_AD_HOC,
        account=caller(request).account,
        event_name=wish.event_name,
        aggregation=wish.aggregation_type,
        field=wish.property_name if wish.aggregation_type != "COUNT" else None,
        multiplier=wish.multiplier,
        bucket_size=wish.bucket_size,
        group_by=wish.bucket_group,
        filters=wish.conditions,
        reset_usage=Reset.BILLING_PERIOD,
        status=Status.PUBLISHED,
        created_version=0,
        version=0,
    )
    known = await look(request, _features_of_name, request.state.follower, wish.event_name)
    if len(known) == 1 and known[0].active and _definition(known[0]) == _definition(wanted):
        wanted = msgspec.structs.replace(known[0], reset_usage=Reset.BILLING_PERIOD)
    group_by = wish.dimensions if wish.bucket_size is None else []
    return await _answer(request, wish, wanted, group_by, narrow=False)


async def get_meter_usage(request: Request) -> Response:
    """POST /v1/events/usage/meter: a feature's usage, by its filters and the request's, and reset.

    Raises InvalidRequest (400), NotFound (404), ServiceUnavailable (503).
    """
    wish = await body_as(MeterUsageRequest, request)
    feature = await look(request, _feature_of_meter, request.state.follower, wish.meter_id)
    if wish.bucket_size not in (None, feature.bucket_size):
        detail = "bucket_size is fixed by the meter: leave it out"
        raise InvalidRequest.at("/bucket_size", "not_allowed", detail)
    return await _answer(request, wish, feature, wish.group_by, narrow=True)


async def _answer(
    request: Request,
    wish: FilteredRange,
    feature: Feature,
    group_by: Sequence[str],
    *,
    narrow: bool,
) -> Response:
    """Read the usage on a thread and lay it out; `narrow` by the request's filters."""
    it = await asked(request, wish)
    conditions = wish.conditions if narrow else ()
    usage = Usage(feature, it.customer, it.zone, conditions)
    grouped = replace(usage, group_by=tuple(group_by))
    store: Store = request.state.store

    def read() -> tuple[list[Amount], dict[Labels, list[Amount]]]:
        with store.reading() as client:
            whole = usage.over(client, it.ranges)
            return whole, grouped.groups(client, it.ranges) if group_by else {}

    whole, groups = await asyncio.to_thread(read)
    check_group_count(len(groups))
    about = {"event_name": feature.event_name, "type": feature.aggregation}
    answer = about | _laid_out(whole, it.spans)
    if group_by:
        answer["groups"] = [
            labelled(group_by, labels) | _laid_out(amounts, it.spans)
            for labels, amounts in in_order(groups)
        ]
    return json_answer(answer)


def check_group_count(count: int) -> None:
    """Raises InvalidRequest for more groups than anyone reads."""
    if count > GROUPS_MAX:
        detail = f"more than {GROUPS_MAX} groups: group by less, or filter"
        raise InvalidRequest.at("/group_by", "out_of_range", detail)


def labelled(group_by: Sequence[str], labels: Labels) -> dict[str, Any]:
    """What a group has in common as JSON: its source, and the properties that it has."""
    found = dict(zip(group_by, labels, strict=True))
    shown = {SOURCE: found[SOURCE]} if SOURCE in found else {}
    properties = {
        name.removeprefix(PROPERTY_PREFIX): label
        for name, label in found.items()
        if name != SOURCE and label is not None
    }
    return shown | ({"properties": properties} if set(group_by) - {SOURCE} else {})


def in_order(groups: Mapping[Labels, T]) -> list[tuple[Labels, T]]:
    """Groups by their labels; those that lack something come after those that have it."""
    return sorted(
        groups.items(), key=lambda group: [(each is None, each or "") for each in group[0]]
    )


def _laid_out(amounts: Sequence[Amount], spans: Sequence[Span]) -> dict[str, Any]:
    """The whole of a range, and each of its windows."""
    whole, *parts = amounts
    results = [
        {"window_size": to_datetime(span.label), **_shown(part.quantity)}
        for span, part in zip(spans, parts, strict=True)
    ]
    return _shown(whole.quantity) | {"results": results}


def _shown(quantity: Quantity) -> dict[str, Any]:
    """A quantity as JSON: a number with all its digits, or null; a text beside it."""
    value = quantity.shown
    shown: dict[str, Any] = {"value": None if value is None else msgspec.Raw(plain(value).encode())}
    return shown if quantity.text is None else shown | {"text": quantity.text}


def _definition(feature: Feature) -> tuple[object, ...]:
    """What makes two features of one name count alike."""
    return (
        feature.aggregation,
        feature.field,
        feature.multiplier,
        feature.bucket_size,
        feature.group_by,
        frozenset(feature.filters),
    )


def _features_of_name(
    session: Session, account: str, follower: Follower, event_name: str
) -> list[Feature]:
    """Every feature that ever had an event name, archived ones included."""
    return _features(session, account, follower, FeatureSearch(event_name=event_name, status="all"))


def _feature_of_meter(session: Session, account: str, follower: Follower, meter_id: str) -> Feature:
    """The feature of a meter, or of its own id, archived or not. Raises NotFound."""
    for page in (
        FeatureSearch(meter_ids=[meter_id], status="all"),
        FeatureSearch(feature_ids=[meter_id], status="all"),
    ):
        found = _features(session, account, follower, page)
        if found:
            return found[0]
    raise NotFound(
        f"Meter {shown(meter_id)} not found", cure="send the id of a feature, or of its meter"
    )


def _features(
    session: Session, account: str, follower: Follower, page: FeatureSearch
) -> list[Feature]:
    rows = features.search(session, account, page).items
    if not rows:
        return []
    snapshot = follower.reach(max(row.version for row in rows))
    found = (snapshot.feature(row.id) for row in rows)
    return [feature for feature in found if feature is not None]


def routes() -> list[BaseRoute]:
    """The routes of usage."""
    return [
        Resource(
            "/v1/events/usage", POST=reads(get_usage, takes=UsageRequest, gives=UsageDocument)
        ),
        Resource(
            "/v1/events/usage/meter",
            POST=reads(get_meter_usage, takes=MeterUsageRequest, gives=UsageDocument),
        ),
    ]
