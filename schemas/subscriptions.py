"""Requests about subscriptions: a customer on a plan."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.currency import Currency
from schemas.offers import PeriodCount
from schemas.plans import BillingCycle, BillingPeriod, CancellationType
from schemas.requests import (
    Description,
    Ids,
    Metadata,
    Moment,
    Name,
    Nothing,
    OptionalName,
    OptionalTimezone,
    Page,
    Request,
    absent_if_empty,
    fault,
    texts,
)


def _dated(moment: datetime | None) -> datetime | None:
    """A moment that periods can be counted from, to the millisecond."""
    if moment is None:
        return None
    if not 1970 <= moment.year <= 2200:
        raise PydanticCustomError("out_of_range", "has to lie from 1970 to 2200")
    return to_millisecond(moment)


def to_millisecond(moment: datetime) -> datetime:
    """The moment in UTC, its digits beyond the millisecond cut, as those of events are."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


OptionalMoment = Annotated[Moment | None, AfterValidator(_dated), BeforeValidator(absent_if_empty)]
OptionalCycle = Annotated[
    BillingCycle, BeforeValidator(lambda value: value or BillingCycle.ANNIVERSARY)
]
NoProration = Annotated[
    Literal["none"] | None,
    BeforeValidator(absent_if_empty),
]
"""Usage is never prorated, and nothing else is sold."""


class NewSubscription(Request):
    """POST /v1/subscriptions: put a customer on a plan.

    customer_id     Ours, or the client's own as `external_customer_id`.
    start_date      Now, where absent. A start in the past closes its elapsed periods at once.
    billing_anchor  Where anniversary periods begin; the start, where absent.
    timezone        Where periods begin: absent, the customer's, or UTC.
    """

    customer_id: OptionalName = None
    external_customer_id: OptionalName = None
    plan_id: Name
    currency: Currency
    billing_period: BillingPeriod
    billing_period_count: PeriodCount = 1
    billing_cadence: Literal["RECURRING"] = "RECURRING"
    billing_cycle: OptionalCycle = BillingCycle.ANNIVERSARY
    billing_anchor: OptionalMoment = None
    start_date: OptionalMoment = None
    end_date: OptionalMoment = None
    timezone: OptionalTimezone = None
    lookup_key: OptionalName = None
    metadata: Metadata = Field(default_factory=dict)
    collection_method: Literal["send_invoice", "", None] = None
    proration_behavior: NoProration = None
    subscription_status: Literal["active", "", None] = None
    addons: Nothing = None
    auto_invoice_threshold: Nothing = None
    checkout: Nothing = None
    commitment_amount: Nothing = None
    commitment_duration: Nothing = None
    coupons: Nothing = None
    credit_grants: Nothing = None
    enable_true_up: Nothing = None
    fx_rates: Nothing = None
    gateway_payment_method_id: Nothing = None
    include_price_ids: Nothing = None
    inheritance: Nothing = None
    line_item_commitments: Nothing = None
    line_item_coupons: Nothing = None
    line_item_grouping: Nothing = None
    line_items: Nothing = None
    overage_factor: Nothing = None
    override_entitlements: Nothing = None
    override_line_items: Nothing = None
    payment_behavior: Nothing = None
    payment_terms: Nothing = None
    phases: Nothing = None
    subscription_coupons: Nothing = None
    tax_rate_overrides: Nothing = None
    trial_period_days: Nothing = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.customer_id is None and self.external_customer_id is None:
            raise fault("customer_id", "missing", "send customer_id or external_customer_id")
        if self.billing_anchor is not None and self.billing_cycle is BillingCycle.CALENDAR:
            detail = "the calendar cycle begins on the calendar's boundaries: leave it out"
            raise fault("billing_anchor", "not_allowed", detail)
        return self


class SubscriptionUpdate(Request):
    """PUT /v1/subscriptions/:id: what can change besides cancelling and changing the plan."""

    lookup_key: OptionalName = None
    metadata: Metadata | None = None


class Cancellation(Request):
    """POST /v1/subscriptions/:id/cancel: now, at the period's end, or at a date."""

    cancellation_type: CancellationType
    cancel_at: OptionalMoment = None
    reason: Description = ""
    proration_behavior: NoProration = None
    cancel_immediately_invoice_policy: Literal["generate_invoice", "", None] = None

    @model_validator(mode="after")
    def _has_its_date(self) -> Self:
        dated = self.cancellation_type is CancellationType.SCHEDULED_DATE
        if dated and self.cancel_at is None:
            raise fault("cancel_at", "missing", "scheduled_date needs the date: send cancel_at")
        if not dated and self.cancel_at is not None:
            detail = f"{self.cancellation_type} has no date: leave it out, or use scheduled_date"
            raise fault("cancel_at", "not_allowed", detail)
        return self


class PlanChange(Request):
    """POST /v1/subscriptions/:id/change/preview and /execute: another plan from a moment on.

    effective_date  From when on; or `change_at`; absent: at once. The period is cut there.
    billing_...     The SDKs repeat the subscription's own; they can't change.
    """

    target_plan_id: Name
    effective_date: OptionalMoment = None
    change_at: Annotated[
        Literal["immediate", "end_of_period"] | None, BeforeValidator(absent_if_empty)
    ] = None
    billing_cadence: Literal["RECURRING"] = "RECURRING"
    billing_period: BillingPeriod | None = None
    billing_period_count: PeriodCount | None = None
    billing_cycle: BillingCycle | None = None
    proration_behavior: NoProration = None
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_one_date(self) -> Self:
        if self.effective_date is not None and self.change_at is not None:
            raise fault("change_at", "not_allowed", "send effective_date or change_at, not both")
        return self


class SubscriptionSearch(Page):
    """GET /v1/subscriptions, POST /v1/subscriptions/search.

    plan_id    On which a subscription is, was or will be.
    active_at  Those that are active at this moment.
    """

    subscription_ids: Ids | None = None
    customer_id: OptionalName = None
    customer_ids: Ids | None = None
    external_customer_id: OptionalName = None
    plan_id: OptionalName = None
    currency: OptionalName = None
    billing_period: Annotated[list[BillingPeriod] | None, BeforeValidator(texts)] = None
    subscription_status: Annotated[
        list[Literal["active", "cancelled"]] | None, BeforeValidator(texts)
    ] = None
    active_at: OptionalMoment = None
    lookup_key: OptionalName = None


class AttributionQuery(Request):
    """GET /v1/customers/:id/billing: which feature, and when; now, if absent."""

    feature_id: Name
    at: OptionalMoment = None


class EntitlementsQuery(Request):
    """GET /v1/customers/:id/entitlements: of which features and subscriptions; all, if absent."""

    feature_ids: Ids | None = None
    subscription_ids: Ids | None = None
