"""What people write about the catalog, and what the hot path reads of it.

The pydantic models are requests: unknown fields are refused, each fault has a place and a cure.
The msgspec structs are what gateway, packer and counter match events against.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas.limits import FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX, NAME_LENGTH_MAX

METADATA_KEYS_MAX = 50
METADATA_VALUE_LENGTH_MAX = 1024
DESCRIPTION_LENGTH_MAX = 4096
FILTERS_MAX = 20
FILTER_VALUES_MAX = 1000
PAGE_SIZE_MAX = 1000
PAGE_SIZE = 50


class Aggregation(StrEnum):
    """How the events of a feature become one quantity."""

    COUNT = "COUNT"
    SUM = "SUM"
    AVG = "AVG"
    COUNT_UNIQUE = "COUNT_UNIQUE"
    LATEST = "LATEST"
    SUM_WITH_MULTIPLIER = "SUM_WITH_MULTIPLIER"
    MAX = "MAX"
    WEIGHTED_SUM = "WEIGHTED_SUM"


class Window(StrEnum):
    """The length of a window of time, or of a bucket of MAX."""

    MINUTE = "MINUTE"
    MIN_15 = "15MIN"
    MIN_30 = "30MIN"
    HOUR = "HOUR"
    HOUR_3 = "3HOUR"
    HOUR_6 = "6HOUR"
    HOUR_12 = "12HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


class Reset(StrEnum):
    """Whether usage starts from zero in each billing period, or keeps its level."""

    BILLING_PERIOD = "BILLING_PERIOD"
    NEVER = "NEVER"


class Status(StrEnum):
    """Whether something is in use, or kept for its past only."""

    PUBLISHED = "published"
    ARCHIVED = "archived"


class Scope(StrEnum):
    """What an API key may do: send events, read, change the catalog."""

    INGEST = "ingest"
    READ = "read"
    ADMIN = "admin"


# What the hot path reads


class Feature(msgspec.Struct, frozen=True):
    """A feature with its meter, as events are matched against it.

    id               Whose usage an event becomes; `meter_id` names its rule.
    field            The property that is aggregated; None for COUNT.
    multiplier       Of SUM_WITH_MULTIPLIER, else None.
    bucket_size      Of a bucketed MAX, else None; `group_by` its group's property.
    filters          Every key must match by one of its values (canonical texts), in this order.
    status           Archived features count nothing, but say why.
    created_version  The catalog version that created it; `version` the one that made it so.
    """

    id: str
    meter_id: str
    account: str
    event_name: str
    aggregation: Aggregation
    field: str | None
    multiplier: Decimal | None
    bucket_size: Window | None
    group_by: str | None
    filters: tuple[tuple[str, frozenset[str]], ...]
    reset_usage: Reset
    status: Status
    created_version: int
    version: int

    @property
    def active(self) -> bool:
        """Whether events of its name count."""
        return self.status is Status.PUBLISHED


class ApiKey(msgspec.Struct, frozen=True):
    """An API key, as a request is checked against it: never the key itself, only its hash.

    strict                Check names and customers before accepting events.
    requests_per_minute   Limits for single and bulk requests; None: the service's own.
    """

    id: str
    account: str
    hash: str
    scopes: frozenset[Scope]
    expires_at: datetime | None
    revoked_at: datetime | None
    strict: bool
    requests_per_minute: int | None
    bulk_requests_per_minute: int | None

    def valid_at(self, now: datetime) -> bool:
        """Whether it opens anything at this moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


# What people write


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("invalid_character", "holds a NUL character: remove it")
    return text


def _absent_if_empty(value: object) -> object:
    """Clients with typed structs send "" for what they leave out."""
    return None if value == "" else value


