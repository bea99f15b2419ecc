"""What people ask about stored events: a page of them, and how many have which verdict."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Self

import msgspec
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from schemas.requests import Name, OptionalName, Request, absent_if_empty, fault, whole
from schemas.usage import FilterValues, OptionalMoment, OptionalWindow

PAGE_SIZE = 50
PAGE_SIZE_MAX = 1000
OFFSET_MAX = 10_000
KEY_LENGTH_MAX = 4096

EventVerdict = Literal[
    "counted",
    "duplicate",
    "unknown_event_name",
    "feature_archived",
    "filtered",
    "missing_property",
    "wrong_type",
    "out_of_range",
]
"""The verdicts that an event can have: all but those of dead letters and markers."""

EventWarning = Literal[
    "numeric_string",
    "rounded",
    "unknown_customer",
    "customer_archived",
    "content_differs",
    "no_active_subscription",
]
"""The warnings that can stand beside a verdict."""


class Key(NamedTuple):
    """A place in a list of events: its first column sorts first. `name` is "" when by time."""

    name: str
    timestamp: int
    log_offset: int
    log_index: int
    log_partition: int
    log_epoch: int
    log_topic: str

    def text(self) -> str:
        """As clients carry it from page to page."""
        return base64.urlsafe_b64encode(_encoder.encode(self)).decode().rstrip("=")

    @classmethod
    def of(cls, text: str) -> Self:
        """The key of a text. Raises PydanticCustomError."""
        try:
            padded = text + "=" * (-len(text) % 4)
            return _decoder.decode(base64.urlsafe_b64decode(padded.encode()))  # type: ignore[return-value]
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise PydanticCustomError(
                "invalid_key", "is no key of a page: send what the answer before gave"
            ) from None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Key)


def _several(value: object) -> object:
    """A list, also as a query string writes it: one text, or texts with commas."""
    if value is None or value == "":
        return []
    return value.split(",") if isinstance(value, str) else value


def _filters(value: object) -> object:
    """Filters, also as a query string writes them: `region:EU,US;tier:pro`."""
    if not isinstance(value, str):
        return {} if value is None else value
    found: dict[str, list[str]] = {}
    for each in filter(None, value.split(";")):
        key, colon, values = each.partition(":")
        if not colon:
            raise PydanticCustomError(
                "invalid_format", "is no filter: write key:value1,value2;key2:value"
            )
        found.setdefault(key, []).extend(values.split(","))
    return found


Verdicts = Annotated[list[EventVerdict], BeforeValidator(_several)]
Warnings = Annotated[list[EventWarning], BeforeValidator(_several)]
Sources = Annotated[list[Annotated[str, Field(max_length=255)]], BeforeValidator(_several)]
PropertyFilters = Annotated[
    dict[Name, FilterValues], Field(max_length=20), BeforeValidator(_filters)
]


OptionalKey = Annotated[
    str | None, Field(max_length=KEY_LENGTH_MAX), BeforeValidator(absent_if_empty)
]


class EventQuery(Request):
    """POST /v1/events/query, GET /v1/events: which of the account's events, and which page of them.

    start_time, end_time  Half-open, of the events' timestamps; from 7 days ago on, when neither
                          they nor an event_id are given.
    warning               Events with one of these beside their verdict, as it stands now:
                          no_active_subscription asks for counted events that nothing bills.
    property_filters      Property to texts: every key must match, by one of its texts.
    iter_last_key         Of the page before: the events behind it. Pages stay as they are while
                          new events come.
    iter_first_key        Of the page behind: the events before it.
    """

    external_customer_id: OptionalName = None
    customer_id: OptionalName = None
    event_name: OptionalName = None
    event_id: OptionalName = None
    source: Annotated[str | None, Field(max_length=255), BeforeValidator(absent_if_empty)] = None
    sources: Sources = Field(default_factory=list)
    verdict: Verdicts = Field(default_factory=list)
    warning: Warnings = Field(default_factory=list)
    property_filters: PropertyFilters = Field(default_factory=dict)
    start_time: OptionalMoment = None
    end_time: OptionalMoment = None
    page_size: Annotated[int, BeforeValidator(whole(1, PAGE_SIZE_MAX))] = PAGE_SIZE
    offset: Annotated[int, BeforeValidator(whole(0, OFFSET_MAX))] = 0
    iter_first_key: OptionalKey = None
    iter_last_key: OptionalKey = None
    sort: Annotated[Literal["timestamp", "event_name"] | None, BeforeValidator(absent_if_empty)] = (
        None
    )
    order: Annotated[Literal["asc", "desc"] | None, BeforeValidator(absent_if_empty)] = None

    @property
    def by_name(self) -> bool:
        """Whether the list is sorted by event name."""
        return self.sort == "event_name"

    @property
    def after(self) -> Key | None:
        """The key that the page starts behind."""
        return None if self.iter_last_key is None else Key.of(self.iter_last_key)

    @property
    def before(self) -> Key | None:
        """The key that the page ends before."""
        return None if self.iter_first_key is None else Key.of(self.iter_first_key)

    @model_validator(mode="after")
    def _is_one_page(self) -> Self:
        if self.start_time and self.end_time and self.start_time >= self.end_time:
            raise fault("end_time", "out_of_range", "end_time has to be after start_time")
        if self.iter_first_key and self.iter_last_key:
            detail = "a page is behind iter_last_key or before iter_first_key: send one of both"
            raise fault("iter_first_key", "not_allowed", detail)
        for field in ("iter_first_key", "iter_last_key"):
            text = getattr(self, field)
            if text is None:
                continue
            try:
                key = Key.of(text)
            except PydanticCustomError as error:
                raise fault(field, error.type, f"{field} {error.message()}") from None
            if bool(key.name) != self.by_name:
                detail = f"{field} is of a list in another order: keep sort as it was"
                raise fault(field, "invalid_key", detail)
        return self


class EventItem(TypedDict):
    """An event as it was sent, with what became of it. `properties` keep every digit.

    warnings  As they stand now: no_active_subscription goes when a subscription is backdated.
    """

    id: str
    external_customer_id: str
    customer_id: NotRequired[str]
    event_name: str
    timestamp: datetime
    ingested_at: datetime
    properties: dict[str, Any]
    source: str
    verdict: EventVerdict
    detail: str
    warnings: list[EventWarning]
    feature_id: NotRequired[str]


class EventPage(TypedDict):
    """A page of events.

    iter_first_key, iter_last_key  For the page before and the page behind this one.
    total_count                    Of all pages; null when property filters, or the warning
                                   no_active_subscription, would have to look at too many events
                                   to count them.
    """

    events: list[EventItem]
    has_more: bool
    iter_first_key: NotRequired[str]
    iter_last_key: NotRequired[str]
    offset: int
    total_count: int | None


class VerdictQuery(Request):
    """GET /v1/events/verdicts: how many events were received in each window, by verdict.

    start_time, end_time  Half-open, of receipt; the last 24 hours where they are absent.
    """

    start_time: OptionalMoment = None
    end_time: OptionalMoment = None
    window_size: OptionalWindow = None
    event_name: OptionalName = None
    external_customer_id: OptionalName = None

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.start_time and self.end_time and self.start_time >= self.end_time:
            raise fault("end_time", "out_of_range", "end_time has to be after start_time")
        return self


class VerdictPoint(TypedDict):
    """The events received in one window."""

    timestamp: datetime
    event_count: int
    verdicts: dict[str, int]


class VerdictCounts(TypedDict):
    """Events by verdict, and dead letters, in all and in each window; windows without are there."""

    total_count: int
    verdicts: dict[str, int]
    points: list[VerdictPoint]
