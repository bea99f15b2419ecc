"""What tests of the catalog sell: a plan with a priced feature, to one customer."""

from datetime import UTC, datetime
from typing import Any

from catalog import customers, features, plans, prices, subscriptions
from catalog.database import Writing
from catalog.plan_tables import PriceRow, SubscriptionRow
from schemas.customers import NewCustomer
from schemas.features import NewFeature
from schemas.offers import NewPlan, NewPrice
from schemas.subscriptions import NewSubscription

START = datetime(2030, 1, 31, 12, 30, 15, 123000, UTC)


class Sold:
    """A plan with a priced feature, and a customer."""

    def __init__(self, writing: Writing, account: str = "acme") -> None:
        meter = {"event_name": "used", "aggregation": {"type": "SUM", "field": "n"}}
        wish = NewFeature.model_validate({"name": "Credits", "meter": meter})
        self.feature = features.create(writing, account, wish)
        self.plan = plans.create(writing, account, NewPlan(name="Pro"))
        self.customer = customers.create(writing, account, NewCustomer(external_id="c"))

    def price(self, writing: Writing, **more: Any) -> PriceRow:
        wish = {
            "plan_id": self.plan.id,
            "meter_id": self.feature.meter_id,
            "currency": "USD",
            "billing_period": "MONTHLY",
            "billing_model": "FLAT_FEE",
            "amount": "0.000000000000000001",
        }
        return prices.create(writing, "acme", NewPrice.model_validate(wish | more))

    def subscription(self, writing: Writing, **more: Any) -> SubscriptionRow:
        wish = {
            "customer_id": self.customer.id,
            "plan_id": self.plan.id,
            "currency": "usd",
            "billing_period": "MONTHLY",
            "start_date": START,
        }
        return subscriptions.create(writing, "acme", NewSubscription.model_validate(wish | more))
