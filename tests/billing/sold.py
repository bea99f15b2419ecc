"""What is sold, for tests: what a test isn't about is filled in."""

from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.plans import BillingCycle, BillingPeriod, Phase, Subscription

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
