"""Requests about features and meters. What decides counting is fixed once it is made."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from schemas.catalog import Aggregation, Reset, Status, Window
from schemas.decimals import Multiplier
from schemas.requests import (
    METADATA_VALUE_LENGTH_MAX,
    Description,
    Ids,
    Metadata,
    Name,
    OptionalName,
    Page,
    Request,
    absent_if_empty,
    absent_list,
    fault,
    without_nul,
)

FILTERS_MAX = 20
FILTER_VALUES_MAX = 1000


class MeterAggregation(Request):
    """How values are taken and combined; fixed at creation."""

    type: Aggregation
    field: OptionalName = None
    multiplier: Annotated[Multiplier | None, BeforeValidator(absent_if_empty)] = None
    bucket_size: Annotated[Window | None, BeforeValidator(absent_if_empty)] = None
    group_by: OptionalName = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.type is Aggregation.COUNT and self.field is not None:
            raise fault("field", "not_allowed", "COUNT counts events: leave field out")
        if self.type is not Aggregation.COUNT and self.field is None:
            raise fault(
                "field", "missing", f"{self.type} needs the name of the property that it reads"
            )
        if self.type is Aggregation.SUM_WITH_MULTIPLIER and self.multiplier is None:
            raise fault("multiplier", "missing", f"{self.type} needs a multiplier above zero")
        if self.type is not Aggregation.SUM_WITH_MULTIPLIER and self.multiplier is not None:
            raise fault(
                "multiplier",
                "not_allowed",
                f"{self.type} takes no multiplier: leave it out, or use SUM_WITH_MULTIPLIER",
            )
        if self.bucket_size is not None and self.type is not Aggregation.MAX:
            raise fault(
                "bucket_size", "not_allowed", f"{self.type} takes no bucket_size: only MAX does"
            )
        if self.group_by is not None and self.bucket_size is None:
            raise fault(
                "group_by", "not_allowed", "group_by needs MAX with a bucket_size: leave it out"
            )
        return self


class MeterFilter(Request):
    """One condition: the property's canonical text is one of the values."""

    key: Name
    values: Annotated[
        list[
            Annotated[
                str,
                StringConstraints(min_length=1, max_length=METADATA_VALUE_LENGTH_MAX),
                AfterValidator(without_nul),
            ]
        ],
        Field(min_length=1, max_length=FILTER_VALUES_MAX),
    ]


def _distinct_keys(filters: list[MeterFilter]) -> list[MeterFilter]:
    keys = [filter.key for filter in filters]
    if len(set(keys)) < len(keys):
        raise PydanticCustomError(
            "duplicate_key", "names a key twice: put all its values into one filter"
        )
    return filters


MeterFilters = Annotated[
    list[MeterFilter], Field(max_length=FILTERS_MAX), AfterValidator(_distinct_keys)
]


class NewMeter(Request):
    """The rule of a feature: which events it takes and what it makes of them.

    name         For people; the feature's, or the event's, when absent.
    event_name   Which events it takes, exactly: case-sensitive and fixed at creation.
    reset_usage  The one setting here that can change later.
    """

    name: OptionalName = None
    event_name: Name
    aggregation: MeterAggregation
    filters: Annotated[MeterFilters, BeforeValidator(absent_list)] = Field(default_factory=list)
    reset_usage: Reset = Reset.BILLING_PERIOD

    @model_validator(mode="after")
    def _buckets_reset(self) -> Self:
        check_bucket_resets(self.aggregation.bucket_size, self.reset_usage)
        return self


def check_bucket_resets(bucket_size: str | None, reset_usage: Reset) -> None:
    """A bucketed MAX starts anew in each period. Raises PydanticCustomError where it would not."""
    if bucket_size is not None and reset_usage is Reset.NEVER:
        raise fault(
            "reset_usage",
            "not_allowed",
            "a bucketed MAX can't keep its level: use BILLING_PERIOD, or leave bucket_size out",
        )


class NewFeature(Request):
    """POST /v1/features: what is metered and sold, with its meter or the id of one."""

    name: Name
    type: Literal["metered"] = "metered"
    lookup_key: OptionalName = None
    description: Description = ""
    unit_singular: OptionalName = None
    unit_plural: OptionalName = None
    metadata: Metadata = Field(default_factory=dict)
    meter: NewMeter | None = None
    meter_id: OptionalName = None

    @model_validator(mode="after")
    def _has_one_meter(self) -> Self:
        if (self.meter is None) == (self.meter_id is None):
            raise fault(
                "meter",
                "missing" if self.meter is None else "not_allowed",
                "a feature needs either a meter or a meter_id",
            )
        return self


class MeterUpdate(Request):
    """The part of a meter that can change."""

    name: Name | None = None
    reset_usage: Reset | None = None


class FeatureUpdate(Request):
    """PUT /v1/features/:id: what can change; a field left out stays as it is."""

    name: Name | None = None
    lookup_key: OptionalName = None
    description: Description | None = None
    unit_singular: OptionalName = None
    unit_plural: OptionalName = None
    metadata: Metadata | None = None
    status: Status | None = None
    meter: MeterUpdate | None = None


class FeatureSearch(Page):
    """GET /v1/features, POST /v1/features/search."""

    feature_ids: Ids | None = None
    meter_ids: Ids | None = None
    lookup_key: OptionalName = None
    lookup_keys: Ids | None = None
    event_name: OptionalName = None
    name_contains: OptionalName = None


class MeterSearch(Page):
    """GET /v1/meters."""

    meter_ids: Ids | None = None
    event_name: OptionalName = None
