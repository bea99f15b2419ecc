"""Flexprice's own Python SDK with our URL and key: from an empty account to an invoice."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from flexprice import Flexprice, models
from flexprice.models import errors

from tests.e2e.running import Tallylog, until

NOW = datetime.now(UTC)
START = datetime(NOW.year, NOW.month, NOW.day, tzinfo=UTC) - timedelta(days=2)
"""Of the subscriptions: two days of their first month are over."""
INSIDE = (START + timedelta(hours=30)).isoformat()
CUSTOMER = "sdk-customer"


@pytest.fixture(scope="module")
def account(tallylog: Tallylog) -> Iterator[Tallylog]:
    """An account of this file's own, empty at first."""
    with tallylog.as_account("sdk") as mine:
        yield mine


@pytest.fixture(scope="module")
def sdk(account: Tallylog) -> Iterator[Flexprice]:
    """The SDK as its page shows it."""
    with Flexprice(server_url=f"{account.base_url}/v1", api_key_auth=account.api_key) as client:
        yield client


class Seller:
    """What these tests sell over the SDK: one plan a price, one customer for each."""

    def __init__(self, sdk: Flexprice, name: str) -> None:
        self.sdk = sdk
        self.name = name
        self.customer = sdk.customers.create_customer(external_id=f"{name}-customer", name=name)
        self.plan = sdk.plans.create_plan(name=f"Plan {name}")

    def feature(
        self, aggregation: str = "SUM", reset: str = "BILLING_PERIOD"
    ) -> models.FeatureResponse:
        """A feature of the event name `<name>.used`."""
        kind = {"type": aggregation} | ({} if aggregation == "COUNT" else {"field": "credits"})
        meter: Any = {
            "name": self.name,
            "event_name": f"{self.name}.used",
            "aggregation": kind,
            "reset_usage": reset,
        }
        return self.sdk.features.create_feature(
            name=self.name,
            type_="metered",
            unit_singular="credit",
            unit_plural="credits",
            meter=meter,
        )

    def price(self, feature: models.FeatureResponse, **wish: Any) -> models.PriceResponse:
        """A monthly price in dollars."""
        return self.sdk.prices.create_price(
            entity_type="PLAN",
            entity_id=str(self.plan.id),
            meter_id=feature.meter_id,
            type_="USAGE",
            price_unit_type="FIAT",
            invoice_cadence="ARREAR",
            billing_period="MONTHLY",
            currency="USD",
            **wish,
        )

    def subscribe(self) -> models.SubscriptionResponse:
        """The customer on the plan, since two days."""
        return self.sdk.subscriptions.create_subscription(
            customer_id=self.customer.id,
            plan_id=str(self.plan.id),
            currency="USD",
            billing_period="MONTHLY",
            billing_period_count=1,
            billing_cycle="anniversary",
            start_date=START,
        )

    def use(self, *credits: str, at: str = INSIDE) -> None:
        """Events of the customer, in one request."""
        events: Any = [
            {
                "event_name": f"{self.name}.used",
                "external_customer_id": f"{self.name}-customer",
                "timestamp": at,
                "properties": {"credits": each},
            }
            for each in credits
        ]
        self.sdk.events.ingest_events_bulk(events=events)

    def preview(self, subscription: models.SubscriptionResponse) -> models.InvoiceResponse:
        """What the month comes to."""
        return self.sdk.invoices.get_invoice_preview(subscription_id=str(subscription.id))


def total(invoice: models.InvoiceResponse) -> Decimal:
    """What an invoice comes to."""
    return Decimal(str(invoice.total))


def usage_of(sdk: Flexprice, feature: models.FeatureResponse, **more: Any) -> Decimal:
    """Usage of a feature; this SDK reads numbers as floats."""
    found = sdk.events.get_usage_by_meter(meter_id=str(feature.meter_id), **more)
    return Decimal(str(found.value))


PRICES: dict[str, tuple[dict[str, Any], str]] = {
    "flat": ({"billing_model": "FLAT_FEE", "amount": "0.05"}, "6.25"),
    "package": (
        {
            "billing_model": "PACKAGE",
            "amount": "10",
            "transform_quantity": {"divide_by": 100, "round": "up"},
        },
        "20",
    ),
    "volume": (
        {
            "billing_model": "TIERED",
            "tier_mode": "VOLUME",
            "tiers": [
                {"up_to": 100, "unit_amount": "1"},
                {"unit_amount": "0.5", "flat_amount": "2"},
            ],
        },
        "64.5",
    ),
    "slab": (
        {
            "billing_model": "TIERED",
            "tier_mode": "SLAB",
            "tiers": [
                {"up_to": 100, "unit_amount": "1"},
                {"unit_amount": "0.5", "flat_amount": "2"},
            ],
        },
        "114.5",
    ),
}
"""What 125 credits come to."""


