"""A feature's usage is one number, wherever it is asked for, and it is the oracle's."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from clickhouse_connect.driver import Client

from catalog.database import Catalog
from catalog.follower import Follower
from console.bills import Bills
from console.invoicing import Invoicing
from console.settings import Settings
from console.store import Store
from tests import oracle
from tests.billing.rows import store_block
from tests.billing.streams import rules_of
from tests.console.selling import Shop
from tests.oracle import Rule, Sent

pytestmark = pytest.mark.clickhouse

ACCOUNT, CUSTOMER, ZONE = "default", "c1", "Asia/Kathmandu"
EVENTS = 600


@pytest.fixture
def settings(tmp_path: Path, store_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path,
        kafka="127.0.0.1:9",
        clickhouse_url=store_url,
        catalog_refresh_s=0.05,
        invoice_every_s=3600,
    )


def meter_of(rule: Rule) -> dict[str, Any]:
    """A rule of the oracle as people write it."""
    aggregation = {
        "type": rule.aggregation,
        "field": rule.field,
        "multiplier": None if rule.multiplier is None else str(rule.multiplier),
        "bucket_size": rule.bucket_size,
        "group_by": rule.group_by,
    }
    return {
        "event_name": rule.event_name,
        "aggregation": {key: value for key, value in aggregation.items() if value is not None},
        "filters": [{"key": k, "values": sorted(v)} for k, v in rule.filters.items()],
        "reset_usage": rule.reset,
    }


def log_of(chance: random.Random, names: list[str], start: datetime, now: datetime) -> list[Sent]:
    """Events around the start of the period, before and after, some of them twice."""
    log = []
    for offset in range(EVENTS):
        seconds = chance.uniform(-2 * 86_400, (now - start).total_seconds())
        time = start + timedelta(milliseconds=round(seconds * 1000))
        event = {
            "event_name": chance.choice(names),
            "external_customer_id": chance.choice([CUSTOMER, CUSTOMER, "c2"]),
            "event_id": f"id{chance.randrange(EVENTS * 9 // 10)}",
            "timestamp": time.isoformat(timespec="milliseconds"),
            "properties": {
                "n": Decimal(chance.randrange(-500, 5_000)) / 100,
                "x": chance.choice([Decimal(3), Decimal("3.0"), Decimal("7.25"), Decimal(-1)]),
                "g": chance.choice(["a", "b", Decimal(1)]),
            },
        }
        log.append(Sent(ACCOUNT, event, now, (0, offset, 0)))
    return log


def exactly(answer: httpx.Response) -> Any:
    """The answer's JSON, its numbers as Decimal."""
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)


def number(value: Any) -> Decimal | None:
    return None if value is None else Decimal(value)


@pytest.mark.parametrize("seed", [1, 2])
async def test_usage_analytics_summary_preview_and_invoice_say_what_the_oracle_says(
    seed: int, client: httpx.AsyncClient, store: Client, settings: Settings
) -> None:
    chance, shop = random.Random(seed), Shop(client)
    rules = rules_of(ACCOUNT)
    plan = await shop.post("plans", name="All of it")
    features: dict[str, Any] = {}
    for name, rule in rules.items():
        features[name] = await shop.post("features", name=name, meter=meter_of(rule))
        price = {
            "entity_type": "PLAN", "entity_id": plan["id"], "type": "USAGE",
            "price_unit_type": "FIAT", "invoice_cadence": "ARREAR", "currency": "usd",
            "meter_id": features[name]["meter_id"], "billing_period": "MONTHLY",
            "billing_model": "FLAT_FEE", "amount": "0.01",
        }  # fmt: skip
        await shop.post("prices", **price)
    await shop.post("customers", external_id=CUSTOMER, timezone=ZONE)
    now = datetime.now(UTC)
    begun = (now - timedelta(days=6)).isoformat(timespec="milliseconds")
    subscription = await shop.post(
        "subscriptions", external_customer_id=CUSTOMER, plan_id=plan["id"], currency="usd",
        billing_period="MONTHLY", start_date=begun,
    )  # fmt: skip
    start = datetime.fromisoformat(subscription["current_period_start"])
    end = datetime.fromisoformat(subscription["current_period_end"])
    log = log_of(chance, list(rules), start, now)
    ids = {name: feature["id"] for name, feature in features.items()}
    store_block(store, oracle.judge(log, rules.values()), rules, ids)

    expected = {
        ids[name]: oracle.usage(oracle.judge(log, [rule]), rule, CUSTOMER, start, end, ZONE)
        for name, rule in rules.items()
    }
    assert sum(value is not None for value in expected.values()) > len(rules) // 2
    span = {"start_time": start.isoformat(), "end_time": end.isoformat(), "timezone": ZONE}

    usage = {}
    for name, feature in features.items():
        body = {"meter_id": feature["meter_id"], "external_customer_id": CUSTOMER, **span}
        asked = await client.post("/v1/events/usage/meter", json=body)
        usage[ids[name]] = exactly(asked)["value"]
    assert usage == expected

    body = {"external_customer_id": CUSTOMER, **span}
    analysed = exactly(await client.post("/v1/events/analytics", json=body))["items"]
    assert {each["feature_id"]: number(each["total_usage"]) for each in analysed} == expected

    summary = exactly(await client.get(f"/v1/customers/external/{CUSTOMER}/usage"))["features"]
    current = {each["feature"]["id"]: number(each["current_usage"]) for each in summary}
    assert current == {name: value or Decimal(0) for name, value in expected.items()}

    preview = await shop.post("invoices/preview", 200, subscription_id=subscription["id"])
    assert {e["feature_id"]: number(e["usage"]) for e in preview["line_items"]} == expected
    used = await shop.post("subscriptions/usage", 200, subscription_id=subscription["id"])
    assert {e["feature_id"]: number(e["usage"]) for e in used["charges"]} == expected

    catalog, reader = Catalog(settings.catalog), Store(settings.clickhouse_url)
    bills = Bills(catalog, Follower(catalog), reader)
    invoicing = Invoicing(settings, catalog, bills, lambda account: end + timedelta(days=1))
    await asyncio.to_thread(invoicing.close_due, end + timedelta(hours=2))
    [closed] = (await shop.get("invoices"))["items"]
    assert {e["feature_id"]: number(e["usage"]) for e in closed["line_items"]} == expected
    assert closed["total"] == preview["total"]
    reader.close()
    catalog.close()
