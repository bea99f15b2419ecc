"""What people ask of analytics, and what they get: usage and its cost, feature by feature."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, NotRequired, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from schemas.catalog import Aggregation, Window
from schemas.documents import FeatureDocument, MeterDocument, PlainPlanDocument, PlainPriceDocument
from schemas.requests import Ids, Name, fault
from schemas.usage import GROUPED_BY_MAX, Filters, Range, conditions, dimension, distinct

FEATURE = "feature_id"


class Expansion(StrEnum):
    """What an item shows beside ids."""

    FEATURE = "feature"
    METER = "meter"
    PRICE = "price"
    PLAN = "plan"


def _absent_list(value: object) -> object:
    return [] if value is None else value


def _only_false(value: bool | None) -> bool | None:
    if value:
        raise PydanticCustomError("not_allowed", "is not supported: leave it out, or send false")
    return value


AnalyticsGroupBy = Annotated[
    list[
        Annotated[Name, AfterValidator(lambda name: name if name == FEATURE else dimension(name))]
    ],
    Field(max_length=GROUPED_BY_MAX),
    AfterValidator(distinct),
    BeforeValidator(_absent_list),
]
Expand = Annotated[list[Expansion], BeforeValidator(_absent_list)]
OnlyFalse = Annotated[bool | None, AfterValidator(_only_false)]


class AnalyticsRequest(Range):
    """POST /v1/events/analytics: a customer's usage and its cost, an item for each feature.

    feature_ids       These features; all that have events, if absent.
    sources           Events of these sources alone.
    property_filters  Property to texts: every key must match, by one of its texts.
    group_by          `source` and `properties.name` make an item for each group of a feature;
                      `feature_id` says what is so anyway.
    expand            What to show whole beside its id.
    """

    feature_ids: Ids | None = None
    sources: Annotated[Ids, BeforeValidator(_absent_list)] = Field(default_factory=list)
    property_filters: Filters = Field(default_factory=dict)
    group_by: AnalyticsGroupBy = Field(default_factory=list)
    expand: Expand = Field(default_factory=list)
    include_children: OnlyFalse = None
    breakdown_bucket: OnlyFalse = None

    @property
    def conditions(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """The filters as a feature has them."""
        return conditions(self.property_filters)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What makes groups within a feature."""
        return tuple(name for name in self.group_by if name != FEATURE)

    @model_validator(mode="after")
    def _names_a_customer(self) -> Self:
        if self.external_customer_id is None and self.customer_id is None:
            detail = "analytics are of one customer: name it"
            raise fault("external_customer_id", "missing", detail)
        return self


class PointDocument(TypedDict):
    """A window: where it starts, its usage and what that costs; null as in the item."""

    timestamp: datetime
    usage: str | None
    cost: str | None
    event_count: int


class AnalyticItemDocument(TypedDict):
    """A feature's usage, or that of one of its groups.

    total_usage  Null as in every usage query; a LATEST that is a text stands in `text`.
    total_cost   Unrounded. Null where no price bills the feature, where it was billed in several
                 currencies, or where a group's share can't be told.
    price_id     With plan and subscription: of the latest period that the range touches.
    """

    feature_id: str
    meter_id: str
    name: str
    event_name: str
    aggregation_type: Aggregation
    unit: NotRequired[str]
    unit_plural: NotRequired[str]
    total_usage: str | None
    text: NotRequired[str]
    total_cost: str | None
    event_count: int
    currency: NotRequired[str]
    price_id: NotRequired[str]
    plan_id: NotRequired[str]
    subscription_id: NotRequired[str]
    window_size: NotRequired[Window]
    source: NotRequired[str]
    properties: NotRequired[dict[str, str]]
    points: list[PointDocument]
    feature: NotRequired[FeatureDocument]
    meter: NotRequired[MeterDocument]
    price: NotRequired[PlainPriceDocument]
    plan: NotRequired[PlainPlanDocument]


class AnalyticsDocument(TypedDict):
    """A customer's usage; the total and its currency are null unless there is just one currency."""

    total_cost: str | None
    currency: str | None
    items: list[AnalyticItemDocument]