@pytest.mark.parametrize("model", PRICES)
def test_from_an_empty_account_to_a_preview_with_the_right_amount(
    sdk: Flexprice, model: str
) -> None:
    wish, amount = PRICES[model]
    seller = Seller(sdk, f"sdk-{model}")
    feature = seller.feature()
    price = seller.price(feature, **wish)
    subscription = seller.subscribe()
    assert [line.price_id for line in subscription.line_items or ()] == [price.id]
    seller.use("100", "24.5", "0.5")
    until(lambda: total(seller.preview(subscription)), Decimal(amount))
    preview = seller.preview(subscription)
    [line] = preview.line_items or []
    assert (line.price_id, line.meter_id, line.quantity) == (price.id, feature.meter_id, "125")
    assert preview.invoice_status == "DRAFT"
    assert preview.amount_due == preview.subtotal == preview.total
    assert preview.period_start == START
    used = sdk.subscriptions.get_subscription_usage(subscription_id=str(subscription.id))
    assert Decimal(str(used.amount)) == Decimal(amount)
    [charge] = used.charges or []
    assert Decimal(str(charge.quantity)) == 125


def test_the_free_tier_is_not_billed(sdk: Flexprice) -> None:
    seller = Seller(sdk, "sdk-free")
    feature = seller.feature("COUNT")
    seller.price(feature, billing_model="FLAT_FEE", amount="2")
    entitlement = sdk.entitlements.create_entitlement(
        plan_id=seller.plan.id,
        feature_id=str(feature.id),
        feature_type="metered",
        usage_limit=3,
        is_enabled=True,
        usage_reset_period="MONTHLY",
    )
    assert entitlement.usage_limit == 3
    subscription = seller.subscribe()
    seller.use("1", "1")
    until(lambda: usage_of(sdk, feature), Decimal(2))
    assert total(seller.preview(subscription)) == 0
    seller.use("1", "1")
    until(lambda: total(seller.preview(subscription)), Decimal(2))
    [line] = seller.preview(subscription).line_items or []
    assert (line.quantity, line.adjusted_entitlement_quantity) == ("1", "3")
    hidden = sdk.invoices.get_invoice_preview(
        subscription_id=str(subscription.id), hide_zero_charges_line_items=True
    )
    assert len(hidden.line_items or ()) == 1
    summary = sdk.customers.get_customer_usage_summary(customer_id=seller.customer.id)
    [known] = summary.features or []
    assert (known.total_limit, known.current_usage, known.is_enabled) == (3, "4", True)
    granted = sdk.customers.get_customer_entitlements(id=str(seller.customer.id))
    assert len(granted.features or ()) == 1


def test_a_periodic_feature_starts_anew_and_a_cumulative_one_keeps_its_level(
    sdk: Flexprice,
) -> None:
    before = (START - timedelta(days=1)).isoformat()
    for reset, quantity in (("BILLING_PERIOD", 5), ("NEVER", 25)):
        seller = Seller(sdk, f"sdk-{reset.lower()}")
        feature = seller.feature(reset=reset)
        seller.price(feature, billing_model="FLAT_FEE", amount="1")
        subscription = seller.subscribe()
        seller.use("20", at=before)
        seller.use("5")
        until(
            lambda: total(seller.preview(subscription)),  # noqa: B023
            Decimal(quantity),
        )


