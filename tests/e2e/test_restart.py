"""A console that starts anew: how soon it knows what is counted, and closes what is over."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest

from catalog import customers, features, invoices, plans, prices, subscriptions
from catalog.bootstrap import bootstrap
from catalog.database import Catalog
from console.app import running
from console.progress import Progress
from console.settings import Settings
from console.store import Store
from schemas.customers import NewCustomer
from schemas.errors import ServiceUnavailable
from schemas.features import NewFeature
from schemas.offers import NewPlan, NewPrice
from schemas.subscriptions import NewSubscription
from tests.e2e.running import Tallylog, until


def settings_of(tallylog: Tallylog, folder: Path) -> Settings:
    """Of a console beside the running one, with a catalog of its own."""
    return Settings(data_dir=folder, kafka=tallylog.kafka, clickhouse_url=tallylog.clickhouse_url)


def is_invoiced(catalog: Catalog, subscription_id: str) -> bool:
    with catalog.reading() as session:
        return invoices.last_sequence(session, subscription_id) > 0


async def test_what_is_counted_of_an_idle_account_is_known_within_seconds(
    tallylog: Tallylog, tmp_path: Path
) -> None:
    store = Store(tallylog.clickhouse_url)
    progress = Progress(settings_of(tallylog, tmp_path), store)
    asked = time.time() * 1000
    looking = asyncio.create_task(progress.run())
    try:
        assert await progress.reached("an-account-without-events", int(asked), timeout_s=15)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        store.close()


async def test_a_store_that_dies_while_it_is_compared_does_not_hide_what_waits_in_the_log(
    tallylog: Tallylog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tallylog.clickhouse_url)
    progress = Progress(settings_of(tallylog, tmp_path), store)
    gone: list[float] = []

    def dies(*_: object) -> NoReturn:
        gone.append(time.time() * 1000)
        monkeypatch.setattr(store, "reading", dies)
        raise ServiceUnavailable("The store is unavailable")

    monkeypatch.setattr(progress.conservation, "compare", dies)

    def went_on() -> bool:
        return bool(gone and progress.sample and progress.sample.at > gone[0] + 2000)

    looking = asyncio.create_task(progress.run())
    try:
        await asyncio.to_thread(until, went_on, True)
        assert progress.trouble is None
        assert progress.store_trouble
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        store.close()


async def test_what_is_over_at_the_start_is_closed_at_once(
    tallylog: Tallylog, tmp_path: Path
) -> None:
    settings = settings_of(tallylog, tmp_path).model_copy(update={"invoice_every_s": 3600})
    bootstrap(settings.catalog)
    catalog = Catalog(settings.catalog)
    with catalog.writing("ada") as writing:
        rule = {"event_name": f"restart.{uuid4().hex}", "aggregation": {"type": "COUNT"}}
        wish = NewFeature.model_validate({"name": "Calls", "meter": rule})
        feature = features.create(writing, "default", wish)
        plan = plans.create(writing, "default", NewPlan(name="Pro"))
        terms = {"plan_id": plan.id, "currency": "usd", "billing_period": "MONTHLY"}
        price = {"meter_id": feature.meter_id, "billing_model": "FLAT_FEE", "amount": "1"}
        prices.create(writing, "default", NewPrice.model_validate(terms | price))
        customer = customers.create(writing, "default", NewCustomer(external_id=uuid4().hex))
        start = datetime.now(UTC) - timedelta(days=40)
        begun = terms | {"customer_id": customer.id, "start_date": start}
        row = subscriptions.create(writing, "default", NewSubscription.model_validate(begun))
    async with running(settings):
        await asyncio.to_thread(until, lambda: is_invoiced(catalog, row.id), True)
    catalog.close()
