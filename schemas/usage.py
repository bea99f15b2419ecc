"""What people ask about usage: how much of an event name or a meter, for whom, when."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, NotRequired, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from schemas.catalog import Aggregation, Window
from schemas.decimals import Multiplier
from schemas.documents import FeatureDocument
from schemas.features import FILTER_VALUES_MAX, FILTERS_MAX
from schemas.plans import BillingPeriod
from schemas.requests import (
    METADATA_VALUE_LENGTH_MAX,
    Ids,
    Moment,
    Name,
    OptionalName,
    OptionalTimezone,
    Request,
    absent_if_empty,
    fault,
)

SOURCE = "source"
PROPERTY_PREFIX = "properties."
GROUPED_BY_MAX = 5
"""Dimensions of groups."""


def _absent_if_none(value: object) -> object:
    return {} if value is None else value


OptionalMoment = Annotated[Moment | None, BeforeValidator(absent_if_empty)]
OptionalWindow = Annotated[Window | None, BeforeValidator(absent_if_empty)]
FilterValue = Annotated[str, StringConstraints(min_length=1, max_length=METADATA_VALUE_LENGTH_MAX)]
FilterValues = Annotated[list[FilterValue], Field(min_length=1, max_length=FILTER_VALUES_MAX)]
Filters = Annotated[
    dict[Name, FilterValues], Field(max_length=FILTERS_MAX), BeforeValidator(_absent_if_none)
]


def dimension(name: str) -> str:
    if name != SOURCE and (not name.startswith(PROPERTY_PREFIX) or name == PROPERTY_PREFIX):
        raise PydanticCustomError(
            "unknown_value",
            'is nothing to group by: write "source", or "properties.region" for a property',
        )
    return name


def distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("duplicate", "names something twice: name it once")
    return names


Dimension = Annotated[Name, AfterValidator(dimension)]
GroupBy = Annotated[
    list[Dimension],
    Field(max_length=GROUPED_BY_MAX),
    AfterValidator(distinct),
    BeforeValidator(lambda value: [] if value is None else value),
]
"""What makes groups: `source`, and properties as `properties.name`."""


class Range(Request):
    """Whose usage, when, and in which windows.

    external_customer_id  The client's id of the customer, or `customer_id`, ours; all, if neither.
    start_time, end_time  Half-open, to the millisecond; the last 7 days where they are absent.
    window_size           Parts to list beside the whole.
    timezone              Where windows and buckets lie; the customer's, if absent, or UTC.
    billing_anchor        Where MONTH windows start; the first of the month, if absent.
    """

    external_customer_id: OptionalName = None
    customer_id: OptionalName = None
    start_time: OptionalMoment = None
    end_time: OptionalMoment = None
    window_size: OptionalWindow = None
    timezone: OptionalTimezone = None
    billing_anchor: OptionalMoment = None

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        for field in ("start_time", "end_time"):
            moment: datetime | None = getattr(self, field)
            if moment is not None and not 1970 <= moment.year <= 2200:
                raise fault(field, "out_of_range", f"{field} has to lie from 1970 to 2200")
        if self.start_time and self.end_time and self.start_time >= self.end_time:
            raise fault("end_time", "out_of_range", "end_time has to be after start_time")
        return self


def conditions(filters: dict[str, list[str]]) -> tuple[tuple[str, frozenset[str]], ...]:
    """Filters as a feature has them."""
    return tuple((key, frozenset(values)) for key, values in filters.items())


class FilteredRange(Range):
    """A range of events that match.

    filters  Property to texts: every key must match, by one of its texts.
    """

    filters: Filters = Field(default_factory=dict)

    @property
    def conditions(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """The filters as a feature has them."""
        return conditions(self.filters)


class UsageRequest(FilteredRange):
    """POST /v1/events/usage: usage of an event name, by a definition made up on the spot."""

    event_name: Name
    aggregation_type: Aggregation
    property_name: OptionalName = None
    multiplier: Annotated[Multiplier | None, BeforeValidator(absent_if_empty)] = None
    bucket_size: OptionalWindow = None
    group_by: GroupBy = Field(default_factory=list)
    group_by_property: OptionalName = None

    @property
    def dimensions(self) -> list[str]:
        """What is grouped by, in either way of saying so."""
        if self.group_by or self.group_by_property is None:
            return self.group_by
        return [PROPERTY_PREFIX + self.group_by_property]

    @property
    def bucket_group(self) -> str | None:
        """The property that a bucketed MAX is summed over; other aggregations show their groups."""
        if self.bucket_size is None or not self.dimensions:
            return None
        return self.dimensions[0].removeprefix(PROPERTY_PREFIX)

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
        one_property = len(self.dimensions) == 1 and self.dimensions != [SOURCE]
        if self.bucket_size is not None and self.dimensions and not one_property:
            detail = f'MAX with a bucket_size takes one property: write ["{PROPERTY_PREFIX}region"]'
            raise fault("group_by", "not_allowed", detail)
        return self


class MeterUsageRequest(FilteredRange):
    """POST /v1/events/usage/meter: usage by a feature's own definition, filters and reset.

    meter_id     The meter's id, or its feature's.
    bucket_size  Clients send it; it has to be the meter's own.
    """

    meter_id: Name
    bucket_size: OptionalWindow = None
    group_by: GroupBy = Field(default_factory=list)


class UsageSummaryQuery(Request):
    """GET /v1/customers/:id/usage: of which features and subscriptions; all, if absent."""

    feature_ids: Ids | None = None
    feature_lookup_keys: Ids | None = None
    subscription_ids: Ids | None = None


class NamedUsageSummary(UsageSummaryQuery):
    """GET /v1/customers/usage: whose, by our id or the client's own."""

    customer_id: OptionalName = None
    customer_lookup_key: OptionalName = None


# What they get

Number = Annotated[Decimal, WithJsonSchema({"type": "number"})]
"""A JSON number with all its digits: read it as decimal."""


class WindowDocument(TypedDict):
    """A window's usage; `window_size` is where it starts, `text` a LATEST that is no number."""

    window_size: datetime
    value: Number | None
    text: NotRequired[str]


class UsageGroupDocument(TypedDict):
    """The usage of events that have something in common; `properties` has those that they have."""

    source: NotRequired[str]
    properties: NotRequired[dict[str, str]]
    value: Number | None
    text: NotRequired[str]
    results: list[WindowDocument]


class UsageDocument(TypedDict):
    """Usage over a range, whole and in windows, and in groups where these were asked for."""

    event_name: str
    type: Aggregation
    value: Number | None
    text: NotRequired[str]
    results: list[WindowDocument]
    groups: NotRequired[list[UsageGroupDocument]]


class FeatureUsageDocument(TypedDict):
    """How much of a feature's free limit is used; a limit that is absent is none.

    current_usage        Since the limit was last granted, or the period began.
    usage_percent        Of the limit, with two digits; 100 where all is beyond a limit of 0.
    is_enabled           Whether anything is free.
    next_usage_reset_at  Absent where the limit is granted once.
    """

    feature: FeatureDocument
    total_limit: NotRequired[int]
    is_unlimited: bool
    current_usage: str
    usage_percent: str
    is_enabled: bool
    next_usage_reset_at: NotRequired[datetime]


class UsagePeriodDocument(TypedDict):
    """The billing period of now."""

    start_time: datetime
    end_time: datetime
    period: BillingPeriod


class UsageSummaryDocument(TypedDict):
    """What a customer used; `period` is that of its oldest subscription, absent without one."""

    customer_id: str
    features: list[FeatureUsageDocument]
    period: NotRequired[UsagePeriodDocument]
