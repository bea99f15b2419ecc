"""What the console answers about the catalog, as types: for the OpenAPI, and for tests of answers.

Moments are ISO 8601 in UTC, amounts and quantities decimal texts; what is absent is left out.
"""

from datetime import datetime
from typing import Any, Generic, Literal, NotRequired, TypeVar

from typing_extensions import TypedDict

from schemas.catalog import Aggregation, Reset, Scope, Status, Window
from schemas.plans import (
    BillingCycle,
    BillingModel,
    BillingPeriod,
    CancellationType,
    LimitReset,
    Rounding,
    TierMode,
)

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
    """What is shown of an API key: never the key itself.

    Its limits are requests a minute; 0 is none, and where one is left out the gateway's own holds.
    """

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


class TierDocument(TypedDict):
    """A step of a tiered price; `up_to` null in the last."""

    up_to: int | None
    unit_amount: str
    flat_amount: str


class TransformQuantityDocument(TypedDict):
    """The units of a package, and whether one that was begun is charged."""

    divide_by: int
    round: Rounding


class PlainPriceDocument(TypedDict):
    """A price."""

    id: str
    plan_id: str
    entity_type: Literal["PLAN"]
    entity_id: str
    feature_id: str
    meter_id: str
    type: Literal["USAGE"]
    price_unit_type: Literal["FIAT"]
    billing_cadence: Literal["RECURRING"]
    invoice_cadence: Literal["ARREAR"]
    currency: str
    billing_period: BillingPeriod
    billing_period_count: int
    billing_model: BillingModel
    amount: str
    tier_mode: NotRequired[TierMode]
    tiers: NotRequired[list[TierDocument]]
    transform_quantity: NotRequired[TransformQuantityDocument]
    display_name: str
    description: str
    lookup_key: NotRequired[str]
    metadata: dict[str, str]
    status: Status
    created_at: datetime
    updated_at: datetime


class PriceDocument(PlainPriceDocument):
    """A price with its feature's meter."""

    meter: MeterDocument


class PlainEntitlementDocument(TypedDict):
    """How much of a feature a plan gives for free; a null limit is no limit."""

    id: str
    plan_id: str
    entity_type: Literal["PLAN"]
    entity_id: str
    feature_id: str
    feature_type: Literal["metered"]
    is_enabled: bool
    usage_limit: int | None
    usage_reset_period: NotRequired[LimitReset]
    status: Status
    created_at: datetime
    updated_at: datetime


class EntitlementDocument(PlainEntitlementDocument):
    """An entitlement with its feature."""

    feature: FeatureDocument


class PlainPlanDocument(TypedDict):
    """A plan."""

    id: str
    name: str
    lookup_key: NotRequired[str]
    display_order: NotRequired[int]
    description: str
    metadata: dict[str, str]
    status: Status
    created_at: datetime
    updated_at: datetime


class PlanDocument(PlainPlanDocument):
    """A plan with its published prices and entitlements."""

    prices: list[PlainPriceDocument]
    entitlements: list[PlainEntitlementDocument]


class PhaseDocument(TypedDict):
    """A plan that a subscription is on from a moment on."""

    plan_id: str
    start_date: datetime


class LineItemDocument(TypedDict):
    """A price that a subscription is billed by, as its plan stands now."""

    id: str
    subscription_id: str
    customer_id: str
    entity_type: Literal["plan"]
    entity_id: str
    plan_display_name: str
    price_id: str
    price_type: Literal["USAGE"]
    feature_id: str
    meter_id: str
    meter_display_name: str
    display_name: str
    currency: str
    billing_period: BillingPeriod
    billing_period_count: int
    invoice_cadence: Literal["ARREAR"]
    start_date: datetime
    status: Status
    price: PlainPriceDocument


class SubscriptionDocument(TypedDict):
    """A subscription as it stands now, with its plan, its customer and what it is billed by.

    subscription_status   `status` only says that it isn't archived.
    current_period_start  The period of now; the first before the start, the last after the end.
    """

    id: str
    customer_id: str
    plan_id: str
    currency: str
    billing_cadence: Literal["RECURRING"]
    billing_period: BillingPeriod
    billing_period_count: int
    billing_cycle: BillingCycle
    billing_anchor: datetime
    timezone: str
    start_date: datetime
    end_date: NotRequired[datetime]
    cancellation_type: NotRequired[CancellationType]
    cancelled_at: NotRequired[datetime]
    cancel_at: NotRequired[datetime]
    cancel_reason: NotRequired[str]
    lookup_key: NotRequired[str]
    phases: list[PhaseDocument]
    metadata: dict[str, str]
    status: Status
    subscription_status: Literal["active", "cancelled"]
    current_period_start: NotRequired[datetime]
    current_period_end: NotRequired[datetime]
    line_items: list[LineItemDocument]
    plan: PlainPlanDocument
    customer: CustomerDocument
    created_at: datetime
    updated_at: datetime


