"""What is sold, for tests: what a test isn't about is filled in."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from billing.charges import Basis, Charge
from billing.periods import Period, period_at
from billing.units import Unit
from schemas.catalog import Aggregation, Feature, Reset, Status, Window
from schemas.plans import (
    BillingCycle,
    BillingModel,
    BillingPeriod,
    Entitlement,
    LimitReset,
    Phase,
    Price,
    Rounding,
    Subscription,
    Tier,
    TierMode,
)

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
)
"""Clocks that change at midnight, by half an hour, by a day, and not at all."""


def at(text: str) -> datetime:
    """The moment of an ISO text; UTC without an offset."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def make_subscription(
    start: str | datetime = "2025-01-01",
    end: str | datetime | None = None,
    period: str = "MONTHLY",
    *,
    count: int = 1,
    cycle: str = "anniversary",
    anchor: str | datetime | None = None,
    zone: str = "UTC",
    changes: dict[str, Any] | None = None,
) -> Subscription:
    """A subscription to `plan_a`, anchored at its start; `changes`: plan to when it began."""
    begins = at(start) if isinstance(start, str) else start
    later = changes or {}
    return Subscription(
        id="subs_1",
        account="acme",
        customer_id="cust_1",
        external_customer_id="c1",
        currency="usd",
        period=BillingPeriod(period),
        period_count=count,
        cycle=BillingCycle(cycle),
        anchor=begins if anchor is None else at(anchor) if isinstance(anchor, str) else anchor,
        zone=zone,
        start=begins,
        end=at(end) if isinstance(end, str) else end,
        phases=(
            Phase("plan_a", begins),
            *(Phase(plan, at(t) if isinstance(t, str) else t) for plan, t in later.items()),
        ),
        created_at=begins + timedelta(seconds=1),
    )


def make_feature(
    aggregation: str = "SUM",
    *,
    reset: str = "BILLING_PERIOD",
    bucket_size: str | None = None,
    multiplier: str | None = None,
    name: str = "feat_1",
) -> Feature:
    """A feature of the event name that is its id."""
    return Feature(
        id=name,
        meter_id=f"meter_{name}",
        account="acme",
        event_name=name,
        aggregation=Aggregation(aggregation),
        field=None if aggregation == "COUNT" else "n",
        multiplier=None if multiplier is None else Decimal(multiplier),
        bucket_size=None if bucket_size is None else Window(bucket_size),
        group_by=None,
        filters=(("region", frozenset({"eu", "us"})),),
        reset_usage=Reset(reset),
        status=Status.PUBLISHED,
        created_version=1,
        version=1,
    )


def make_price(
    amount: str = "1",
    *,
    tiers: str = "",
    mode: str | None = None,
    divide_by: int | None = None,
    rounding: str = "up",
    feature: str = "feat_1",
    plan: str = "plan_a",
    currency: str = "usd",
) -> Price:
    """A price: flat, per package of `divide_by`, or with tiers like "10:1 20:0.5+3 *:0.25"."""
    model = BillingModel.TIERED if tiers else BillingModel.FLAT_FEE
    return Price(
        id=f"price_{plan}_{feature}",
        plan_id=plan,
        feature_id=feature,
        meter_id=f"meter_{feature}",
        display_name="Things",
        currency=currency,
        model=BillingModel.PACKAGE if divide_by else model,
        amount=Decimal("0" if tiers else amount),
        divide_by=divide_by or 1,
        rounding=Rounding(rounding),
        tier_mode=TierMode(mode) if mode else None,
        tiers=tuple(_tier(text) for text in tiers.split()),
    )


def _tier(text: str) -> Tier:
    bound, _, amounts = text.partition(":")
    unit, _, flat = amounts.partition("+")
    return Tier(None if bound == "*" else int(bound), Decimal(unit), Decimal(flat or "0"))


def make_entitlement(
    limit: int | None,
    reset: str | None = None,
    *,
    enabled: bool = True,
    feature: str = "feat_1",
    plan: str = "plan_a",
) -> Entitlement:
    """A free limit; None is unlimited."""
    return Entitlement(
        id=f"ent_{plan}_{feature}",
        plan_id=plan,
        feature_id=feature,
        is_enabled=enabled,
        usage_limit=limit,
        reset=None if reset is None else LimitReset(reset),
    )


def make_period(subscription: Subscription, moment: str | datetime | None = None) -> Period:
    """The period of a moment, or the first."""
    when = subscription.start if moment is None else moment
    period = period_at(subscription, at(when) if isinstance(when, str) else when)
    assert period is not None
    return period


def make_basis(
    charge: Charge | None = None,
    *,
    subscription: Subscription | None = None,
    moment: str | datetime | None = None,
    digits: int = 2,
) -> Basis:
    """A basis with one charge, in the period of a moment, or in the first."""
    sold_to = subscription or make_subscription()
    return Basis(sold_to, make_period(sold_to, moment), digits, (charge or make_charge(),))


def make_charge(
    price: Price | None = None,
    feature: Feature | None = None,
    entitlement: Entitlement | None = None,
    unit: Unit | None = None,
) -> Charge:
    """One dollar per unit of a SUM, without a limit."""
    return Charge(
        price=price or make_price(),
        feature=feature or make_feature(),
        unit=unit or Unit("credit", "credits"),
        entitlement=entitlement,
    )
