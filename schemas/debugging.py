"""The debugger's questions and answers: one event's life, or why it never came."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from schemas.dead_letters import Position
from schemas.documents import AttributionDocument, CustomerDocument, FeatureDocument, MeterDocument
from schemas.event_queries import EventItem, EventVerdict
from schemas.requests import Name, OptionalName, Request, absent_if_empty
from schemas.verdict import NO_ACTIVE_SUBSCRIPTION, Warn

Status = Literal["processed", "processing", "failed"]

WARNINGS: dict[str, str] = {
    Warn.NUMERIC_STRING: "The value is a number written as a text. It counts; send a JSON number.",
    Warn.ROUNDED: "The value has more than 18 digits after the point: it was rounded half even.",
    Warn.UNKNOWN_CUSTOMER: "No customer had this external id when the event was counted: create "
    "the customer, and its usage is billed.",
    Warn.CUSTOMER_ARCHIVED: "The customer was archived when the event was counted.",
    Warn.CONTENT_DIFFERS: "The event that came first under this event_id said something else: "
    "use a new event_id for new usage.",
    NO_ACTIVE_SUBSCRIPTION: "No subscription bills this event: see `billing`.",
}
"""What each warning means, and what to do."""


class LookupQuery(Request):
    """GET /v1/events/lookup: one event by its id; the rest are hints for one that never came."""

    id: Name
    external_customer_id: OptionalName = None
    event_name: OptionalName = None
    properties: Annotated[
        str | None, Field(max_length=65_536), BeforeValidator(absent_if_empty)
    ] = None


class EventHints(Request):
    """GET /v1/events/:id: hints for an event that never came."""

    external_customer_id: OptionalName = None
    event_name: OptionalName = None
    properties: Annotated[
        str | None, Field(max_length=65_536), BeforeValidator(absent_if_empty)
    ] = None


class DebugRequest(Request):
    """POST /v1/events/debug: an event as it was, or would be, sent to POST /v1/events."""

    event: Any


class Failure(TypedDict):
    """What failed, in words."""

    code: str
    message: str
    http_status_code: int


class CustomerLookup(TypedDict):
    """Whether the customer exists."""

    status: str
    customer: NotRequired[CustomerDocument]
    error: NotRequired[Failure]


class MatchedMeter(TypedDict):
    """The meter that counts the event."""

    meter_id: str
    event_name: str
    meter: MeterDocument


class MeterMatching(TypedDict):
    """Whether a feature has the event's name."""

    status: str
    matched_meters: list[MatchedMeter]
    error: NotRequired[Failure]


class MatchedPrice(TypedDict):
    """The price of the feature on the customer's plan."""

    price_id: str
    meter_id: str
    price: Any


class PriceLookup(TypedDict):
    """Whether the customer's plan has a price for the feature."""

    status: str
    matched_prices: list[MatchedPrice]
    error: NotRequired[Failure]


class MatchedLineItem(TypedDict):
    """The subscription that bills the event."""

    subscription_id: str
    price_id: str


class LineItemLookup(TypedDict):
    """Whether a subscription of the customer bills the feature at the event's time."""

    status: str
    matched_line_items: list[MatchedLineItem]
    error: NotRequired[Failure]


class FailurePoint(TypedDict):
    """The first step that failed."""

    failure_point_type: str
    error: Failure


class DebugTracker(TypedDict):
    """The steps from an event to an invoice, each with what was found."""

    customer_lookup: CustomerLookup
    meter_matching: MeterMatching
    price_lookup: PriceLookup
    subscription_line_item_lookup: LineItemLookup
    failure_point: NotRequired[FailurePoint]


class ProcessedEvent(TypedDict):
    """What a counted event added to."""

    feature_id: str
    meter_id: NotRequired[str]
    customer_id: NotRequired[str]
    price_id: NotRequired[str]
    subscription_id: NotRequired[str]
    qty_total: str
    processed_at: datetime


class BlockPlace(TypedDict):
    """Where the counter read an event: the block, when it was written, and the catalog then."""

    epoch: int
    partition: int
    offset: int
    index: int
    time: datetime
    catalog_version: int


class RowShown(TypedDict):
    """One row of an event: as it was received and decided."""

    verdict: EventVerdict
    detail: str
    warnings: list[str]
    received_at: datetime
    position: Position
    block: BlockPlace


class Duplicates(TypedDict):
    """The repeats of an event, the first of them one by one."""

    count: int
    items: list[RowShown]


class WarningShown(TypedDict):
    """A warning, with what it means."""

    code: str
    meaning: str


class Step(TypedDict):
    """A moment in an event's life."""

    at: datetime
    step: str
    detail: str


class InvoicedOn(TypedDict):
    """The line of a closed invoice that an event is in; of an adjustment, as it came late."""

    invoice_id: str
    invoice_number: str
    line_id: str
    adjustment: bool


class Lookup(TypedDict):
    """One event's life. While it is `processing`, only what is known of it is there.

    first    Of a duplicate: the row that came first.
    history  Rows that a later one replaced, as when its feature was created after it.
    billing  Where it is billed, or why nowhere; null where it doesn't count, as `cure` says why.
    invoice  The line that it is in; null until its period's invoice, or the next one, is closed.
    """

    event: EventItem | None
    events: list[EventItem]
    status: Status
    processed_events: list[ProcessedEvent]
    debug_tracker: NotRequired[DebugTracker]
    message: str
    verdict: NotRequired[EventVerdict]
    detail: NotRequired[str]
    cure: NotRequired[str]
    warnings: NotRequired[list[WarningShown]]
    position: NotRequired[Position]
    block: NotRequired[BlockPlace]
    first: NotRequired[RowShown | None]
    duplicates: NotRequired[Duplicates]
    history: NotRequired[list[RowShown]]
    feature: NotRequired[FeatureDocument | None]
    billing: NotRequired[AttributionDocument | None]
    invoice: NotRequired[InvoicedOn | None]
    timeline: NotRequired[list[Step]]


class Check(TypedDict):
    """One line of the checklist; `passed` is null where nobody can tell without more hints."""

    check: str
    question: str
    passed: bool | None
    detail: str


class DebugAnswer(TypedDict):
    """Whether an event was received, and the checklist of what would become of it."""

    event_id: str | None
    received: bool
    checklist: list[Check]
