"""What the console answers about the catalog, as types: for the OpenAPI, and for tests of answers.

Moments are ISO 8601 in UTC, amounts and quantities decimal texts; what is absent is left out.
"""

from datetime import datetime
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

from schemas.catalog import Aggregation, Reset, Scope, Status, Window

Item = TypeVar("Item")


class Pagination(TypedDict):
    """Where a page lies in its list."""

    total: int
    limit: int
    offset: int


class Listed(TypedDict, Generic[Item]):
    """A page of a list."""

    items: list[Item]
    pagination: Pagination


class Made(TypedDict, Generic[Item]):
    """What one request made of several, in its order."""

    items: list[Item]


class Change(TypedDict):
    """One change of an entity; `actor` is the id of the API key that made it."""

    version: int
    at: datetime
    actor: str
    before: dict[str, Any] | None
    after: dict[str, Any]


class MeterAggregationDocument(TypedDict):
    """How a meter takes and combines values."""

    type: Aggregation
    field: NotRequired[str]
    multiplier: NotRequired[str]
    bucket_size: NotRequired[Window]
    group_by: NotRequired[str]


class MeterFilterDocument(TypedDict):
    """One condition on events."""

    key: str
    values: list[str]


class MeterDocument(TypedDict):
    """A meter."""

    id: str
    name: str
    event_name: str
    aggregation: MeterAggregationDocument
    filters: list[MeterFilterDocument]
    reset_usage: Reset
    status: Status
    created_at: datetime
    updated_at: datetime


class FeatureDocument(TypedDict):
    """A feature with its meter."""

    id: str
    name: str
    type: Literal["metered"]
    lookup_key: NotRequired[str]
    unit_singular: NotRequired[str]
    unit_plural: NotRequired[str]
    description: str
    metadata: dict[str, str]
    meter_id: str
    meter: MeterDocument
    status: Status
    created_at: datetime
    updated_at: datetime


class CustomerDocument(TypedDict):
    """A customer."""

    id: str
    external_id: str
    name: str
    email: NotRequired[str]
    timezone: NotRequired[str]
    address_line1: NotRequired[str]
    address_line2: NotRequired[str]
    address_city: NotRequired[str]
    address_state: NotRequired[str]
    address_postal_code: NotRequired[str]
    address_country: NotRequired[str]
    metadata: dict[str, str]
    status: Status
    created_at: datetime
    updated_at: datetime


class ApiKeyDocument(TypedDict):
    """What is shown of an API key: never the key itself."""

    id: str
    name: str
    type: Literal["private_key"]
    display_id: str
    scopes: list[Scope]
    strict: bool
    requests_per_minute: NotRequired[int]
    bulk_requests_per_minute: NotRequired[int]
    expires_at: NotRequired[datetime]
    revoked_at: NotRequired[datetime]
    status: Status
    created_at: datetime
    updated_at: datetime


class NewApiKeyDocument(TypedDict):
    """A key that was made just now; `api_key` is shown this once."""

    secret: ApiKeyDocument
    api_key: str
