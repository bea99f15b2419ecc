"""What is sold, to whom and when, as billing reads it: plans' prices and limits, subscriptions.

Frozen values without behaviour of their own: `catalog/` makes them from its rows, `billing/`
computes with them, and an invoice keeps a copy of those that it was computed with.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec


class BillingPeriod(StrEnum):
    """The unit of a billing period; a subscription has a count of them."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    QUARTERLY = "QUARTERLY"
    HALF_YEARLY = "HALF_YEARLY"
    ANNUAL = "ANNUAL"


class LimitReset(StrEnum):
    """How often a free limit is granted anew."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    QUARTERLY = "QUARTERLY"
    HALF_YEARLY = "HALF_YEARLY"
    ANNUAL = "ANNUAL"
    NEVER = "NEVER"


def is_longer(reset: LimitReset, period: BillingPeriod, count: int) -> bool:
    """Whether a limit is granted anew less often than a period of `count` units comes.

    Months and days are compared by their mean over the 400 years of the calendar's cycle.
    """
    if reset is LimitReset.NEVER:
        return True
    return _mean_length(reset) > _mean_length(period) * count


def _mean_length(unit: LimitReset | BillingPeriod) -> int:
    """In 4800ths of a day: 4800 months have 146,097 days."""
    months = {"MONTHLY": 1, "QUARTERLY": 3, "HALF_YEARLY": 6, "ANNUAL": 12}
    return months[unit] * 146_097 if unit in months else {"DAILY": 1, "WEEKLY": 7}[unit] * 4800


class BillingModel(StrEnum):
    """How a quantity becomes an amount."""

    FLAT_FEE = "FLAT_FEE"
    PACKAGE = "PACKAGE"
    TIERED = "TIERED"


class TierMode(StrEnum):
    """All of the quantity at one tier, or each part of it at its own."""

    VOLUME = "VOLUME"
    SLAB = "SLAB"


class Rounding(StrEnum):
    """Whether a package that was begun is charged."""

    UP = "up"
    DOWN = "down"


class BillingCycle(StrEnum):
    """Whether periods begin on the anchor's day, or on the calendar's boundaries."""

    ANNIVERSARY = "anniversary"
    CALENDAR = "calendar"


class CancellationType(StrEnum):
    """When a cancelled subscription ends."""

    IMMEDIATE = "immediate"
    END_OF_PERIOD = "end_of_period"
    SCHEDULED_DATE = "scheduled_date"


class Tier(msgspec.Struct, frozen=True):
    """A step of a tiered price: quantities up to `up_to` inclusive; None in the last."""

    up_to: int | None
    unit_amount: Decimal
    flat_amount: Decimal = Decimal(0)


class Price(msgspec.Struct, frozen=True):
    """What a plan asks for a feature's usage. Never changes: archive it and create another.

    amount     Per unit (FLAT_FEE) or per package of `divide_by` units (PACKAGE); 0 when TIERED.
    tiers      Ascending, the last open; empty unless TIERED.
    currency   ISO 4217 in lower case.
    """

    id: str
    plan_id: str
    feature_id: str
    meter_id: str
    display_name: str
    currency: str
    model: BillingModel
    amount: Decimal
    divide_by: int = 1
    rounding: Rounding = Rounding.UP
    tier_mode: TierMode | None = None
    tiers: tuple[Tier, ...] = ()


class Entitlement(msgspec.Struct, frozen=True):
    """How much of a feature a plan gives for free.

    usage_limit  Units that cost nothing; None: all of them.
    reset        When the limit is granted anew; None: with each billing period.
    """

    id: str
    plan_id: str
    feature_id: str
    is_enabled: bool
    usage_limit: int | None
    reset: LimitReset | None = None


class Phase(msgspec.Struct, frozen=True):
    """A stretch of a subscription on one plan: from `start` to the next phase or the end."""

    plan_id: str
    start: datetime


class Subscription(msgspec.Struct, frozen=True):
    """A customer on a plan.

    anchor        Whose day, hour and so on every period begins at, in the zone's wall time.
    start, end    Half-open; `end` is None while nobody ended it.
    phases        By start; a plan change adds one. The first begins with the subscription.
    created_at    When it was made: a start in the past closes its elapsed periods at once.
    """

    id: str
    account: str
    customer_id: str
    external_customer_id: str
    currency: str
    period: BillingPeriod
    period_count: int
    cycle: BillingCycle
    anchor: datetime
    zone: str
    start: datetime
    end: datetime | None
    phases: tuple[Phase, ...]
    created_at: datetime
