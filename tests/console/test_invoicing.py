"""Automatic invoicing on the real engine: what is closed and when, and what late usage changes."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from time import perf_counter
from typing import Any
from uuid import uuid4

import httpx
import pytest
from clickhouse_connect.driver import Client

from catalog import invoices, prices, subscriptions
from catalog.database import Catalog
from catalog.follower import Follower
from clickhouse.client import connect as connect_store
from console.bills import Bills
from console.invoicing import Invoicing
from console.settings import Settings
from console.store import Store
from schemas.errors import AlreadyExists, InvalidRequest, ServiceUnavailable
from schemas.subscriptions import Cancellation, NewSubscription
from tests.billing.sold import at
from tests.console.selling import Shop, flat, on, tiered
from tests.console.stored import store_rows
from tests.postgres import BOTH_DATABASES

pytestmark = pytest.mark.clickhouse

GRACE = timedelta(hours=1)


@pytest.fixture
def settings(settings_with_store: Settings) -> Settings:
    """The console's own invoicing looks once, at the start; from then on tests say when."""
    invoicing = {"invoice_grace_s": GRACE.total_seconds(), "invoice_every_s": 3600}
    return settings_with_store.model_copy(update=invoicing)


@dataclass
class Books:
    """A shop whose customers use things, and whose periods are closed at moments of the past.

    counted_until  The watermark; None: everything is counted.
    """

    shop: Shop
    client: Client
    settings: Settings
    catalog: Catalog
    bills: Bills
    counted_until: datetime | None = None
    offsets: Iterator[int] = field(default_factory=lambda: count(1))

    def invoicing(self) -> Invoicing:
        """One that knows nothing of what others do."""

        def counted(account: str) -> datetime | None:
            return self.counted_until or datetime.max.replace(tzinfo=UTC)

        return Invoicing(self.settings, self.catalog, self.bills, counted)

    async def close(self, now: str) -> int:
        """Close all that is over by then; how many looks did something."""
        looks = 0
        while await asyncio.to_thread(self.invoicing().close_due, at(now)):
            looks += 1
            assert looks < 20, "it loops"
        return looks

    def use(self, feature: Any, customer: Any, **values: Any) -> None:
        """Store one block of events, each a moment and a value: `_2025_01_10=5`."""
        rows = [
            {
                "event_name": feature["meter"]["event_name"],
                "external_customer_id": customer["external_id"],
                "event_id": uuid4().hex,
                "timestamp": at(day.strip("_").replace("_", "-")),
                "feature_id": feature["id"],
                "aggregation": feature["meter"]["aggregation"]["type"],
                "value": Decimal(value),
            }
            for day, value in values.items()
        ]
        store_rows(self.client, next(self.offsets), *rows)

    async def invoices(self, **query: Any) -> list[Any]:
        """All closed invoices, the oldest first."""
        found = await self.shop.get("invoices", order="asc", limit=1000, **query)
        items: list[Any] = found["items"]
        return items

    async def preview(self, subscription: Any, **more: Any) -> Any:
        """What a period comes to."""
        body = {"subscription_id": subscription["id"], **more}
        return await self.shop.post("invoices/preview", 200, **body)


@pytest.fixture
def books(client: httpx.AsyncClient, settings: Settings, store_url: str) -> Iterator[Books]:
    engine = connect_store(store_url)
    engine.command("TRUNCATE TABLE events")
    engine.command("TRUNCATE TABLE usage_states")
    catalog, store = Catalog(settings.catalog), Store(store_url)
    bills = Bills(catalog, Follower(catalog), store)
    yield Books(Shop(client), engine, settings, catalog, bills)
    engine.close()
    catalog.close()
    store.close()


def amounts(invoice: Any) -> list[str]:
    """What the lines of an invoice come to."""
    return [line["amount"] for line in invoice["line_items"]]


def spans(found: list[Any]) -> list[tuple[str, str]]:
    """The days from and to which invoices are."""
    return [(each["period_start"][:10], each["period_end"][:10]) for each in found]


async def sold(books: Books, *features: Any, start: str = "2025-01-01", **terms: Any) -> Any:
    """A plan with these features, a customer, and a subscription."""
    plan = await books.shop.plan(*features, amount="0.10")
    customer = await books.shop.customer()
    subscription = await books.shop.subscription(
        customer, plan, start_date=f"{start}T00:00:00Z", **terms
    )
    return plan, customer, subscription


# Closing