def read_multiplier(value: object) -> Decimal:
    """An exact multiplier from a JSON number or its text; up to 20 digits, and 18 after the point.

    Raises PydanticCustomError for anything else, and for what isn't above zero.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise PydanticCustomError("wrong_type", 'is not a number: write it as a text, like "0.001"')
    try:
        number = Decimal(value)
    except (InvalidOperation, ValueError):
        raise PydanticCustomError(
            "wrong_type", 'is not a number: write it as a text, like "0.001"'
        ) from None
    if not number.is_finite() or number <= 0:
        raise PydanticCustomError("out_of_range", "has to be above zero")
    if number.adjusted() >= INTEGER_DIGITS_MAX or _fraction_digits(number) > FRACTION_DIGITS_MAX:
        raise PydanticCustomError(
            "out_of_range",
            "has too many digits: at most {integer} before the point and {fraction} after it",
            {"integer": INTEGER_DIGITS_MAX, "fraction": FRACTION_DIGITS_MAX},
        )
    return number


def _fraction_digits(number: Decimal) -> int:
    """How many digits after the point say something; without arithmetic, which would round."""
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return -exponent - zeros


def plain(number: Decimal) -> str:
    """The shortest plain text of a number: no exponent, no trailing zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _known_zone(name: str) -> str:
    if name not in _zones():
        raise PydanticCustomError(
            "unknown_timezone", "is no IANA time zone: write one like Europe/Berlin, or UTC"
        )
    return name


def _looks_like_email(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not local or not domain or any(character.isspace() for character in text):
        raise PydanticCustomError("invalid_email", "is no e-mail address: write name@example.com")
    return text


def _moment(value: object) -> datetime:
    """An aware time from ISO 8601 text; no offset means UTC."""
    if isinstance(value, datetime):
        moment = value
    else:
        if not isinstance(value, str) or len(value) < 13:
            raise PydanticCustomError(
                "invalid_time", "is no date and time: write ISO 8601, like 2030-01-31T00:00:00Z"
            )
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise PydanticCustomError(
                "invalid_time", "is no date and time: write ISO 8601, like 2030-01-31T00:00:00Z"
            ) from None
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise PydanticCustomError("out_of_range", "is out of the calendar") from None


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=NAME_LENGTH_MAX),
    AfterValidator(_without_nul),
]
"""An id or a name: not empty, at most 255 characters, no NUL."""

