"""What is sold, in the database: as billing reads it, and what may exist once."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from catalog import changes, entitlements, features, plans, prices, subscriptions
from catalog.database import Catalog
from catalog.plan_tables import EntitlementRow, PriceRow
from schemas.errors import AlreadyExists, NotFound
from schemas.offers import NewEntitlement, NewPlan, PriceUpdate
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
from schemas.subscriptions import Cancellation, SubscriptionSearch
from tests.catalog.offers import START, Sold

TERMS = subscriptions.Terms("usd", BillingPeriod.MONTHLY, 1)


@pytest.fixture
def sold(catalog: Catalog) -> Sold:
    with catalog.writing("ada") as writing:
        return Sold(writing)


def test_billing_reads_prices_exactly_as_they_were_written(catalog: Catalog, sold: Sold) -> None:
    tiers = [{"up_to": 9007199254740992, "unit_amount": "0.10"}, {"unit_amount": "12345678901234567890.5"}]  # fmt: skip # noqa: E501
    with catalog.writing("ada") as writing:
        flat = sold.price(writing, display_name="Credit")
        package = {"divide_by": 250, "round": "down"}
        sold.price(writing, currency="eur", billing_model="PACKAGE", transform_quantity=package)
        sold.price(
            writing,
            currency="jpy",
            billing_model="TIERED",
            tier_mode="SLAB",
            tiers=tiers,
            amount=None,
        )
    with catalog.reading() as session:
        found = prices.of_plans(session, "acme", [sold.plan.id], TERMS)
        in_packages = prices.of_plans(
            session, "acme", [sold.plan.id], TERMS._replace(currency="eur")
        )
        tiered = prices.of_plans(session, "acme", [sold.plan.id], TERMS._replace(currency="jpy"))
        assert prices.of_plans(session, "other", [sold.plan.id], TERMS) == []
        assert (
            prices.of_plans(session, "acme", [sold.plan.id], TERMS._replace(period_count=2)) == []
        )
    assert found == [
        Price(
            id=flat.id,
            plan_id=sold.plan.id,
            feature_id=sold.feature.id,
            meter_id=sold.feature.meter_id,
            display_name="Credit",
            currency="usd",
            model=BillingModel.FLAT_FEE,
            amount=Decimal("0.000000000000000001"),
        )
    ]
    assert (in_packages[0].divide_by, in_packages[0].rounding) == (250, Rounding.DOWN)
    assert tiered[0].tier_mode is TierMode.SLAB
    assert tiered[0].tiers == (
        Tier(9007199254740992, Decimal("0.1")),
        Tier(None, Decimal("12345678901234567890.5")),
    )


def test_billing_reads_entitlements(catalog: Catalog, sold: Sold) -> None:
    wish = NewEntitlement(
        plan_id=sold.plan.id,
        feature_id=sold.feature.id,
        usage_limit=10,
        usage_reset_period=LimitReset.NEVER,
    )
    with catalog.writing("ada") as writing:
        made = entitlements.create(writing, "acme", wish)
    with catalog.reading() as session:
        found = entitlements.of_plans(session, "acme", [sold.plan.id])
    assert found == [
        Entitlement(made.id, sold.plan.id, sold.feature.id, True, 10, LimitReset.NEVER)
    ]
    with catalog.writing("ada") as writing:
        entitlements.archive(writing, "acme", made.id)
    with catalog.reading() as session:
        assert entitlements.of_plans(session, "acme", [sold.plan.id]) == []


def test_billing_reads_subscriptions_with_their_phases(catalog: Catalog, sold: Sold) -> None:
    change = START + timedelta(days=10)
    with catalog.writing("ada", at=START) as writing:
        sold.price(writing)
        row = sold.subscription(writing, timezone="Asia/Kathmandu")
        other = plans.create(writing, "acme", NewPlan(name="Max"))
        sold.price(writing, plan_id=other.id)
        then = subscriptions.on_plan_from(writing.session, row, other.id, change)
        subscriptions.change_plan(writing, row, then)
    expected = Subscription(
        id=row.id,
        account="acme",
        customer_id=sold.customer.id,
        external_customer_id="c",
        currency="usd",
        period=BillingPeriod.MONTHLY,
        period_count=1,
        cycle=BillingCycle.ANNIVERSARY,
        anchor=START,
        zone="Asia/Kathmandu",
        start=START,
        end=None,
        phases=(Phase(sold.plan.id, START), Phase(other.id, change)),
        created_at=START,
    )
    with catalog.reading() as session:
        assert subscriptions.of_customer(session, "acme", sold.customer.id) == [expected]
        history = changes.everything(session, "acme", "subscription", row.id)
    assert [len(each["after"]["phases"]) for each in history] == [1, 2]


def test_who_is_active_is_half_open(catalog: Catalog, sold: Sold) -> None:
    end = START + timedelta(days=30)
    with catalog.writing("ada", at=START) as writing:
        sold.price(writing)
        row = sold.subscription(writing)
        wish = Cancellation.model_validate({"cancellation_type": "immediate"})
        subscriptions.cancel(writing, row, wish, end)

    def active(at: datetime) -> list[str]:
        with catalog.reading() as session:
            return [each.id for each in subscriptions.active(session, "acme", at)]

    millisecond = timedelta(milliseconds=1)
    assert active(START - millisecond) == active(end) == []
    assert active(START) == active(end - millisecond) == [row.id]
    with catalog.reading() as session:
        assert subscriptions.active(session, "other", START) == []
        spans = [(START - timedelta(days=9), START), (end - millisecond, end + timedelta(days=9))]
        for since, until in spans:
            found = subscriptions.lasting(session, "acme", since, until)
            assert [each.end for each in found] == [end]
        assert subscriptions.lasting(session, "acme", end, end + timedelta(days=9)) == []
        page = SubscriptionSearch(subscription_status=["cancelled"])
        assert subscriptions.search(session, "acme", page, end).total == 1
        assert subscriptions.search(session, "acme", page, end - millisecond).total == 0


def test_the_database_itself_refuses_a_second_published_one(catalog: Catalog, sold: Sold) -> None:
    with catalog.writing("ada") as writing:
        price = sold.price(writing)
        wish = NewEntitlement(plan_id=sold.plan.id, feature_id=sold.feature.id)
        limit = entitlements.create(writing, "acme", wish)
    for row, kind in ((price, PriceRow), (limit, EntitlementRow)):
        names = [column.key for column in kind.__mapper__.column_attrs if column.key != "id"]
        twin = kind(id="twin", **{name: getattr(row, name) for name in names})
        with pytest.raises(AlreadyExists), catalog.writing("ada") as writing:
            writing.session.add(twin)
            writing.session.flush()


def test_an_archived_price_leaves_its_place_and_comes_back_when_it_is_free(
    catalog: Catalog, sold: Sold
) -> None:
    with catalog.writing("ada") as writing:
        first = sold.price(writing)
        prices.archive(writing, "acme", first.id)
        second = sold.price(writing)
    back = PriceUpdate.model_validate({"status": "published"})
    with pytest.raises(AlreadyExists), catalog.writing("ada") as writing:
        prices.update(writing, "acme", first.id, back)
    with catalog.writing("ada") as writing:
        prices.archive(writing, "acme", second.id)
        prices.update(writing, "acme", first.id, back)
    with catalog.reading() as session:
        found = prices.of_plans(session, "acme", [sold.plan.id], TERMS)
    assert [price.id for price in found] == [first.id]


def test_of_transactions_that_put_a_customer_on_a_plan_the_second_is_refused(
    catalog: Catalog, sold: Sold
) -> None:
    with catalog.writing("ada") as writing:
        sold.price(writing)
        first = sold.subscription(writing)
    with pytest.raises(AlreadyExists) as refused, catalog.writing("bob") as writing:
        sold.subscription(writing)
    assert refused.value.details["subscription_id"] == first.id


def test_another_accounts_plan_is_not_there(catalog: Catalog, sold: Sold) -> None:
    with catalog.reading() as session:
        for get, entity_id in ((plans.get, sold.plan.id), (features.get, sold.feature.id)):
            with pytest.raises(NotFound):
                get(session, "other", entity_id)
