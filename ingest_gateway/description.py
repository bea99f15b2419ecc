"""The gateway's operations, for the OpenAPI. What holds is `schemas.event`: this describes it."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from schemas.catalog import Scope
from schemas.limits import EVENTS_MAX, NAME_LENGTH_MAX
from schemas.openapi import Operation

Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX)]


class EventDocument(TypedDict):
    """One report of usage. One of `external_customer_id` and `customer_id` says whose it is.

    `event_id` is the idempotency key: events that share it count once. `timestamp` is ISO 8601;
    absent, it is the moment of receipt. Values of `properties` may be any JSON.
    """

    event_name: Name
    external_customer_id: NotRequired[Name | None]
    customer_id: NotRequired[Name | None]
    event_id: NotRequired[Name | None]
    timestamp: NotRequired[str | None]
    source: NotRequired[Annotated[str, Field(max_length=NAME_LENGTH_MAX)] | None]
    properties: NotRequired[dict[str, Any] | None]


class BulkDocument(TypedDict):
    """Several events, accepted all or none."""

    events: Annotated[list[EventDocument], Field(min_length=1, max_length=EVENTS_MAX)]


class AcceptedDocument(TypedDict):
    """The event is safe; it will be counted, or show why not."""

    event_id: str
    message: Literal["Event accepted for processing"]


class BulkAcceptedDocument(TypedDict):
    """Every event of the request is safe."""

    message: Literal["Events accepted for processing"]


_REFUSALS = (
    "Raises InvalidRequest (400), PayloadTooLarge (413), UnsupportedMediaType (415),"
    " TooManyRequests (429), ServiceUnavailable (503)."
)

OPERATIONS = (
    Operation(
        "POST", "/v1/events", "ingest_event",
        "POST /v1/events: accept one event. 202 once the broker has acknowledged it.\n\n"
        "With `Prefer: handling=strict`, event name and customer have to be in the catalog.\n\n"
        + _REFUSALS,
        Scope.INGEST, takes=EventDocument, gives=AcceptedDocument, status=202,
    ),
    Operation(
        "POST", "/v1/events/bulk", "ingest_events",
        "POST /v1/events/bulk: accept up to 1000 events, all or none. 202 once they are safe.\n\n"
        "A bare array of events is taken as well.\n\n" + _REFUSALS,
        Scope.INGEST, takes=BulkDocument, gives=BulkAcceptedDocument, status=202,
    ),
)  # fmt: skip
"""What `app.routes` serves."""
