"""Requests about customers."""

from pydantic import Field

from schemas.catalog import Status
from schemas.requests import (
    Ids,
    Metadata,
    Name,
    OptionalEmail,
    OptionalName,
    OptionalTimezone,
    Page,
    Request,
)


class Address(Request):
    """Where a customer is; shown on invoices."""

    address_line1: OptionalName = None
    address_line2: OptionalName = None
    address_city: OptionalName = None
    address_state: OptionalName = None
    address_postal_code: OptionalName = None
    address_country: OptionalName = None


class NewCustomer(Address):
    """POST /v1/customers. `external_id` is the client's own id: fixed, and taken for good."""

    external_id: Name
    name: OptionalName = None
    email: OptionalEmail = None
    timezone: OptionalTimezone = None
    metadata: Metadata = Field(default_factory=dict)


class CustomerUpdate(Address):
    """PUT /v1/customers/:id: what can change; a field left out stays as it is."""

    name: Name | None = None
    email: OptionalEmail = None
    timezone: OptionalTimezone = None
    metadata: Metadata | None = None
    status: Status | None = None


class CustomerSearch(Page):
    """GET /v1/customers, POST /v1/customers/search."""

    customer_ids: Ids | None = None
    external_id: OptionalName = None
    external_ids: Ids | None = None
    email: OptionalName = None
    name_contains: OptionalName = None


class NamedCustomer(Request):
    """The query of PUT /v1/customers: which customer, by our id or by the client's own."""

    id: OptionalName = None
    external_customer_id: OptionalName = None
