"""What can't change: a PUT may repeat it, as clients do that send back what they read."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from schemas.currency import Currency
from schemas.decimals import read_decimal
from schemas.errors import Fault, InvalidRequest, pointer
from schemas.features import FeatureUpdate, MeterAggregation, MeterFilter, MeterUpdate
from schemas.offers import NewTier, TransformQuantity
from schemas.requests import Moment

CURE = "create a new feature"
STAMPS = {"created_at", "updated_at"}
_filters = TypeAdapter(list[MeterFilter])
_tiers_read = TypeAdapter(list[NewTier])
_moment: TypeAdapter[Any] = TypeAdapter(Moment)


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


def changeable(
    model: type[BaseModel], cure: str, body: object, current: Mapping[str, Any]
) -> object:
    """The same for an entity whose fields beside those of `model` are fixed."""
    if not isinstance(body, dict):
        return body
    rest, faults = _split(body, current, model.model_fields, (), cure)
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
    if key not in _READERS or value is None or current is None:
        return value == current
    try:
        return bool(_READERS[key](value) == _READERS[key](current))
    except (ValidationError, PydanticCustomError):
        return False


def _conditions(filters: object) -> dict[str, frozenset[str]]:
    given = _filters.validate_python([] if filters is None else filters)
    return {filter.key: frozenset(filter.values) for filter in given}


def _tiers(tiers: object) -> list[tuple[object, ...]]:
    given = _tiers_read.validate_python(tiers)
    return [(tier.up_to, tier.unit_amount, tier.flat_amount or 0) for tier in given]


_READERS: Mapping[str, Callable[[Any], object]] = {
    "aggregation": MeterAggregation.model_validate,
    "filters": _conditions,
    "amount": read_decimal,
    "tiers": _tiers,
    "transform_quantity": TransformQuantity.model_validate,
    "currency": TypeAdapter(Currency).validate_python,
    "billing_anchor": _moment.validate_python,
    "start_date": _moment.validate_python,
    "end_date": _moment.validate_python,
}
"""How a field is read before it is compared, where two texts may say the same."""