OptionalName = Annotated[Name | None, BeforeValidator(_absent_if_empty)]
MetadataValue = Annotated[
    str, StringConstraints(max_length=METADATA_VALUE_LENGTH_MAX), AfterValidator(_without_nul)
]
Metadata = Annotated[dict[Name, MetadataValue], Field(max_length=METADATA_KEYS_MAX)]
Description = Annotated[
    str, StringConstraints(max_length=DESCRIPTION_LENGTH_MAX), AfterValidator(_without_nul)
]
Timezone = Annotated[Name, AfterValidator(_known_zone)]
Email = Annotated[Name, AfterValidator(_looks_like_email)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Multiplier = Annotated[Decimal, BeforeValidator(read_multiplier)]


class Request(BaseModel):
    """A request's body: unknown fields are refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _fault(field: str, code: str, detail: str) -> PydanticCustomError:
    """A fault of one field among several that are checked together."""
    return PydanticCustomError(code, "{detail}", {"field": field, "detail": detail})


class MeterAggregation(Request):
    """How values are taken and combined; fixed at creation."""

    type: Aggregation
    field: OptionalName = None
    multiplier: Annotated[Multiplier | None, BeforeValidator(_absent_if_empty)] = None
    bucket_size: Annotated[Window | None, BeforeValidator(_absent_if_empty)] = None
    group_by: OptionalName = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.type is Aggregation.COUNT and self.field is not None:
            raise _fault("field", "not_allowed", "COUNT counts events: leave field out")
        if self.type is not Aggregation.COUNT and self.field is None:
            raise _fault(
                "field", "missing", f"{self.type} needs the name of the property that it reads"
            )
        if self.type is Aggregation.SUM_WITH_MULTIPLIER and self.multiplier is None:
            raise _fault("multiplier", "missing", f"{self.type} needs a multiplier above zero")
        if self.type is not Aggregation.SUM_WITH_MULTIPLIER and self.multiplier is not None:
            raise _fault(
                "multiplier",
                "not_allowed",
                f"{self.type} takes no multiplier: leave it out, or use SUM_WITH_MULTIPLIER",
            )
        if self.bucket_size is not None and self.type is not Aggregation.MAX:
            raise _fault(
                "bucket_size", "not_allowed", f"{self.type} takes no bucket_size: only MAX does"
            )
        if self.group_by is not None and self.bucket_size is None:
            raise _fault(
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
                AfterValidator(_without_nul),
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


def _absent_list(value: object) -> object:
    return [] if value is None else value


class NewMeter(Request):
    """The rule of a feature: which events it takes and what it makes of them.

    name         For people; the feature's, or the event's, when absent.
    event_name   Which events it takes, exactly: case-sensitive and fixed at creation.
    reset_usage  The one setting here that can change later.
    """

    name: OptionalName = None
    event_name: Name
    aggregation: MeterAggregation
    filters: Annotated[MeterFilters, BeforeValidator(_absent_list)] = []
    reset_usage: Reset = Reset.BILLING_PERIOD

    @model_validator(mode="after")
    def _buckets_reset(self) -> Self:
        check_bucket_resets(self.aggregation.bucket_size, self.reset_usage)
        return self


def check_bucket_resets(bucket_size: str | None, reset_usage: Reset) -> None:
    """A bucketed MAX starts anew in each period. Raises PydanticCustomError where it would not."""
    if bucket_size is not None and reset_usage is Reset.NEVER:
        raise _fault(
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
    metadata: Metadata = {}
    meter: NewMeter | None = None
    meter_id: OptionalName = None

    @model_validator(mode="after")
    def _has_one_meter(self) -> Self:
        if (self.meter is None) == (self.meter_id is None):
            raise _fault(
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


class Address(Request):
    """Where a customer is; shown on invoices."""

    address_line1: OptionalName = None
    address_line2: OptionalName = None
    address_city: OptionalName = None
    address_state: OptionalName = None
    address_postal_code: OptionalName = None
    address_country: OptionalName = None


OptionalEmail = Annotated[Email | None, BeforeValidator(_absent_if_empty)]
OptionalTimezone = Annotated[Timezone | None, BeforeValidator(_absent_if_empty)]


class NewCustomer(Address):
    """POST /v1/customers. `external_id` is the client's own id: fixed, and taken for good."""

    external_id: Name
    name: OptionalName = None
    email: OptionalEmail = None
    timezone: OptionalTimezone = None
    metadata: Metadata = {}


class CustomerUpdate(Address):
    """PUT /v1/customers/:id: what can change; a field left out stays as it is."""

    name: Name | None = None
    email: OptionalEmail = None
    timezone: OptionalTimezone = None
    metadata: Metadata | None = None
    status: Status | None = None


RatePerMinute = Annotated[StrictInt, Field(ge=1, le=10_000_000)]


class NewApiKey(Request):
    """POST /v1/secrets/api/keys. Without `scopes` it may do everything."""

    name: Name
    type: Literal["private_key"] = "private_key"
    scopes: Annotated[list[Scope], Field(min_length=1)] = list(Scope)
    strict: StrictBool = False
    expires_at: Moment | None = None
    requests_per_minute: RatePerMinute | None = None
    bulk_requests_per_minute: RatePerMinute | None = None


class NewAccount(Request):
    """An account; its id is part of a topic's name, without the dot that Kafka confuses with _."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = None
    name: Name


def _texts(value: object) -> object:
    """A list from a query string, where one text stands for itself."""
    return value.split(",") if isinstance(value, str) else value


Ids = Annotated[list[Name], Field(max_length=PAGE_SIZE_MAX), BeforeValidator(_texts)]


def _whole(low: int, high: int) -> Callable[[object], int]:
    """A reader of whole numbers, as JSON or as the text of a query string."""

    def read(value: object) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise PydanticCustomError(
                "out_of_range",
                "has to be a whole number from {low} to {high}",
                {"low": low, "high": high},
            )
        return value

    return read


class Sort(Request):
    """One column of a list's order."""

    field: Literal["created_at", "updated_at", "name"]
    direction: Literal["asc", "desc"] = "desc"


class Page(Request):
    """Which part of a list: newest first unless `order` or `sort` say otherwise."""

    limit: Annotated[int, BeforeValidator(_whole(1, PAGE_SIZE_MAX))] = PAGE_SIZE
    offset: Annotated[int, BeforeValidator(_whole(0, 1 << 53))] = 0
    order: Literal["asc", "desc"] = "desc"
    sort: Annotated[list[Sort], Field(max_length=3)] = []
    status: Literal["published", "archived", "all"] = "published"
    start_time: Moment | None = None
    end_time: Moment | None = None
    expand: Any = None


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


class CustomerSearch(Page):
    """GET /v1/customers, POST /v1/customers/search."""

    customer_ids: Ids | None = None
    external_id: OptionalName = None
    external_ids: Ids | None = None
    email: OptionalName = None
    name_contains: OptionalName = None


class ApiKeySearch(Page):
    """GET /v1/secrets/api/keys."""