@BOTH_DATABASES
async def test_a_start_in_the_past_closes_its_elapsed_periods_at_once_in_order(
    books: Books,
) -> None:
    feature = await books.shop.feature()
    _, customer, subscription = await sold(books, feature)
    books.use(feature, customer, _2025_01_10=5, _2025_02_10=7, _2025_03_10=100)
    assert await books.close("2025-03-20") == 1
    assert await books.close("2025-03-20") == 0
    closed = await books.invoices()
    assert spans(closed) == [("2025-01-01", "2025-02-01"), ("2025-02-01", "2025-03-01")]
    assert [each["invoice_number"] for each in closed] == ["INV-000001", "INV-000002"]
    assert [each["total"] for each in closed] == ["0.50", "0.70"]
    assert {each["invoice_status"] for each in closed} == {"FINALIZED"}
    assert {each["subscription_id"] for each in closed} == {subscription["id"]}
    assert closed[0]["line_items"][0]["quantity"] == "5"


async def test_grace_and_watermark_hold_a_period_back_and_nothing_loops(books: Books) -> None:
    feature = await books.shop.feature()
    await sold(books, feature)
    assert await books.close("2025-02-01 00:59:59.999") <= 1  # notes when it is due
    assert await books.close("2025-02-01 00:59:59.999") == 0
    assert await books.invoices() == []
    books.counted_until = at("2025-02-01 00:59:59.999")
    assert await books.close("2025-02-01 01:00") == 0
    assert await books.close("2025-02-01 02:00") == 0
    assert await books.invoices() == []
    books.counted_until = at("2025-02-01 01:00")
    assert await books.close("2025-02-01 02:00:09") == 0  # it is looked at again after ten seconds
    assert await books.close("2025-02-01 02:00:10") == 1
    assert len(await books.invoices()) == 1
    books.counted_until = at("2025-02-20")
    assert await books.close("2025-05-20") == 0  # two periods are over, none is counted
    assert len(await books.invoices()) == 1


async def test_an_invoice_never_changes_whatever_changes_afterwards(books: Books) -> None:
    feature = await books.shop.feature()
    plan, customer, _ = await sold(books, feature)
    books.use(feature, customer, _2025_01_10=5)
    await books.close("2025-02-02")
    (before,) = await books.invoices()
    sold_at = (await books.shop.get("prices", plan_ids=plan["id"]))["items"][0]
    await books.shop.client.delete(f"/v1/prices/{sold_at['id']}")
    await books.shop.post("prices", **flat(plan, feature, amount="9"))
    await books.shop.post(
        "entitlements",
        plan_id=plan["id"], feature_id=feature["id"], feature_type="metered", usage_limit=1000,
    )  # fmt: skip
    await books.shop.client.put(
        f"/v1/features/{feature['id']}", json={"name": "New", "reset_usage": "NEVER"}
    )
    books.use(feature, customer, _2025_01_11=50)
    assert await books.shop.get(f"invoices/{before['id']}") == before
    await books.close("2025-03-02")
    assert (await books.invoices())[0] == before


@BOTH_DATABASES
async def test_numbers_have_no_gap_over_the_subscriptions_of_an_account(books: Books) -> None:
    feature = await books.shop.feature()
    plan, _, _ = await sold(books, feature)
    for _ in range(3):
        customer = await books.shop.customer()
        await books.shop.subscription(customer, plan, start_date="2025-01-15T00:00:00Z")
    await books.close("2025-06-01 12:00")
    closed = await books.invoices()
    assert [each["invoice_number"] for each in closed] == [
        f"INV-{number:06d}" for number in range(1, 5 + 3 * 4 + 1)
    ]


@BOTH_DATABASES
async def test_two_that_close_the_same_store_each_invoice_once(books: Books) -> None:
    feature = await books.shop.feature()
    plan, _, _ = await sold(books, feature)
    for _ in range(4):
        customer = await books.shop.customer()
        await books.shop.subscription(customer, plan, start_date="2025-01-01T00:00:00Z")
    racing = [books.invoicing() for _ in range(3)]
    for _ in range(3):
        now = at("2025-04-02")
        await asyncio.gather(*(asyncio.to_thread(each.close_due, now) for each in racing))
    closed = await books.invoices()
    assert len({each["invoice_number"] for each in closed}) == len(closed) == 15
    assert len({(each["subscription_id"], each["period_start"]) for each in closed}) == 15


