"""Requests about invoices, and how they are written."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, StrictBool, StringConstraints
from typing_extensions import TypedDict

from schemas.currency import Currency
from schemas.plans import BillingPeriod
from schemas.requests import (
    PAGE_SIZE,
    PAGE_SIZE_MAX,
    Ids,
    Moment,
    Name,
    OptionalName,
    Page,
    Request,
    absent_if_empty,
    texts,
    whole,
)

OptionalMoment = Annotated[Moment | None, BeforeValidator(absent_if_empty)]


class InvoicePreview(Request):
    """POST /v1/invoices/preview: what a period comes to if nothing more is used.

    period_start, period_end  Those of one of the subscription's periods; absent, of the one now.
    """

    subscription_id: Name
    period_start: OptionalMoment = None
    period_end: OptionalMoment = None
    hide_zero_charges_line_items: StrictBool | None = False


class SubscriptionUsage(Request):
    """POST /v1/subscriptions/usage: what a period comes to, charge by charge.

    start_time, end_time  Those of one of the subscription's periods; absent, of the one now.
    """

    subscription_id: Name
    start_time: OptionalMoment = None
    end_time: OptionalMoment = None
    lifetime_usage: Literal[False, None] = None


class InvoiceSearch(Page):
    """GET /v1/invoices, POST /v1/invoices/search."""

    status: Literal["published", "all"] = "published"
    invoice_ids: Ids | None = None
    subscription_id: OptionalName = None
    customer_id: OptionalName = None
    external_customer_id: OptionalName = None
    currency: Currency | None = None
    invoice_status: Annotated[
        list[Literal["DRAFT", "FINALIZED", "VOIDED"]] | None, BeforeValidator(texts)
    ] = None
    invoice_type: Literal["SUBSCRIPTION", "", None] = None


class LateEvents(Request):
    """GET /v1/invoices/:id/lines/:line_id/events: a page of an adjustment's events.

    after  The `next` of the page before.
    """

    limit: Annotated[int, BeforeValidator(whole(1, PAGE_SIZE_MAX))] = PAGE_SIZE
    after: Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")] | None = None


class StepDocument(TypedDict):
    """What a tier holds of a line."""

    up_to: int | None
    quantity: str
    amount: str


class AdjustmentDocument(TypedDict):
    """Which closed period late usage changed, and how many events it was."""

    invoice_id: str
    period_start: datetime
    period_end: datetime
    event_count: int


class InvoiceLineDocument(TypedDict):
    """What one price comes to, or what late usage changed about it.

    usage                          As any usage query says it; null where that is.
    quantity                       What is priced; with what the limit covers it is the usage.
    adjusted_entitlement_quantity  What the limit covers.
    unit                           The quantity with its unit: "5 credits".
    """

    id: str
    price_id: str
    feature_id: str
    meter_id: str
    display_name: str
    usage: str | None
    text: NotRequired[str]
    quantity: str
    adjusted_entitlement_quantity: str
    unit: str
    amount: str
    currency: str
    tiers: NotRequired[list[StepDocument]]
    warnings: list[str]
    period_start: datetime
    period_end: datetime
    metadata: dict[str, str]
    adjustment: NotRequired[AdjustmentDocument]


class InvoiceDocument(TypedDict):
    """What a period comes to. A preview has no id and no number."""

    id: NotRequired[str]
    invoice_number: NotRequired[str]
    invoice_type: Literal["SUBSCRIPTION"]
    invoice_status: Literal["DRAFT", "FINALIZED"]
    subscription_id: str
    customer_id: str
    external_customer_id: str
    plan_id: str
    currency: str
    billing_period: BillingPeriod
    period_start: datetime
    period_end: datetime
    timezone: str
    subtotal: str
    total: str
    amount_due: str
    line_items: list[InvoiceLineDocument]
    finalized_at: NotRequired[datetime]
    created_at: NotRequired[datetime]
    updated_at: NotRequired[datetime]


class ChargeDocument(TypedDict):
    """What one price of a subscription comes to so far."""

    subscription_line_item_id: str
    meter_id: str
    meter_display_name: str
    feature_id: str
    display_name: str
    price_id: str
    usage: str | None
    quantity: str
    adjusted_entitlement_quantity: str
    unit: str
    amount: str
    currency: str
    display_amount: str
    price: dict[str, Any]


class SubscriptionUsageDocument(TypedDict):
    """What a subscription's period comes to, charge by charge."""

    subscription_id: str
    amount: str
    currency: str
    display_amount: str
    start_time: datetime
    end_time: datetime
    charges: list[ChargeDocument]


class LateEventDocument(TypedDict):
    """An event that came after its period was closed."""

    event_id: str
    timestamp: datetime
    ingested_at: datetime


class LateEventsDocument(TypedDict):
    """A page of them, in the order of the log; `next` asks for the rest."""

    items: list[LateEventDocument]
    next: NotRequired[str]
