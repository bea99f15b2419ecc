"""Stretches: over which time a subscription bills a feature, so that no other of its customer does.

What is invoiced was billed by the lines of its invoices, whatever was archived since; what is not
will be billed by the prices that its plans have now, as its next invoices are computed with them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog import invoices
from catalog.plan_tables import PriceRow
from catalog.tables import moment
from schemas.catalog import Status
from schemas.errors import AlreadyExists, shown
from schemas.plans import BillingPeriod, Subscription


class Stretch(NamedTuple):
    """A subscription bills a feature over `[start, end)`; `end` is None where nothing ends it."""

    subscription_id: str
    feature_id: str
    start: datetime
    end: datetime | None

    def after(self, moment: datetime) -> bool:
        """Whether something of it comes after a moment."""
        return self.end is None or self.end > moment

    def meets(self, other: "Stretch") -> bool:
        """Whether both bill the same use, as two subscriptions."""
        same = self.feature_id == other.feature_id
        both = self.after(other.start) and other.after(self.start)
        return same and both and self.subscription_id != other.subscription_id


class _Sale(NamedTuple):
    """A plan on the terms that its prices and a subscription have to agree on."""

    plan_id: str
    currency: str
    period: BillingPeriod
    period_count: int


def billed(
    session: Session, theirs: Sequence[Subscription], since: datetime, wish: PriceRow | None = None
) -> list[Stretch]:
    """What subscriptions of one customer bill after a moment, and will; in their order.

    `wish` is a price that is not published yet, and counts as if it were.
    """
    sold = _sold(session, theirs)
    if wish is not None:
        sold[_sale(wish)].add(wish.feature_id)
    customer_id = theirs[0].customer_id
    closed = invoices.closed_until(session, customer_id)
    lines = invoices.billed(session, customer_id, since)
    found = []
    for each in theirs:
        mine = (line for line in lines if line.subscription_id == each.id)
        found += [
            Stretch(each.id, feature_id, line.start, line.end)
            for line in mine
            for feature_id in sorted(line.prices)
        ]
        begins = closed.get(each.id, each.start)
        found += [one for one in _planned(each, begins, sold) if one.after(since)]
    return found


def check_alone(
    session: Session,
    own: Subscription,
    theirs: Iterable[Subscription],
    since: datetime,
    wish: PriceRow | None = None,
) -> None:
    """Raises AlreadyExists where another of the customer's bills what a subscription would.

    `theirs` are all of the customer's, and `own` stands for what was there of itself. What is
    asked is the time from `since` on, and, if there is one, the feature of the price `wish`.
    """
    others = [each for each in theirs if each.id != own.id]
    found = billed(session, [own, *others], since, wish)
    mine = [one for one in found if one.subscription_id == own.id]
    if wish is not None:
        mine = [one for one in mine if one.feature_id == wish.feature_id]
    pairs = [(one, other) for one in mine for other in found if one.meets(other)]
    if pairs:
        _, first = pairs[0]
        both = [pair for pair in pairs if pair[1].subscription_id == first.subscription_id]
        start = min(max(since, one.start, other.start) for one, other in both)
        shared = sorted({one.feature_id for one, _ in both})
        raise AlreadyExists(
            f"Subscription {shown(first.subscription_id)} has feature {shown(shared[0])} of this "
            f"customer from {moment(start)}",
            cure="cancel that one first, change its plan, or begin after what is invoiced",
            details={"subscription_id": first.subscription_id, "feature_ids": shared},
        )


def _planned(
    subscription: Subscription, begins: datetime, sold: Mapping[_Sale, set[str]]
) -> Iterator[Stretch]:
    """What it will bill from a moment on, plan by plan."""
    ends = [*(phase.start for phase in subscription.phases[1:]), None]
    for phase, following in zip(subscription.phases, ends, strict=True):
        start = max(phase.start, begins)
        end = min((each for each in (following, subscription.end) if each), default=None)
        if end is None or start < end:
            for feature_id in sorted(sold[_sale(subscription, phase.plan_id)]):
                yield Stretch(subscription.id, feature_id, start, end)


def _sold(session: Session, theirs: Iterable[Subscription]) -> defaultdict[_Sale, set[str]]:
    """The features that the plans of some subscriptions have a published price for."""
    plan_ids = {phase.plan_id for each in theirs for phase in each.phases}
    query = select(PriceRow).where(
        PriceRow.plan_id.in_(plan_ids), PriceRow.status == Status.PUBLISHED
    )
    sold = defaultdict(set)
    for price in session.scalars(query):
        sold[_sale(price)].add(price.feature_id)
    return sold


def _sale(of: PriceRow | Subscription, plan_id: str = "") -> _Sale:
    if isinstance(of, PriceRow):
        return _Sale(of.plan_id, of.currency, of.billing_period, of.billing_period_count)
    return _Sale(plan_id, of.currency, of.period, of.period_count)
