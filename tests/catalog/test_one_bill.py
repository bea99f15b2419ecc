"""Whatever is done in whatever order, no use of a customer is billed by two invoices."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select

from billing.charges import Basis
from billing.invoices import Invoice, bill, needed, restored
from billing.periods import Period
from catalog import customers, entitlements, features, plans, prices, subscriptions
from catalog.database import Catalog, Writing
from catalog.follower import Follower
from catalog.invoice_tables import InvoiceRow
from catalog.plan_tables import PriceRow, SubscriptionRow
from console.bills import Bills
from console.invoicing import Invoicing
from console.settings import Settings
from console.store import Store
from schemas.catalog import Status
from schemas.customers import NewCustomer
from schemas.errors import AlreadyExists, InvalidRequest
from schemas.features import NewFeature
from schemas.offers import (
    NewEntitlement,
    NewPlan,
    NewPrice,
    PriceUpdate,
)
from schemas.plans import Subscription
from schemas.subscriptions import Cancellation, NewSubscription
from tests.billing.metering import Event, measure
from tests.billing.sold import at

START = at("2025-01-01")
DAYS = 6
EXAMPLES = int(os.environ.get("TALLYLOG_ONE_BILL_EXAMPLES", "12"))
"""Raise it to look for longer."""

days = st.integers(0, DAYS - 1)
few = st.integers(0, 2)
terms = st.sampled_from(["DAILY"] * 4 + ["WEEKLY"])
those = st.integers(0, 5)
ends = st.none() | st.integers(1, DAYS)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


class FreeBills(Bills):
    """Bills of the catalog's terms, where every customer uses every feature once in 12 hours.

    `meanwhile` is done once something is computed, and before it is stored.
    """

    meanwhile: Callable[[], None] | None = None

    def __init__(self, catalog: Catalog, store: Store, used: Sequence[Event]) -> None:
        super().__init__(catalog, Follower(catalog), store)
        self.used = used

    def of(self, subscription: Subscription, periods: Sequence[Period]) -> list[Invoice]:
        found = super().of(subscription, periods)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found

    def _computed(self, subscription: Subscription, bases: Sequence[Basis]) -> list[Invoice]:
        return [bill(basis, measure(needed(basis), self.used)) for basis in bases]


class Shop(RuleBasedStateMachine):
    """Does what the API can do, and more: cancels and changes plans with a back date as well."""

    catalog: Catalog
    store: Store

    @initialize()
    def open(self) -> None:
        self.now = day(0)
        with self.catalog.writing("ada", self.now) as writing:
            for table in reversed(InvoiceRow.metadata.sorted_tables):
                if table.name not in ("accounts", "catalog_version"):
                    writing.session.execute(delete(table))
            make = [features.create(writing, "acme", feature(name)) for name in "ab"]
            self.meters = [row.meter_id for row in make]
            self.features = [row.id for row in make]
            self.customer = customers.create(writing, "acme", NewCustomer(external_id="u")).id
            self.plans = [plans.create(writing, "acme", NewPlan(name=name)).id for name in "xyz"]
            for plan in range(3):
                self._sell(plan, plan % 2, "DAILY", writing)
            self._subscribe(0, "DAILY", 0, None, writing)
        used = [
            Event(name, day(0) + timedelta(hours=12 * n))
            for n in range(2 * 4 * DAYS)
            for name in self.features
        ]
        self.bills = FreeBills(self.catalog, self.store, used)
        config = Settings(invoice_grace_s=3600)
        self.invoicing = Invoicing(config, self.catalog, self.bills, lambda account: day(1000))

    @rule(plan=few, period=terms, start=days, length=ends)
    def subscribe(self, plan: int, period: str, start: int, length: int | None) -> None:
        self._try(partial(self._subscribe, plan, period, start, length))

    @rule(plan=few, start=days)
    def subscribe_for_good(self, plan: int, start: int) -> None:
        self._try(partial(self._subscribe, plan, "DAILY", start, None))

    @rule(which=those, plan=few, at=days)
    def change_plan(self, which: int, plan: int, at: int) -> None:
        self._try(partial(self._change, which, plan, at))

    @rule(which=those, at=days)
    def cancel(self, which: int, at: int) -> None:
        self._try(partial(self._cancel, which, at))

    @rule(plan=few, feature=st.integers(0, 1), period=terms)
    def sell(self, plan: int, feature: int, period: str) -> None:
        self._try(partial(self._sell, plan, feature, period))

    @rule(which=those)
    def archive_or_publish_a_price(self, which: int) -> None:
        self._try(partial(self._turn_price, which))

    @rule(which=those, limit=few)
    def change_what_a_price_asks_or_leaves_free(self, which: int, limit: int) -> None:
        self._try(partial(self._replace_price, which) if limit else partial(self._limit, which))

    @precondition(lambda self: self.now < day(2 * DAYS))
    @rule(days=st.sampled_from([1, 1, 3]))
    def close(self, days: int) -> None:
        self._close(days)

    @precondition(lambda self: self.now < day(2 * DAYS))
    @rule(plan=few, feature=st.integers(0, 1), start=days, which=those, turn=st.booleans())
    def close_while_something_changes(
        self, plan: int, feature: int, start: int, which: int, turn: bool
    ) -> None:
        def meanwhile() -> None:
            if turn:
                self._try(partial(self._turn_price, which))
            self._try(partial(self._sell, plan, feature, "DAILY"))
            self._try(partial(self._subscribe, plan, "DAILY", start, None))

        self.bills.meanwhile = meanwhile
        self._close(1)

    def teardown(self) -> None:
        self.now = day(3 * DAYS)
        self._close(1)

    def _close(self, days: int) -> None:
        self.now += timedelta(days=days)
        looks = 0
        while self.invoicing.close_due(self.now):
            looks += 1
            assert looks < 30, "it loops"
        self._check()

    def _check(self) -> None:
        billed: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
        with self.catalog.reading() as session:
            for row in session.scalars(select(InvoiceRow)):
                invoice = restored(row.content)
                for line in invoice.lines:
                    spans = billed.setdefault((row.customer_id, line.feature_id), [])
                    spans.append((invoice.basis.period.start, invoice.basis.period.end))
                    length = spans[-1][1] - spans[-1][0]
                    assert length > timedelta(0)
        for what, spans in billed.items():
            for (start, end), (other_start, other_end) in combinations(spans, 2):
                assert end <= other_start or other_end <= start, (what, start, other_start)

    def _try(self, act: Callable[[Writing], object]) -> None:
        with (
            suppress(AlreadyExists, InvalidRequest),
            self.catalog.writing("ada", self.now) as writing,
        ):
            act(writing)

    def _subscribe(
        self, plan: int, period: str, start: int, length: int | None, writing: Writing
    ) -> None:
        wish = {
            "customer_id": self.customer,
            "plan_id": self.plans[plan],
            "currency": "usd",
            "billing_period": period,
            "start_date": day(start),
            "end_date": None if length is None else day(start + length),
        }
        subscriptions.create(writing, "acme", NewSubscription.model_validate(wish))

    def _change(self, which: int, plan: int, at: int, writing: Writing) -> None:
        if (row := self._nth(writing, SubscriptionRow, which)) is not None:
            then = subscriptions.on_plan_from(writing.session, row, self.plans[plan], day(at))
            subscriptions.change_plan(writing, row, then)

    def _cancel(self, which: int, at: int, writing: Writing) -> None:
        if (row := self._nth(writing, SubscriptionRow, which)) is not None:
            wish = Cancellation.model_validate({"cancellation_type": "immediate"})
            subscriptions.cancel(writing, row, wish, day(at))

    def _turn_price(self, which: int, writing: Writing) -> None:
        if (row := self._nth(writing, PriceRow, which)) is not None:
            is_published = row.status is Status.PUBLISHED
            status = Status.ARCHIVED if is_published else Status.PUBLISHED
            prices.update(writing, "acme", row.id, PriceUpdate(status=status))

    def _replace_price(self, which: int, writing: Writing) -> None:
        if (row := self._nth(writing, PriceRow, which)) is not None:
            prices.archive(writing, "acme", row.id)
            place = self.plans.index(row.plan_id), self.features.index(row.feature_id)
            self._sell(*place, row.billing_period, writing)

    def _limit(self, which: int, writing: Writing) -> None:
        plan, feature_id = self.plans[which % 3], self.features[which % 2]
        wish = {"plan_id": plan, "feature_id": feature_id, "feature_type": "metered"}
        entitlements.create(writing, "acme", NewEntitlement(**wish, usage_limit=which))

    def _sell(self, plan: int, feature: int, period: str, writing: Writing) -> None:
        prices.create(writing, "acme", self._price(plan, feature, period))

    def _price(self, plan: int, feature: int, period: str) -> NewPrice:
        return NewPrice.model_validate(
            {
                "plan_id": self.plans[plan],
                "meter_id": self.meters[feature],
                "currency": "usd",
                "billing_period": period,
                "billing_model": "FLAT_FEE",
                "amount": "1",
            }
        )

    def _nth(self, writing: Writing, kind: Any, which: int) -> Any:
        rows = writing.session.scalars(select(kind).order_by(kind.created_version)).unique().all()
        return rows[which % len(rows)] if rows else None


def feature(name: str) -> NewFeature:
    meter = {"event_name": name, "aggregation": {"type": "COUNT"}}
    return NewFeature.model_validate({"name": name, "meter": meter})


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_no_sequence_of_changes_bills_a_use_twice(sqlite_catalog: Catalog) -> None:
    Shop.catalog, Shop.store = sqlite_catalog, Store("http://127.0.0.1:9/none")
    run_state_machine_as_test(
        Shop,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            phases=(Phase.explicit, Phase.generate),  # to shrink one takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
    Shop.store.close()