def test_events_are_sent_counted_listed_and_looked_up(sdk: Flexprice, account: Tallylog) -> None:
    seller = Seller(sdk, "sdk-events")
    feature = seller.feature()
    common: dict[str, Any] = {
        "event_name": "sdk-events.used",
        "external_customer_id": "sdk-events-customer",
    }
    answer = sdk.events.ingest_event(
        **common, event_id="sdk-1", properties={"credits": "2.5", "region": "eu"}, source="app"
    )
    assert answer["event_id"] == "sdk-1"
    sdk.events.ingest_event(**common, event_id="sdk-1", properties={"credits": "9"})
    three: Any = [common | {"properties": {"credits": "1"}} for _ in range(3)]
    bulk = sdk.events.ingest_events_bulk(events=three)
    assert bulk["message"] == "Events accepted for processing"
    until(lambda: account.verdicts("sdk-events.used"), {"counted": 4, "duplicate": 1})
    usage = sdk.events.get_usage_statistics(
        **common, aggregation_type="SUM", property_name="credits"
    )
    assert Decimal(str(usage.value)) == Decimal("5.5")
    daily = sdk.events.get_usage_by_meter(
        meter_id=str(feature.meter_id),
        external_customer_id="sdk-events-customer",
        start_time=START,
        end_time=START + timedelta(days=4),
        window_size="DAY",
        filters={"region": ["eu"]},
    )
    assert Decimal(str(daily.value)) == Decimal("2.5")
    assert [Decimal(str(each.value)) for each in daily.results or ()] == [0, 0, Decimal("2.5"), 0]
    page = sdk.events.list_raw_events(event_name="sdk-events.used", page_size=2)
    assert len(page.events or ()) == 2
    assert page.has_more
    rest = sdk.events.list_raw_events(
        event_name="sdk-events.used", page_size=10, iter_last_key=page.iter_last_key
    )
    assert len(rest.events or ()) == 3
    analytics = sdk.events.get_usage_analytics(
        external_customer_id="sdk-events-customer", group_by=["source"], start_time=START
    )
    assert sorted((item.source, item.total_usage) for item in analytics.items or []) == [
        ("", "3"),
        ("app", "2.5"),
    ]
    found = sdk.events.get_event(id="sdk-1", external_customer_id="sdk-events-customer")
    assert found.status == "processed"


def test_a_subscription_is_listed_changed_and_cancelled(sdk: Flexprice) -> None:
    seller = Seller(sdk, "sdk-life")
    feature = seller.feature()
    seller.price(feature, billing_model="FLAT_FEE", amount="1")
    subscription = seller.subscribe()
    name = str(subscription.id)
    theirs = sdk.customers.get_subscriptions_for_customer(external_id="sdk-life-customer")
    assert [each.id for each in theirs.items or ()] == [name]
    other = Seller(sdk, "sdk-other")
    other.price(feature, billing_model="FLAT_FEE", amount="2")
    changed: dict[str, Any] = {
        "id": name,
        "target_plan_id": str(other.plan.id),
        "billing_cadence": "RECURRING",
        "billing_cycle": "anniversary",
        "billing_period": "MONTHLY",
        "proration_behavior": "none",
    }
    sdk.subscriptions.preview_subscription_change(**changed)
    sdk.subscriptions.execute_subscription_change(**changed)
    assert sdk.subscriptions.get_subscription(id=name).plan_id == other.plan.id
    cancelled = sdk.subscriptions.cancel_subscription(id=name, cancellation_type="immediate")
    assert cancelled.subscription_id == name
    ended = sdk.subscriptions.get_subscription(id=name)
    assert ended.subscription_status == "cancelled"
    with pytest.raises(errors.FlexpriceError) as refused:
        sdk.subscriptions.cancel_subscription(id=name, cancellation_type="immediate")
    assert refused.value.status_code == 400


def test_invoices_are_closed_listed_and_read(sdk: Flexprice) -> None:
    seller = Seller(sdk, "sdk-invoices")
    feature = seller.feature()
    seller.price(feature, billing_model="FLAT_FEE", amount="1")
    seller.use("7", at=(START - timedelta(days=40)).isoformat())
    since = START - timedelta(days=50)
    until(lambda: usage_of(sdk, feature, start_time=since), Decimal(7))
    subscription = sdk.subscriptions.create_subscription(
        customer_id=seller.customer.id,
        plan_id=str(seller.plan.id),
        currency="usd",
        billing_period="MONTHLY",
        start_date=START - timedelta(days=45),
    )

    def closed() -> list[models.InvoiceResponse]:
        found = sdk.invoices.query_invoice(subscription_id=subscription.id)
        return list(found.items or ())

    until(lambda: len(closed()), 1)
    (invoice,) = closed()
    assert invoice.invoice_status == "FINALIZED"
    assert total(invoice) == 7
    assert sdk.invoices.get_invoice(id=str(invoice.id)) == invoice


def test_api_keys_are_made_listed_and_revoked(sdk: Flexprice, account: Tallylog) -> None:
    made = sdk.secrets.create_api_key(name="ci", type_="private_key")
    assert made.secret is not None and made.api_key is not None
    names = [each.name for each in sdk.secrets.list_api_keys().items or ()]
    assert "ci" in names
    with Flexprice(server_url=f"{account.base_url}/v1", api_key_auth=made.api_key) as other:
        assert other.features.query_feature(limit=1).items is not None
        sdk.secrets.delete_api_key(id=str(made.secret.id))

        def is_known() -> bool:
            try:
                other.features.query_feature(limit=1)
            except errors.FlexpriceError as error:
                assert error.status_code == 401
                return False
            return True

        until(is_known, False)
