"""What tests of plans sell: a feature, a plan, its prices, a customer on it."""

from itertools import count
from typing import Any

import httpx

_numbers = count()


class Shop:
    """Makes what is sold, over the API; each answer is checked to be the one of success."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def post(self, path: str, status: int = 201, /, **body: Any) -> Any:
        """Post a body and give the answer's JSON."""
        answer = await self.client.post(f"/v1/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def get(self, path: str, **query: Any) -> Any:
        """Get a path and give the answer's JSON."""
        answer = await self.client.get(f"/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, path: str, status: int, /, **body: Any) -> Any:
        """Post a body that is refused with this status, and give the error."""
        return await self.post(path, status, **body)

    async def feature(
        self, kind: str = "SUM", *, reset_usage: str = "BILLING_PERIOD", **meter: Any
    ) -> Any:
        """A feature with an event name of its own."""
        field = {} if kind == "COUNT" else {"field": "credits"}
        aggregation = {"type": kind, **field, **meter}
        rule = {
            "event_name": f"used.{next(_numbers)}",
            "aggregation": aggregation,
            "reset_usage": reset_usage,
        }
        return await self.post("features", name="Credits", meter=rule)

    async def plan(self, *features: Any, **terms: Any) -> Any:
        """A plan with a price for each feature."""
        plan = await self.post("plans", name="Pro")
        for feature in features:
            await self.post("prices", **flat(plan, feature, **terms))
        return plan

    async def customer(self, **more: Any) -> Any:
        """A customer with an external id of its own."""
        return await self.post("customers", external_id=f"cust-{next(_numbers)}", **more)

    async def subscription(self, customer: Any, plan: Any, **more: Any) -> Any:
        """A customer on a plan."""
        return await self.post("subscriptions", **on(customer, plan, **more))


def flat(plan: Any, feature: Any, **more: Any) -> dict[str, Any]:
    """The wish for a flat price, as the SDKs send it."""
    return {
        "entity_type": "PLAN",
        "entity_id": plan["id"],
        "type": "USAGE",
        "price_unit_type": "FIAT",
        "invoice_cadence": "ARREAR",
        "meter_id": feature["meter_id"],
        "currency": "USD",
        "billing_period": "MONTHLY",
        "billing_model": "FLAT_FEE",
        "amount": "0.05",
    } | more


def tiered(plan: Any, feature: Any, mode: str, **more: Any) -> dict[str, Any]:
    """The wish for a tiered price."""
    tiers = [
        {"up_to": 1000, "unit_amount": "0.10", "flat_amount": "5"},
        {"up_to": None, "unit_amount": "0.000000000000000001"},
    ]
    wish = flat(plan, feature, billing_model="TIERED", tier_mode=mode, tiers=tiers)
    del wish["amount"]
    return wish | more


def on(customer: Any, plan: Any, **more: Any) -> dict[str, Any]:
    """The wish for a subscription."""
    return {
        "customer_id": customer["id"],
        "plan_id": plan["id"],
        "currency": "usd",
        "billing_period": "MONTHLY",
        "start_date": "2030-01-15T10:00:00Z",
    } | more
