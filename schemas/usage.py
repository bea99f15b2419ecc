"""What people ask about usage: how much of an event name or a meter, for whom, when."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from schemas.catalog import Aggregation, Window
from schemas.decimals import Multiplier
from schemas.features import FILTER_VALUES_MAX, FILTERS_MAX
from schemas.requests import (
    METADATA_VALUE_LENGTH_MAX,
    Moment,
    Name,
    OptionalName,
    OptionalTimezone,
    Request,
    absent_if_empty,
    fault,
)

PROPERTY_PREFIX = "properties."


def _absent_if_none(value: object) -> object:
    return {} if value is None else value


OptionalMoment = Annotated[Moment | None, BeforeValidator(absent_if_empty)]
OptionalWindow = Annotated[Window | None, BeforeValidator(absent_if_empty)]
FilterValue = Annotated[str, StringConstraints(min_length=1, max_length=METADATA_VALUE_LENGTH_MAX)]
FilterValues = Annotated[list[FilterValue], Field(min_length=1, max_length=FILTER_VALUES_MAX)]
Filters = Annotated[
    dict[Name, FilterValues], Field(max_length=FILTERS_MAX), BeforeValidator(_absent_if_none)
]


class Range(Request):
    """Whose usage, when, and in which windows.

    external_customer_id  The client's id of the customer, or `customer_id`, ours; all, if neither.
    start_time, end_time  Half-open, to the millisecond; the last 7 days where they are absent.
    window_size           Parts to list beside the whole.
    timezone              Where windows and buckets lie; the customer's, if absent, or UTC.
    billing_anchor        Where MONTH windows start; the first of the month, if absent.
    filters               Property to texts: every key must match, by one of its texts.
    """

    external_customer_id: OptionalName = None
    customer_id: OptionalName = None
    start_time: OptionalMoment = None
    end_time: OptionalMoment = None
    window_size: OptionalWindow = None
    timezone: OptionalTimezone = None
    billing_anchor: OptionalMoment = None
    filters: Filters = Field(default_factory=dict)

    @property
    def conditions(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """The filters as a feature has them."""
        return tuple((key, frozenset(values)) for key, values in self.filters.items())

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        for field in ("start_time", "end_time"):
            moment: datetime | None = getattr(self, field)
            if moment is not None and not 1970 <= moment.year <= 2200:
                raise fault(field, "out_of_range", f"{field} has to lie from 1970 to 2200")
        if self.start_time and self.end_time and self.start_time >= self.end_time:
            raise fault("end_time", "out_of_range", "end_time has to be after start_time")
        return self


class UsageRequest(Range):
    """POST /v1/events/usage: usage of an event name, by a definition made up on the spot."""

    event_name: Name
    aggregation_type: Aggregation
    property_name: OptionalName = None
    multiplier: Annotated[Multiplier | None, BeforeValidator(absent_if_empty)] = None
    bucket_size: OptionalWindow = None
    group_by: list[Name] | None = None
    group_by_property: OptionalName = None

    @property
    def group(self) -> str | None:
        """The property that a bucketed MAX is grouped by."""
        if self.group_by:
            return self.group_by[0].removeprefix(PROPERTY_PREFIX)
        return self.group_by_property

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        kind = self.aggregation_type
        if kind is not Aggregation.COUNT and self.property_name is None:
            detail = f"{kind} needs the name of the property that it reads"
            raise fault("property_name", "missing", detail)
        if kind is Aggregation.SUM_WITH_MULTIPLIER and self.multiplier is None:
            raise fault("multiplier", "missing", f"{kind} needs a multiplier above zero")
        if kind is not Aggregation.SUM_WITH_MULTIPLIER and self.multiplier is not None:
            detail = f"{kind} takes no multiplier: leave it out, or use SUM_WITH_MULTIPLIER"
            raise fault("multiplier", "not_allowed", detail)
        if kind is not Aggregation.MAX and self.bucket_size is not None:
            detail = f"{kind} takes no bucket_size: only MAX does"
            raise fault("bucket_size", "not_allowed", detail)
        if self.group_by or self.group_by_property:
            self._check_group()
        return self

    def _check_group(self) -> None:
        field = "group_by" if self.group_by else "group_by_property"
        if self.bucket_size is None:
            detail = f"{field} needs MAX with a bucket_size here: /v1/events/analytics has groups"
            raise fault(field, "not_allowed", detail)
        if self.group_by and (
            len(self.group_by) > 1 or not self.group_by[0].startswith(PROPERTY_PREFIX)
        ):
            detail = f'group_by takes one property here: write ["{PROPERTY_PREFIX}region"]'
            raise fault(field, "not_allowed", detail)


class MeterUsageRequest(Range):
    """POST /v1/events/usage/meter: usage by a feature's own definition, filters and reset.

    meter_id     The meter's id, or its feature's.
    bucket_size  Clients send it; it has to be the meter's own.
    """

    meter_id: Name
    bucket_size: OptionalWindow = None
