"""At no moment do two subscriptions of a customer bill the same feature, whatever is done."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalog import customers, features, plans, prices, subscriptions
from catalog.database import Catalog, Writing
from catalog.plan_tables import SubscriptionRow
from schemas.customers import NewCustomer
from schemas.errors import AlreadyExists, InvalidRequest
from schemas.features import NewFeature
from schemas.offers import NewPlan, NewPrice
from schemas.subscriptions import Cancellation, NewSubscription

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAYS = 8


def day(number: int) -> datetime:
    return NOW + timedelta(days=number)


class World:
    """What the catalog should hold: for each subscription its customer, and its plan by day.

    `sold` are pairs of plan and feature.
    """

    def __init__(self) -> None:
        self.sold: set[tuple[str, str]] = set()
        self.days: dict[str, tuple[str, list[str | None]]] = {}

    def is_possible(self, sold: set[tuple[str, str]], days: dict[str, Any]) -> bool:
        """Whether no feature would be billed twice to a customer on any day."""
        for number in range(DAYS):
            billed: list[tuple[str, str]] = []
            for customer, plan_of in days.values():
                billed += [(customer, feature) for plan, feature in sold if plan == plan_of[number]]
            if len(set(billed)) < len(billed):
                return False
        return True


class Player:
    """Does random things, and knows which of them have to be refused."""

    def __init__(self, writing: Writing, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World()
        self.refused = self.done = 0
        self.meters: dict[str, str] = {}
        for name in "abc":
            meter = {"event_name": name, "aggregation": {"type": "COUNT"}}
            wish = NewFeature.model_validate({"name": name, "meter": meter})
            feature = features.create(writing, "acme", wish)
            self.meters[feature.id] = feature.meter_id
        make = plans.create
        self.plans = [make(writing, "acme", NewPlan(name=name)).id for name in "xyz"]
        self.customers = [
            customers.create(writing, "acme", NewCustomer(external_id=name)).id for name in "uv"
        ]
        self.prices: dict[tuple[str, str], str] = {}
        for plan, feature_id in zip(self.plans, self.meters, strict=True):
            self._sell(writing, plan, feature_id)

    def play(self, writing: Writing) -> None:
        subscribe = [self._subscribe] * 3
        others = [self._change, self._cancel, self._add_price, self._archive_price]
        self.random.choice([*subscribe, *others])(writing)

    def _subscribe(self, writing: Writing) -> None:
        customer, plan = self.random.choice(self.customers), self.random.choice(self.plans)
        start = self.random.randrange(DAYS)
        end = self.random.choice([None, self.random.randrange(start, DAYS) + 1])
        wish = NewSubscription.model_validate(
            {
                "customer_id": customer,
                "plan_id": plan,
                "currency": "usd",
                "billing_period": "MONTHLY",
                "start_date": day(start),
                "end_date": None if end is None else day(end),
            }
        )
        plan_of = [plan if start <= n < (end or DAYS) else None for n in range(DAYS)]
        if not any(sold == plan for sold, _ in self.world.sold):
            with pytest.raises(InvalidRequest):
                subscriptions.create(writing, "acme", wish)
            return
        then = self.world.days | {"new": (customer, plan_of)}
        made = self._try(then, lambda: subscriptions.create(writing, "acme", wish))
        if made is not None:
            self.world.days[made.id] = self.world.days.pop("new")

    def _change(self, writing: Writing) -> None:
        row = self._any(writing)
        if row is None:
            return
        plan, at = self.random.choice(self.plans), self.random.randrange(DAYS)
        customer, plan_of = self.world.days[row.id]
        if plan_of[at] is None or not any(sold == plan for sold, _ in self.world.sold):
            return
        after = [each if each is None or n < at else plan for n, each in enumerate(plan_of)]
        if after == plan_of:
            return

        def change() -> None:
            then = subscriptions.on_plan_from(writing.session, row, plan, day(at))
            subscriptions.change_plan(writing, row, then)

        self._try(self.world.days | {row.id: (customer, after)}, change)

    def _cancel(self, writing: Writing) -> None:
        row = self._any(writing)
        if row is None or (row.ends_at is not None and row.ends_at <= NOW):
            return
        at = self.random.randrange(DAYS)
        if row.end_date is not None and day(at) > row.end_date:
            return
        customer, _ = self.world.days[row.id]
        phases = subscriptions.as_subscription(row).phases

        def plan_on(number: int) -> str | None:
            begun = [phase.plan_id for phase in phases if phase.start <= day(number)]
            return begun[-1] if begun and number < at else None

        wish = Cancellation.model_validate({"cancellation_type": "immediate"})
        then = self.world.days | {row.id: (customer, [plan_on(n) for n in range(DAYS)])}
        self._try(then, lambda: subscriptions.cancel(writing, row, wish, day(at)))

    def _add_price(self, writing: Writing) -> None:
        plan, feature = self.random.choice(self.plans), self.random.choice(list(self.meters))
        if (plan, feature) in self.world.sold:
            return
        if self.world.is_possible(self.world.sold | {(plan, feature)}, self.world.days):
            self._sell(writing, plan, feature)
            self.done += 1
        else:
            self.refused += 1
            with pytest.raises(AlreadyExists):
                self._sell(writing, plan, feature)

    def _archive_price(self, writing: Writing) -> None:
        if self.prices:
            pair = self.random.choice(list(self.prices))
            prices.archive(writing, "acme", self.prices.pop(pair))
            self.world.sold.discard(pair)

    def _sell(self, writing: Writing, plan: str, feature: str) -> None:
        wish = {
            "plan_id": plan,
            "meter_id": self.meters[feature],
            "currency": "usd",
            "billing_period": "MONTHLY",
            "billing_model": "FLAT_FEE",
            "amount": "1",
        }
        price = prices.create(writing, "acme", NewPrice.model_validate(wish))
        self.prices[plan, feature] = price.id
        self.world.sold.add((plan, feature))

    def _any(self, writing: Writing) -> SubscriptionRow | None:
        if not self.world.days:
            return None
        subscription_id = self.random.choice(list(self.world.days))
        return subscriptions.get(writing.session, "acme", subscription_id)

    def _try(self, days: dict[str, Any], act: Any) -> Any:
        if self.world.is_possible(self.world.sold, days):
            self.world.days = days
            self.done += 1
            return act()
        self.refused += 1
        with pytest.raises(AlreadyExists):
            act()
        return None


@pytest.mark.parametrize("seed", range(4))
def test_exactly_what_would_bill_a_feature_twice_is_refused(catalog: Catalog, seed: int) -> None:
    with catalog.writing("ada", at=NOW) as writing:
        player = Player(writing, seed)
    for _ in range(100):
        with catalog.writing("ada", at=NOW) as writing:
            savepoint = writing.session.begin_nested()
            refused = player.refused
            player.play(writing)
            if player.refused > refused:
                savepoint.rollback()
    assert player.refused > 5
    assert player.done > 5