@BOTH_DATABASES
async def test_of_two_consoles_that_computed_the_same_period_one_stores_it(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature = await books.shop.feature()
    _, customer, _ = await sold(books, feature)
    books.use(feature, customer, _2025_01_10=5)
    computed, both = Bills.of, threading.Barrier(2)

    def with_the_other(self: Bills, *asked: Any) -> Any:
        found = computed(self, *asked)
        both.wait(20)  # neither stores before both have computed
        return found

    monkeypatch.setattr(Bills, "of", with_the_other)
    catalogs = [Catalog(books.settings.catalog) for _ in range(2)]
    racing = [replace(books, catalog=each).invoicing() for each in catalogs]
    looks = (asyncio.to_thread(each.close_due, at("2025-02-02")) for each in racing)
    assert await asyncio.gather(*looks) == [True, True]
    (only,) = await books.invoices()
    assert (only["total"], only["invoice_number"]) == ("0.50", "INV-000001")
    assert await books.close("2025-02-02") == 0
    for each in catalogs:
        each.close()


@BOTH_DATABASES
async def test_the_catalog_takes_an_invoice_only_as_the_next_of_its_subscription(
    books: Books,
) -> None:
    feature = await books.shop.feature()
    _, _, subscription = await sold(books, feature)
    one = invoices.Closed(at("2025-01-01"), at("2025-02-01"), Decimal(0), "{}", [], {})
    for sequence in (0, 2):
        with pytest.raises(AlreadyExists), books.catalog.writing("test") as writing:
            row = subscriptions.get(writing.session, "default", subscription["id"])
            invoices.store(writing, row, sequence, one)
    assert await books.invoices() == []


@BOTH_DATABASES
async def test_what_changed_while_it_was_computed_is_computed_again(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature = await books.shop.feature()
    _, customer, subscription = await sold(books, feature)
    books.use(feature, customer, _2025_01_10=5, _2025_01_20=100)
    computed = Bills.of

    def end_it_meanwhile(self: Bills, *asked: Any) -> Any:
        monkeypatch.undo()
        cancel(books, subscription, "2025-01-15")
        return computed(self, *asked)

    monkeypatch.setattr(Bills, "of", end_it_meanwhile)
    await books.close("2025-02-02")
    closed = await books.invoices()
    assert spans(closed) == [("2025-01-01", "2025-01-15")]
    assert closed[0]["total"] == "0.50"


async def test_one_that_fails_holds_up_no_other_and_is_looked_at_again(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feature = await books.shop.feature()
    plan, _, broken = await sold(books, feature)
    customer = await books.shop.customer()
    await books.shop.subscription(customer, plan, start_date="2025-01-01T00:00:00Z")
    computed = Bills.of

    def fails(self: Bills, subscription: Any, periods: Any) -> Any:
        if subscription.id == broken["id"]:
            raise ServiceUnavailable("away")
        return computed(self, subscription, periods)

    monkeypatch.setattr(Bills, "of", fails)
    await books.close("2025-02-02")
    (only,) = await books.invoices()
    assert only["customer_id"] == customer["id"]
    assert broken["id"] in caplog.text
    monkeypatch.undo()
    assert await books.close("2025-02-02 00:00:09") == 0
    assert await books.close("2025-02-02 00:00:10") == 1
    assert len(await books.invoices()) == 2


@BOTH_DATABASES
async def test_cancelling_cuts_the_last_period_and_nothing_follows(books: Books) -> None:
    feature = await books.shop.feature()
    _, customer, subscription = await sold(books, feature)
    books.use(feature, customer, _2025_01_10=5, _2025_01_14=1, _2025_01_15=100)
    cancel(books, subscription, "2025-01-15")
    await books.close("2025-01-15 02:00")
    assert spans(await books.invoices()) == [("2025-01-01", "2025-01-15")]
    await books.close("2025-06-20")
    (only,) = await books.invoices()
    assert only["total"] == "0.60"


async def test_one_that_ended_before_it_began_has_no_invoice(books: Books) -> None:
    feature = await books.shop.feature()
    _, _, subscription = await sold(books, feature, start="2025-02-01")
    cancel(books, subscription, "2025-02-01", now="2025-01-01")
    await books.close("2025-06-20")
    assert await books.invoices() == []
    assert await books.close("2026-06-20") == 0


@BOTH_DATABASES
async def test_a_plan_change_makes_two_invoices_each_with_its_own_limit(books: Books) -> None:
    feature = await books.shop.feature()
    first, customer, subscription = await sold(books, feature)
    second = await books.shop.plan(feature, amount="1")
    for plan in (first, second):
        await books.shop.post(
            "entitlements",
            plan_id=plan["id"], feature_id=feature["id"], feature_type="metered", usage_limit=2,
        )  # fmt: skip
    books.use(feature, customer, _2025_01_10=5, _2025_01_20=7, _2025_02_05=4)
    change_plan(books, subscription, second, "2025-01-15")
    await books.close("2025-03-02")
    closed = await books.invoices()
    assert spans(closed) == [
        ("2025-01-01", "2025-01-15"),
        ("2025-01-15", "2025-02-01"),
        ("2025-02-01", "2025-03-01"),
    ]
    assert [each["plan_id"] for each in closed] == [first["id"], second["id"], second["id"]]
    assert [each["total"] for each in closed] == ["0.30", "5.00", "2.00"]
    assert [each["line_items"][0]["adjusted_entitlement_quantity"] for each in closed] == ["2"] * 3


async def test_what_is_invoiced_can_not_be_cut_by_a_cancellation_or_a_plan_change(
    books: Books,
) -> None:
    feature = await books.shop.feature()
    _, _, subscription = await sold(books, feature)
    second = await books.shop.plan(feature)
    await books.close("2025-03-02")
    said = "all up to 2025-03-01T00:00:00.000Z is invoiced and can't change: send a later date"
    for moment in ("2025-02-10", "2025-01-01"):
        with pytest.raises(InvalidRequest, match=said) as error:
            cancel(books, subscription, moment)
        assert [fault.pointer for fault in error.value.errors] == ["/cancel_at"]
        with pytest.raises(InvalidRequest, match=said) as error:
            change_plan(books, subscription, second, moment)
        assert [fault.pointer for fault in error.value.errors] == ["/effective_date"]
    change_plan(books, subscription, second, "2025-03-01")
    cancel(books, subscription, "2025-03-02")


async def test_a_plan_change_taken_back_after_it_was_invoiced_leaves_the_cut(books: Books) -> None:
    feature = await books.shop.feature()
    first, customer, subscription = await sold(books, feature)
    second = await books.shop.plan(feature, amount="1")
    books.use(feature, customer, _2025_01_10=5, _2025_01_20=7)
    change_plan(books, subscription, second, "2025-01-15")
    await books.close("2025-01-16")
    change_plan(books, subscription, first, "2025-01-15")
    await books.close("2025-02-02")
    closed = await books.invoices()
    assert spans(closed) == [("2025-01-01", "2025-01-15"), ("2025-01-15", "2025-02-01")]
    assert [each["total"] for each in closed] == ["0.50", "0.70"]


# One bill


@BOTH_DATABASES
async def test_what_an_invoice_billed_is_billed_by_no_other_though_its_price_was_archived(
    books: Books,
) -> None:
    feature = await books.shop.feature()
    plan, customer, first = await sold(books, feature)
    books.use(feature, customer, _2025_01_10=5, _2025_02_10=7)
    await books.close("2025-02-02")
    price = (await books.shop.get("prices", plan_ids=plan["id"]))["items"][0]

    async def billed_at(day: str) -> tuple[str, str]:
        query = {"feature_id": feature["id"], "at": f"{day}T00:00:00Z"}
        found = await books.shop.get(f"customers/{customer['id']}/billing", **query)
        assert found["billed"]
        return found["subscription"]["id"], found["price"]["id"]

    await books.shop.client.delete(f"/v1/prices/{price['id']}")
    assert await billed_at("2025-01-10") == (first["id"], price["id"])
    other = await books.shop.plan(feature, amount="1")
    wish = on(customer, other, start_date="2025-01-01T00:00:00Z")
    error = await books.shop.refused("subscriptions", 409, **wish)
    said = f"Subscription '{first['id']}' has feature '{feature['id']}' of this customer from"
    assert f"{said} 2025-01-01T00:00:00.000Z" in error["message"]
    second = await books.shop.subscription(customer, other, start_date="2025-02-01T00:00:00Z")
    # Of February the second has the feature, so that the first's price can't come back meanwhile.
    answer = await books.shop.client.put(f"/v1/prices/{price['id']}", json={"status": "published"})
    assert answer.status_code == 409
    assert await billed_at("2025-01-10") == (first["id"], price["id"])
    assert (await billed_at("2025-02-10"))[0] == second["id"]
    await books.close("2025-03-02")
    found = [(each["subscription_id"], each["total"]) for each in await books.invoices()]
    assert found[0] == (first["id"], "0.50")
    assert set(found[1:]) == {(first["id"], "0.00"), (second["id"], "7.00")}


@BOTH_DATABASES
async def test_a_price_bills_no_time_that_another_has_billed_before_it_was_made(
    books: Books,
) -> None:
    feature, free = await books.shop.feature(), await books.shop.feature()
    _, customer, first = await sold(books, feature)
    other = await books.shop.plan(free)
    await books.shop.subscription(customer, other, start_date="2025-01-01T00:00:00Z")
    cancel(books, first, "2025-01-20")
    await books.close("2025-01-20 12:00")  # the first is over and invoiced, the other under way
    error = await books.shop.refused("prices", 409, **flat(other, feature))
    assert "from 2025-01-01T00:00:00.000Z" in error["message"]
    await books.close("2025-02-02")
    await books.shop.post("prices", **flat(other, feature))  # it bills from February on
    query = {"feature_id": feature["id"], "at": "2025-01-25T00:00:00Z"}
    nowhere = await books.shop.get(f"customers/{customer['id']}/billing", **query)
    assert nowhere["reason"] == "not_in_plan"
    assert "had no price" in nowhere["message"] and "INV-000002" in nowhere["message"]


@BOTH_DATABASES
async def test_prices_that_change_while_an_invoice_is_computed_make_it_computed_again(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature = await books.shop.feature()
    plan, customer, first = await sold(books, feature)
    other = await books.shop.plan(feature, amount="1")
    books.use(feature, customer, _2025_01_10=5)
    price = (await books.shop.get("prices", plan_ids=plan["id"]))["items"][0]
    computed = Bills.of

    def sell_it_otherwise_meanwhile(self: Bills, *asked: Any) -> Any:
        found = computed(self, *asked)
        monkeypatch.undo()
        wish = on(customer, other, start_date="2025-01-01T00:00:00Z")
        with books.catalog.writing("test") as writing:
            prices.archive(writing, "default", price["id"])
            subscriptions.create(writing, "default", NewSubscription.model_validate(wish))
        return found

    monkeypatch.setattr(Bills, "of", sell_it_otherwise_meanwhile)
    await books.close("2025-02-02")
    totals = {each["subscription_id"]: each["total"] for each in await books.invoices()}
    assert totals.pop(first["id"]) == "0.00"
    assert list(totals.values()) == ["5.00"]


# Late usage


@BOTH_DATABASES
async def test_late_usage_is_a_line_of_the_next_invoice_with_its_events(books: Books) -> None:
    feature = await books.shop.feature()
    _, customer, subscription = await sold(books, feature)
    books.use(feature, customer, _2025_01_10=5)
    await books.close("2025-02-02")
    (january,) = await books.invoices()
    books.use(feature, customer, _2025_01_31=3, _2025_01_30=4, _2025_02_03=1)
    books.use(feature, customer, _2025_01_29=1)
    preview = await books.preview(
        subscription, period_start="2025-02-01T00:00:00Z", period_end="2025-03-01T00:00:00Z"
    )
    march = await books.preview(subscription, period_start="2025-03-01T00:00:00Z")
    assert amounts(march) == ["0.00"]  # what is late belongs to the next invoice, February's
    await books.close("2025-03-02")
    _, february = await books.invoices()
    own, late = february["line_items"]
    assert (own["amount"], own["quantity"]) == ("0.10", "1")
    assert (late["amount"], late["quantity"], late["usage"]) == ("0.80", "13", "13")
    assert late["adjustment"] == {
        "invoice_id": january["id"],
        "period_start": "2025-01-01T00:00:00.000Z",
        "period_end": "2025-02-01T00:00:00.000Z",
        "event_count": 3,
    }
    assert february["total"] == "0.90" == preview["total"]
    assert preview["line_items"][1]["adjustment"] == late["adjustment"]

    path, seen, query = f"invoices/{february['id']}/lines/{late['id']}/events", [], {"limit": 2}
    for size in (2, 1):
        page = await books.shop.get(path, **query)
        assert len(page["items"]) == size
        seen += page["items"]
        query |= {"after": page.get("next")}
    assert query["after"] is None
    assert [each["timestamp"][:10] for each in seen] == ["2025-01-31", "2025-01-30", "2025-01-29"]
    stored = books.client.query(
        "SELECT event_id FROM events WHERE verdict = 'counted' AND timestamp IN"
        " ('2025-01-29', '2025-01-30', '2025-01-31')"
    ).result_rows
    assert {each["event_id"] for each in seen} == {row[0] for row in stored}

    await books.close("2025-04-02")  # it is billed once
    assert amounts((await books.invoices())[2]) == ["0.00"]


async def test_the_very_first_event_of_the_log_is_late_too(books: Books) -> None:
    feature = await books.shop.feature()
    _, customer, _ = await sold(books, feature)
    await books.close("2025-02-02")
    books.offsets = count(0)
    books.use(feature, customer, _2025_01_10=5)
    await books.close("2025-03-02")
    _, february = await books.invoices()
    late = february["line_items"][1]
    assert (late["amount"], late["adjustment"]["event_count"]) == ("0.50", 1)
    page = await books.shop.get(f"invoices/{february['id']}/lines/{late['id']}/events")
    assert len(page["items"]) == 1


async def test_a_late_correction_gives_money_back(books: Books) -> None:
    feature = await books.shop.feature()
    _, customer, _ = await sold(books, feature)
    books.use(feature, customer, _2025_01_10=50)
    await books.close("2025-02-02")
    books.use(feature, customer, _2025_01_10=-20)
    await books.close("2025-03-02")
    _, february = await books.invoices()
    assert amounts(february) == ["0.00", "-2.00"]
    assert february["total"] == february["amount_due"] == "-2.00"


@BOTH_DATABASES
async def test_late_usage_of_a_level_adjusts_every_closed_period_from_its_own_on(
    books: Books,
) -> None:
    feature = await books.shop.post(
        "features",
        name="Seats",
        meter={
            "event_name": f"seats.{uuid4().hex}",
            "aggregation": {"type": "SUM", "field": "n"},
            "reset_usage": "NEVER",
        },
    )
    _, customer, _ = await sold(books, feature)
    books.use(feature, customer, _2024_12_01=10)
    await books.close("2025-04-02")
    assert [each["total"] for each in await books.invoices()] == ["1.00"] * 3
    books.use(feature, customer, _2025_02_10=5)
    await books.close("2025-05-02")
    april = (await books.invoices())[3]
    assert amounts(april) == ["1.50", "0.50", "0.50"]
    assert [line["adjustment"]["period_start"][:10] for line in april["line_items"][1:]] == [
        "2025-02-01",
        "2025-03-01",
    ]
    assert [line["adjustment"]["event_count"] for line in april["line_items"][1:]] == [1, 1]
    books.use(feature, customer, _2024_06_01=1)
    await books.close("2025-06-02")
    may = (await books.invoices())[4]
    assert amounts(may) == ["1.60", "0.10", "0.10", "0.10", "0.10"]
    assert [line["adjustment"]["event_count"] for line in may["line_items"][1:]] == [1] * 4


async def test_late_usage_without_a_difference_goes_with_the_next_that_has_one(
    books: Books,
) -> None:
    feature = await books.shop.feature()
    plan, customer, _ = await sold(books, feature)
    await books.shop.post(
        "entitlements",
        plan_id=plan["id"], feature_id=feature["id"], feature_type="metered", usage_limit=10,
    )  # fmt: skip
    books.use(feature, customer, _2025_01_10=5)
    await books.close("2025-02-02")
    books.use(feature, customer, _2025_01_11=5)
    await books.close("2025-03-02")
    books.use(feature, customer, _2025_01_12=5)
    await books.close("2025-04-02")
    _, february, march = await books.invoices()
    assert amounts(february) == ["0.00"]
    assert amounts(march) == ["0.00", "0.50"]
    assert march["line_items"][1]["adjustment"]["event_count"] == 2


@BOTH_DATABASES
async def test_after_the_last_period_late_usage_has_an_invoice_of_its_own(books: Books) -> None:
    feature = await books.shop.feature()
    _, customer, subscription = await sold(books, feature)
    cancel(books, subscription, "2025-01-15")
    books.use(feature, customer, _2025_01_10=5)
    await books.close("2025-01-16")
    books.use(feature, customer, _2025_01_11=2, _2025_01_16=100)
    await books.close("2025-01-20")
    assert len(await books.invoices()) == 1
    await books.close("2025-02-02")
    last, alone = await books.invoices()
    assert spans([alone]) == [("2025-01-15", "2025-02-01")]
    assert amounts(alone) == ["0.20"] == [alone["total"]]
    assert alone["line_items"][0]["adjustment"]["invoice_id"] == last["id"]
    await books.close("2025-06-02")
    assert len(await books.invoices()) == 2
    books.use(feature, customer, _2025_01_12=-7)
    await books.close("2025-10-31")
    assert len(await books.invoices()) == 2  # the time since its end has not doubled since June
    await books.close("2025-11-02")
    assert amounts((await books.invoices())[2]) == ["-0.70"]
    assert await books.close("2025-11-02") == 0
    books.use(feature, customer, _2025_01_13=1)
    place = f"/v1/subscriptions/{subscription['id']}"
    await books.shop.client.put(place, json={"metadata": {"look": "again"}})
    await books.close("2026-01-02")
    assert amounts((await books.invoices())[3]) == ["0.10"]


async def test_an_ended_subscription_is_looked_at_ever_more_rarely(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature = await books.shop.feature()
    _, _, subscription = await sold(books, feature)
    cancel(books, subscription, "2025-01-15")
    await books.close("2025-01-16")
    looks: list[datetime] = []
    computed = Bills.after_the_last

    def look(self: Bills, *asked: Any) -> Any:
        looks.append(now)
        return computed(self, *asked)

    monkeypatch.setattr(Bills, "after_the_last", look)
    invoicing = books.invoicing()
    for month in range(1, 10 * 12):
        now = at(f"{2025 + month // 12}-{month % 12 + 1:02}-02")
        await asyncio.to_thread(invoicing.close_due, now)
    assert [f"{each:%Y-%m}" for each in looks] == [
        "2025-02", "2025-03", "2025-05", "2025-09", "2026-05", "2027-09", "2030-05",
    ]  # fmt: skip


# One number


async def test_usage_preview_subscription_usage_and_invoice_say_one_number(books: Books) -> None:
    shop = books.shop
    summed, highest, packed = [
        await shop.feature(),
        await shop.feature("MAX"),
        await shop.feature(),
    ]
    plan = await shop.post("plans", name="Mixed")
    await shop.post("prices", **tiered(plan, summed, "SLAB"))
    await shop.post("prices", **flat(plan, highest, amount="0.333"))
    package = {"divide_by": 10, "round": "up"}
    wish = flat(plan, packed, billing_model="PACKAGE", transform_quantity=package, amount="3")
    await shop.post("prices", **wish)
    customer = await shop.customer(timezone="Europe/Berlin")
    subscription = await shop.subscription(
        customer, plan, start_date="2025-01-15T09:30:00Z", timezone="Asia/Kathmandu"
    )
    for feature in (summed, highest, packed):
        books.use(feature, customer, _2025_01_15=99, _2025_01_20=11, _2025_02_01="10.5")
    dates = {"period_start": "2025-01-15T09:30:00Z"}
    preview = await books.preview(subscription, **dates)
    body = {"subscription_id": subscription["id"], "start_time": dates["period_start"]}
    used = await shop.post("subscriptions/usage", 200, **body)
    usages = [
        await shop.post(
            "events/usage/meter",
            200,
            meter_id=feature["meter_id"],
            external_customer_id=customer["external_id"],
            start_time=preview["period_start"],
            end_time=preview["period_end"],
            timezone="Asia/Kathmandu",
        )
        for feature in (summed, highest, packed)
    ]
    await books.close("2025-02-16")
    (closed,) = await books.invoices()
    assert [line["usage"] for line in closed["line_items"]] == ["21.5", "11", "21.5"]
    assert amounts(closed) == ["7.15", "3.66", "9.00"]
    assert [str(each["value"]) for each in usages] == ["21.5", "11", "21.5"]
    lines = [line | {"id": ""} for line in closed["line_items"]]
    assert [line | {"id": ""} for line in preview["line_items"]] == lines
    assert preview["total"] == closed["total"] == used["amount"] == "19.81"
    assert used["display_amount"] == "$19.81"
    for name in ("usage", "quantity", "amount", "adjusted_entitlement_quantity"):
        assert [each[name] for each in used["charges"]] == [line[name] for line in lines]

    books.use(summed, customer, _2025_01_21=1000)  # late: the closed period stays what it was
    assert await shop.post("subscriptions/usage", 200, **body) == used
    assert await shop.post("subscriptions/usage", 200, **body | {"start_time": None}) != used


async def test_zero_lines_are_hidden_on_a_preview_when_it_is_asked_for(books: Books) -> None:
    one, other = await books.shop.feature(), await books.shop.feature()
    _, customer, subscription = await sold(books, one, other)
    books.use(one, customer, _2025_01_10=1)
    dates = {"period_start": "2025-01-01T00:00:00Z"}
    assert amounts(await books.preview(subscription, **dates)) == ["0.10", "0.00"]
    hidden = await books.preview(subscription, **dates, hide_zero_charges_line_items=True)
    assert amounts(hidden) == ["0.10"]


async def test_sums_keep_every_digit(books: Books) -> None:
    feature, cent = await books.shop.feature(), await books.shop.feature()
    plan = await books.shop.plan(feature, amount="12345678901234567890")
    await books.shop.post("prices", **flat(plan, cent, amount="0.01"))
    customer = await books.shop.customer()
    subscription = await books.shop.subscription(customer, plan, start_date="2025-01-01T00:00:00Z")
    books.use(feature, customer, _2025_01_10="10000000000000000000")
    books.use(cent, customer, _2025_01_10=1)
    start = {"start_time": "2025-01-01T00:00:00Z"}
    used = await books.shop.post(
        "subscriptions/usage", 200, subscription_id=subscription["id"], **start
    )
    assert used["amount"] == "123456789012345678900000000000000000000.01"
    assert used["display_amount"] == f"${used['amount']}"


# Refusals


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"period_start": "2025-01-02T00:00:00Z"}, "/period_start", "starts at 2025-01-01T00:00:00"),
    ({"period_start": "2024-12-31T00:00:00Z"}, "/period_start", "has no period"),
    (
        {"period_start": "2025-03-01T00:00:00Z", "period_end": "2025-03-31T00:00:00Z"},
        "/period_end",
        "that one ends at 2025-04-01T00:00:00",
    ),
    ({"period_start": "2025-01-01T00:00:00Z"}, "/period_start", "GET /v1/invoices/inv_"),
    ({"period_start": "soon"}, "/period_start", "write ISO 8601"),
    ({"hide_zero_charges_line_items": "yes"}, "/hide_zero_charges_line_items", "boolean"),
    ({"coupon": "x"}, "/coupon", "remove it"),
]


async def test_previews_that_can_not_be_name_field_and_cure(books: Books) -> None:
    _, _, subscription = await sold(books, await books.shop.feature())
    await books.close("2025-02-02")
    for body, pointer, said in REFUSED:
        wish = {"subscription_id": subscription["id"]} | body
        error = await books.shop.refused("invoices/preview", 400, **wish)
        assert [each["pointer"] for each in error["errors"]] == [pointer]
        assert said in error["errors"][0]["detail"]


async def test_what_is_not_there_is_404_and_what_is_wrong_is_400(books: Books) -> None:
    _, _, subscription = await sold(books, await books.shop.feature())
    await books.close("2025-02-02")
    (closed,) = await books.invoices()
    client = books.shop.client
    for path in ("invoices/inv_x", f"invoices/{closed['id']}/lines/x/events"):
        assert (await client.get(f"/v1/{path}")).status_code == 404
    line = closed["line_items"][0]["id"]  # not an adjustment
    assert (await client.get(f"/v1/invoices/{closed['id']}/lines/{line}/events")).status_code == 404
    await books.shop.refused("invoices/preview", 404, subscription_id="subs_x")
    await books.shop.refused("subscriptions/usage", 404, subscription_id="subs_x")
    usage = {"subscription_id": subscription["id"], "start_time": "2025-01-02T00:00:00Z"}
    error = await books.shop.refused("subscriptions/usage", 400, **usage)
    assert error["errors"][0]["pointer"] == "/start_time"
    error = await books.shop.refused("subscriptions/usage", 400, **usage, lifetime_usage=True)
    assert error["errors"][0]["pointer"] == "/lifetime_usage"


@BOTH_DATABASES
async def test_invoices_are_found_by_subscription_customer_and_status(books: Books) -> None:
    _, customer, subscription = await sold(books, await books.shop.feature())
    await sold(books, await books.shop.feature())
    await books.close("2025-02-02")
    for query in (
        {"subscription_id": subscription["id"]},
        {"customer_id": customer["id"]},
        {"external_customer_id": customer["external_id"]},
    ):
        found = await books.shop.get("invoices", **query)
        assert found["pagination"]["total"] == 1
        assert found == await books.shop.post("invoices/search", 200, **query)
    assert (await books.shop.get("invoices", invoice_status="DRAFT"))["items"] == []
    found = await books.shop.post("invoices/search", 200, invoice_status=["FINALIZED", "DRAFT"])
    assert found["pagination"]["total"] == 2
    assert (await books.shop.client.get("/v1/invoices?invoice_status=PAID")).status_code == 400


# What it costs


async def test_a_preview_of_20_features_after_400_invoices_takes_two_queries(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = books.shop
    features = [await shop.feature() for _ in range(20)]
    plan = await shop.plan(*features, billing_period="DAILY")
    customer = await shop.customer()
    subscription = await shop.subscription(
        customer, plan, billing_period="DAILY", start_date="2025-01-01T00:00:00Z"
    )
    for feature in features:
        books.use(feature, customer, _2025_01_01=1, _2026_02_05=7)
    assert await books.close("2026-02-05 12:00") == 8
    dates = {"period_start": "2026-02-05T00:00:00Z"}
    asked = count_queries(monkeypatch)
    took = []
    for _ in range(8):
        started = perf_counter()
        preview = await books.preview(subscription, **dates)
        took.append(perf_counter() - started)
    assert amounts(preview) == ["0.35"] * 20
    assert len(asked) == 8 * 2
    assert min(took) < 0.15
    books.use(features[3], customer, _2025_01_01=2)
    preview = await books.preview(subscription, **dates)
    assert amounts(preview)[20:] == ["0.10"]


def count_queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of all queries of usage from now on; what runs in the background is left out."""
    asked: list[str] = []
    sent = Client.query

    def query(self: Client, text: str, *rest: Any, **more: Any) -> Any:
        if text.startswith(("-- usage_", "-- late_", "-- states_")):
            asked.append(text)
        return sent(self, text, *rest, **more)

    for kind in (Client, *Client.__subclasses__()):
        if "query" in vars(kind):
            monkeypatch.setattr(kind, "query", query)
    return asked


def cancel(books: Books, subscription: Any, moment: str, now: str = "2025-01-01") -> None:
    """End a subscription at a moment, whatever the clock says."""
    wish = Cancellation.model_validate(
        {"cancellation_type": "scheduled_date", "cancel_at": f"{moment}T00:00:00Z"}
    )
    with books.catalog.writing("test", at(now)) as writing:
        row = subscriptions.get(writing.session, "default", subscription["id"])
        subscriptions.cancel(writing, row, wish, at(moment))


def change_plan(books: Books, subscription: Any, plan: Any, moment: str) -> None:
    """Move a subscription to another plan from a moment on, whatever the clock says."""
    with books.catalog.writing("test", at("2025-01-01")) as writing:
        row = subscriptions.get(writing.session, "default", subscription["id"])
        then = subscriptions.on_plan_from(writing.session, row, plan["id"], at(moment))
        subscriptions.change_plan(writing, row, then)
