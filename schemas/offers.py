"""Requests about what is sold: plans, their prices and their entitlements."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from schemas.catalog import Status
from schemas.currency import Currency
from schemas.decimals import Amount
from schemas.plans import BillingModel, BillingPeriod, LimitReset, Rounding, TierMode
from schemas.requests import (
    Count,
    Description,
    Ids,
    Metadata,
    Name,
    Nothing,
    OptionalName,
    Page,
    Request,
    Whole,
    absent_if_empty,
    absent_list,
    fault,
    texts,
    whole,
)

TIERS_MAX = 100
PERIOD_COUNT_MAX = 100

PeriodCount = Annotated[int, BeforeValidator(whole(1, PERIOD_COUNT_MAX))]
OptionalCurrency = Annotated[Currency | None, BeforeValidator(absent_if_empty)]


class NewPlan(Request):
    """POST /v1/plans: a name under which prices and entitlements are sold together."""

    name: Name
    lookup_key: OptionalName = None
    description: Description = ""
    display_order: Whole | None = None
    metadata: Metadata = Field(default_factory=dict)


class PlanUpdate(Request):
    """PUT /v1/plans/:id: what can change; a field left out stays as it is."""

    name: Name | None = None
    lookup_key: OptionalName = None
    description: Description | None = None
    display_order: Whole | None = None
    metadata: Metadata | None = None
    status: Status | None = None


class PlanSearch(Page):
    """GET /v1/plans, POST /v1/plans/search."""

    plan_ids: Ids | None = None
    lookup_key: OptionalName = None
    lookup_keys: Ids | None = None
    name_contains: OptionalName = None


class OfPlan(Request):
    """What belongs to a plan, named as `plan_id` or as an entity of type PLAN."""

    plan_id: OptionalName = None
    entity_type: Literal["PLAN"] = "PLAN"
    entity_id: OptionalName = None

    @property
    def plan(self) -> str:
        """The plan's id."""
        return self.plan_id or self.entity_id or ""

    @model_validator(mode="after")
    def _names_one_plan(self) -> Self:
        if not self.plan:
            raise fault("plan_id", "missing", "send the plan's id, here or as entity_id")
        if self.plan_id and self.entity_id and self.plan_id != self.entity_id:
            raise fault("entity_id", "not_allowed", "entity_id is not plan_id: send one of both")
        return self


class NewTier(Request):
    """A step of a tiered price: for quantities up to `up_to`, itself included."""

    up_to: Count | None = None
    unit_amount: Amount
    flat_amount: Annotated[Amount | None, BeforeValidator(absent_if_empty)] = None


def _ascending(tiers: list[NewTier]) -> list[NewTier]:
    bounds = [tier.up_to for tier in tiers]
    if bounds and bounds[-1] is not None:
        raise PydanticCustomError("not_open", "have to end open: leave the last up_to out")
    closed = [bound for bound in bounds[:-1] if bound is not None]
    if len(closed) < len(bounds[:-1]):
        raise PydanticCustomError("not_ascending", "may be open at the end only: add the up_to")
    if any(high <= low for low, high in pairwise(closed)):
        raise PydanticCustomError("not_ascending", "have to ascend: each up_to above the last")
    return tiers


class TransformQuantity(Request):
    """How many units make a package, and whether one that was begun is charged."""

    divide_by: Count
    round: Annotated[
        Rounding, BeforeValidator(lambda value: Rounding.UP if value in (None, "") else value)
    ] = Rounding.UP


