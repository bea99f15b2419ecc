"""What can't change: a PUT may repeat it, as clients do that send back what they read."""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.customers import CustomerUpdate
from schemas.errors import Fault, InvalidRequest, pointer
from schemas.features import FeatureUpdate, MeterAggregation, MeterFilter, MeterUpdate

CURE = "create a new feature"
STAMPS = {"created_at", "updated_at"}
_filters = TypeAdapter(list[MeterFilter])


def feature_update(body: object, current: Mapping[str, Any]) -> object:
    """The changeable part of a PUT's body; `current` is the feature as it stands.

    Raises InvalidRequest where the body would change what is fixed.
    """
    if not isinstance(body, dict):
        return body
    meter = current["meter"]
    flat = {**current, **{key: meter[key] for key in ("event_name", "aggregation", "filters")}}
    rest, faults = _split(body, flat, FeatureUpdate.model_fields, ())
    if isinstance(rest.get("meter"), dict):
        rest["meter"], more = _split(rest["meter"], meter, MeterUpdate.model_fields, ("meter",))
        faults += more
    if faults:
        raise InvalidRequest.of(faults)
    return rest


def customer_update(body: object, current: Mapping[str, Any]) -> object:
    """The same for a customer: its external id is fixed."""
    if not isinstance(body, dict):
        return body
    rest, faults = _split(body, current, CustomerUpdate.model_fields, (), "create a new customer")
    if faults:
        raise InvalidRequest.of(faults)
    return rest


def _split(
    body: Mapping[str, Any],
    current: Mapping[str, Any],
    changeable: Collection[str],
    place: tuple[str, ...],
    cure: str = CURE,
) -> tuple[dict[str, Any], list[Fault]]:
    """The body without what only repeats the current state, and a fault where it differs."""
    rest: dict[str, Any] = {}
    faults: list[Fault] = []
    for key, value in body.items():
        if key in changeable or key not in current:
            rest[key] = value
        elif key not in STAMPS and not _same(key, value, current[key]):
            detail = f"{key} cannot be changed after creation: {cure}"
            faults.append(Fault(pointer(*place, key), "immutable", detail))
    return rest, faults


def _same(key: str, value: object, current: object) -> bool:
    """Whether both say the same: 2 and "2.0" are one multiplier, filters have no order."""
    try:
        if key == "aggregation":
            return MeterAggregation.model_validate(value) == MeterAggregation.model_validate(
                current
            )
        if key == "filters":
            return _conditions(value) == _conditions(current)
    except ValidationError:
        return False
    return value == current


def _conditions(filters: object) -> dict[str, frozenset[str]]:
    given = _filters.validate_python([] if filters is None else filters)
    return {filter.key: frozenset(filter.values) for filter in given}