class CancellationDocument(TypedDict):
    """What a cancellation did."""

    subscription_id: str
    status: Literal["active", "cancelled"]
    effective_date: datetime
    cancellation_type: CancellationType
    processed_at: datetime
    reason: NotRequired[str]


class PeriodDocument(TypedDict):
    """A billing period `[start, end)` on one plan."""

    plan_id: str
    period_start: datetime
    period_end: datetime


class BillingCycleDocument(TypedDict):
    """The period that begins with a plan change, and the rhythm that it keeps."""

    billing_anchor: datetime
    billing_cadence: Literal["RECURRING"]
    billing_period: BillingPeriod
    billing_period_count: int
    period_start: datetime
    period_end: datetime


class PlanChangeDocument(TypedDict):
    """What a plan change would do; `periods` are those around it, cut at `effective_date`."""

    subscription_id: str
    current_plan: PlainPlanDocument
    target_plan: PlainPlanDocument
    effective_date: datetime
    new_billing_cycle: BillingCycleDocument
    periods: list[PeriodDocument]
    warnings: list[str]
    metadata: dict[str, str]


class SubscriptionSummaryDocument(TypedDict):
    """A subscription before or after a plan change."""

    id: str
    plan_id: str
    status: Literal["active", "cancelled"]
    billing_anchor: datetime
    current_period_start: datetime
    current_period_end: datetime
    created_at: datetime


class PlanChangedDocument(TypedDict):
    """What a plan change did: one subscription goes on, on another plan."""

    effective_date: datetime
    is_scheduled: bool
    scheduled_at: NotRequired[datetime]
    old_subscription: SubscriptionSummaryDocument
    new_subscription: SubscriptionSummaryDocument
    metadata: dict[str, str]


class GrantDocument(TypedDict):
    """How much of a feature is free."""

    is_enabled: bool
    usage_limit: NotRequired[int]
    usage_reset_period: NotRequired[LimitReset]


class GrantSourceDocument(TypedDict):
    """Where a free limit comes from."""

    subscription_id: str
    entity_type: Literal["plan"]
    entity_id: str
    entity_name: str
    entitlement_id: str
    is_enabled: bool
    usage_limit: NotRequired[int]


class GrantedFeatureDocument(TypedDict):
    """A feature and what is free of it; without `usage_limit` all of it, when enabled."""

    feature: FeatureDocument
    entitlement: GrantDocument
    sources: list[GrantSourceDocument]


class SubscriptionEntitlementsDocument(TypedDict):
    """What a subscription gives for free now."""

    subscription_id: str
    plan_id: str
    features: list[GrantedFeatureDocument]


class CustomerEntitlementsDocument(TypedDict):
    """What a customer's active subscriptions give for free now."""

    customer_id: str
    features: list[GrantedFeatureDocument]


class AttributionDocument(TypedDict):
    """Where a customer's use of a feature is billed at a moment, or why nowhere.

    period_start, period_end  Of a cumulative feature, the first period that bills it: it is in the
                              level of that one and of those behind it.
    """

    customer_id: str
    external_customer_id: str
    feature_id: str
    at: datetime
    billed: bool
    reason: NotRequired[
        Literal["feature_in_no_plan", "no_subscription", "not_in_plan", "not_started", "ended"]
    ]
    message: NotRequired[str]
    subscription: NotRequired[SubscriptionDocument]
    plan: NotRequired[PlainPlanDocument]
    price: NotRequired[PlainPriceDocument]
    entitlement: NotRequired[PlainEntitlementDocument]
    period_start: NotRequired[datetime]
    period_end: NotRequired[datetime]


class SweepDocument(TypedDict):
    """How many events from before a feature wait to be counted, and how many were sent again."""

    pending: int
    resent: int
    done: bool