class NewPrice(OfPlan):
    """POST /v1/prices: what a plan asks for a feature's usage, in a currency, per billing period.

    meter_id            The meter of the feature.
    amount              Per unit (FLAT_FEE), or per package (PACKAGE); none when TIERED.
    tiers               Of TIERED, with the mode; bounds inclusive and ascending, the last open.
    transform_quantity  Of PACKAGE.
    """

    type: Literal["USAGE"] = "USAGE"
    price_unit_type: Literal["FIAT"] = "FIAT"
    invoice_cadence: Literal["ARREAR"] = "ARREAR"
    billing_cadence: Literal["RECURRING"] = "RECURRING"
    currency: Currency
    billing_period: BillingPeriod
    billing_period_count: PeriodCount = 1
    billing_model: BillingModel
    meter_id: Name
    amount: Annotated[Amount | None, BeforeValidator(absent_if_empty)] = None
    tier_mode: Annotated[TierMode | None, BeforeValidator(absent_if_empty)] = None
    tiers: Annotated[
        list[NewTier],
        Field(max_length=TIERS_MAX),
        AfterValidator(_ascending),
        BeforeValidator(absent_list),
    ] = Field(default_factory=list)
    transform_quantity: TransformQuantity | None = None
    display_name: OptionalName = None
    description: Description = ""
    lookup_key: OptionalName = None
    metadata: Metadata = Field(default_factory=dict)
    bucket_size: Nothing = None
    end_date: Nothing = None
    filter_values: Nothing = None
    group_id: Nothing = None
    min_quantity: Nothing = None
    price_unit_config: Nothing = None
    start_date: Nothing = None
    trial_period_days: Nothing = None

    @model_validator(mode="after")
    def _fits_its_model(self) -> Self:
        model = self.billing_model
        tiered, package = model is BillingModel.TIERED, model is BillingModel.PACKAGE
        if tiered and self.amount:
            raise fault("amount", "not_allowed", "TIERED has them in tiers: leave amount out")
        if not tiered and self.amount is None:
            raise fault("amount", "missing", f'{model} needs an amount, like "0.05"')
        for field, wanted, cure in (
            ("tier_mode", tiered, "VOLUME or SLAB"),
            ("tiers", tiered, "a list of them"),
            ("transform_quantity", package, '{"divide_by": 100}'),
        ):
            given = bool(getattr(self, field))
            if wanted and not given:
                raise fault(field, "missing", f"{model} needs {field}: send {cure}")
            if given and not wanted:
                raise fault(field, "not_allowed", f"{model} takes no {field}: leave it out")
        return self


class PriceUpdate(Request):
    """PUT /v1/prices/:id: what can change; what decides the amount can't."""

    display_name: Name | None = None
    description: Description | None = None
    lookup_key: OptionalName = None
    metadata: Metadata | None = None
    status: Status | None = None


class PriceEnd(Request):
    """DELETE /v1/prices/:id: the SDKs send a body; a price is archived at once."""

    end_date: Nothing = None


class OfPlans(Page):
    """A search among what belongs to plans."""

    plan_ids: Ids | None = None
    entity_type: Literal["PLAN"] | None = None
    entity_ids: Ids | None = None
    feature_ids: Ids | None = None


class PriceSearch(OfPlans):
    """GET /v1/prices, POST /v1/prices/search. No price expires, whatever the SDKs allow."""

    price_ids: Ids | None = None
    meter_ids: Ids | None = None
    currency: OptionalCurrency = None
    billing_periods: Annotated[list[BillingPeriod] | None, BeforeValidator(texts)] = None
    allow_expired_prices: bool | None = None
    lookup_key: OptionalName = None
    lookup_keys: Ids | None = None


OptionalReset = Annotated[LimitReset | None, BeforeValidator(absent_if_empty)]


class NewEntitlement(OfPlan):
    """POST /v1/entitlements: how much of a feature a plan gives for free.

    usage_limit         Units that cost nothing; null or absent: all of them.
    is_enabled          False: nothing is free.
    usage_reset_period  When the limit is granted anew; absent: with each billing period.
    """

    feature_id: Name
    feature_type: Literal["metered"] = "metered"
    is_enabled: StrictBool = True
    usage_limit: Whole | None = None
    usage_reset_period: OptionalReset = None
    aggregation_mode: Literal["additive", "", None] = None
    config_value: Nothing = None
    end_date: Nothing = None
    grant_allocation_behavior: Nothing = None
    grant_duration_unit: Nothing = None
    grant_duration_value: Nothing = None
    grant_measure: Nothing = None
    grant_quota: Nothing = None
    grant_unlimited: Nothing = None
    is_soft_limit: Nothing = None
    parent_entitlement_id: Nothing = None
    start_date: Nothing = None
    static_value: Nothing = None


class EntitlementUpdate(Request):
    """PUT /v1/entitlements/:id: what can change; null for the limit makes it unlimited."""

    is_enabled: StrictBool | None = None
    usage_limit: Whole | None = None
    usage_reset_period: OptionalReset = None
    status: Status | None = None


class EntitlementSearch(OfPlans):
    """GET /v1/entitlements, POST /v1/entitlements/search."""

    entitlement_ids: Ids | None = None
    feature_type: Literal["metered"] | None = None
    is_enabled: bool | None = None
