"""/v1/events/usage and /v1/events/usage/meter: from stored events to an answer, and refusals."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from clickhouse_connect.driver import Client

from console.settings import Settings
from console.store import Store
from schemas.errors import ServiceUnavailable
from tests import oracle
from tests.billing.rows import store_block
from tests.oracle import Rule, Sent

pytestmark = pytest.mark.clickhouse

NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
RANGE = {"start_time": "2025-03-30T00:00:00Z", "end_time": "2025-03-31T00:00:00Z"}
ACCOUNT = "default"


@pytest.fixture
def settings(settings_with_store: Settings) -> Settings:
    return settings_with_store


def put(store: Client, rule: Rule, feature_id: str, *properties: dict[str, Any]) -> None:
    """Store an event of customer c1 for each of some properties: at noon, then hour by hour."""
    log = [
        Sent(
            ACCOUNT,
            {
                "event_name": rule.event_name,
                "external_customer_id": "c1",
                "event_id": uuid4().hex,
                "timestamp": (NOON + timedelta(hours=hour)).isoformat(),
                "properties": each,
            },
            NOON + timedelta(days=1),
            (0, hour, 0),
        )
        for hour, each in enumerate(properties)
    ]
    store_block(
        store, oracle.judge(log, [rule]), {rule.event_name: rule}, {rule.event_name: feature_id}
    )


async def make_feature(client: httpx.AsyncClient, **meter: Any) -> dict[str, Any]:
    body = {"name": "F", "meter": {"event_name": "model.usage", **meter}}
    made = await client.post("/v1/features", json=body)
    assert made.status_code == 201, made.text
    feature: dict[str, Any] = made.json()
    return feature


async def test_a_meters_usage_is_exact_in_total_and_in_windows(
    client: httpx.AsyncClient, store: Client
) -> None:
    feature = await make_feature(client, aggregation={"type": "SUM", "field": "n"})
    rule = Rule(ACCOUNT, "model.usage", "SUM", "n")
    numbers = ["12345678901234567890.000000000000000001", "0.1", "0.2"]
    put(store, rule, feature["id"], *({"n": Decimal(number)} for number in numbers))
    body = {"meter_id": feature["meter_id"], "external_customer_id": "c1", **RANGE}
    answer = await client.post("/v1/events/usage/meter", json=body | {"window_size": "12HOUR"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == (
        '{"event_name":"model.usage","type":"SUM","value":12345678901234567890.300000000000000001,'
        '"results":[{"window_size":"2025-03-30T00:00:00Z","value":0},'
        '{"window_size":"2025-03-30T12:00:00Z","value":12345678901234567890.300000000000000001}]}'
    )
    same = await client.post("/v1/events/usage/meter", json=body | {"meter_id": feature["id"]})
    assert msgspec.json.decode(same.content)["results"] == []


async def test_filters_narrow_a_meter_and_reset_never_keeps_its_level(
    client: httpx.AsyncClient, store: Client
) -> None:
    feature = await make_feature(
        client, aggregation={"type": "SUM", "field": "n"}, reset_usage="NEVER"
    )
    rule = Rule(ACCOUNT, "model.usage", "SUM", "n", reset="NEVER")
    put(store, rule, feature["id"], {"n": 1, "g": "a"}, {"n": 2, "g": "b"}, {"n": 4, "g": "a"})
    body = {
        "meter_id": feature["meter_id"],
        "external_customer_id": "c1",
        "start_time": "2025-03-30T14:00:00Z",
        "end_time": "2025-03-30T15:00:00Z",
    }
    whole = await client.post("/v1/events/usage/meter", json=body)
    part = await client.post("/v1/events/usage/meter", json=body | {"filters": {"g": ["a"]}})
    assert [whole.json()["value"], part.json()["value"]] == [7, 5]


async def test_ad_hoc_usage_reads_what_the_feature_did_not_count(
    client: httpx.AsyncClient, store: Client
) -> None:
    feature = await make_feature(client, aggregation={"type": "SUM", "field": "n"})
    rule = Rule(ACCOUNT, "model.usage", "SUM", "n")
    put(store, rule, feature["id"], {"n": 1}, {"m": 5}, {"n": "x", "m": "2.5"})
    body = {"event_name": "model.usage", "external_customer_id": "c1", **RANGE}

    async def value(**more: Any) -> Any:
        answer = await client.post("/v1/events/usage", json=body | more)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    assert await value(aggregation_type="SUM", property_name="n") == 1
    assert await value(aggregation_type="SUM", property_name="m") == 7.5
    assert await value(aggregation_type="AVG", property_name="m") == 3.75
    assert await value(aggregation_type="COUNT") == 3
    assert await value(aggregation_type="COUNT", filters={"m": ["5", "7"]}) == 1
    assert await value(aggregation_type="MAX", property_name="z") is None
    assert await value(aggregation_type="COUNT", external_customer_id="c2") == 0
    assert await value(aggregation_type="COUNT", external_customer_id="") == 3


async def test_the_latest_of_texts_is_null_with_the_text_beside_it(
    client: httpx.AsyncClient, store: Client
) -> None:
    feature = await make_feature(client, aggregation={"type": "LATEST", "field": "x"})
    rule = Rule(ACCOUNT, "model.usage", "LATEST", "x")
    put(store, rule, feature["id"], {"x": 1}, {"x": "gold"})
    body = {"meter_id": feature["meter_id"], **RANGE, "window_size": "12HOUR"}
    answer = (await client.post("/v1/events/usage/meter", json=body)).json()
    assert (answer["value"], answer["text"]) == (None, "gold")
    assert answer["results"] == [
        {"window_size": "2025-03-30T00:00:00Z", "value": None},
        {"window_size": "2025-03-30T12:00:00Z", "value": None, "text": "gold"},
    ]


async def test_groups_stand_beside_the_whole(client: httpx.AsyncClient, store: Client) -> None:
    feature = await make_feature(client, aggregation={"type": "SUM", "field": "n"})
    rule = Rule(ACCOUNT, "model.usage", "SUM", "n")
    numbers: list[dict[str, Any]] = [
        {"n": 1, "region": "EU"},
        {"n": 2, "region": "US"},
        {"n": 4},
        {"n": 8, "region": ""},
    ]
    put(store, rule, feature["id"], *numbers)
    body: dict[str, Any] = {"meter_id": feature["meter_id"], "external_customer_id": "c1", **RANGE}
    body |= {"group_by": ["properties.region"], "window_size": "DAY"}
    answer = (await client.post("/v1/events/usage/meter", json=body)).json()
    assert answer["value"] == 15
    day = "2025-03-30T00:00:00Z"
    assert answer["groups"] == [
        {"properties": each, "value": value, "results": [{"window_size": day, "value": value}]}
        for each, value in [({"region": ""}, 8), ({"region": "EU"}, 1), ({"region": "US"}, 2)]
    ] + [{"properties": {}, "value": 4, "results": [{"window_size": day, "value": 4}]}]
    asked: dict[str, Any] = {"event_name": "model.usage", "aggregation_type": "COUNT", **RANGE}
    asked |= {"group_by": ["source", "properties.region"]}
    answer = (await client.post("/v1/events/usage", json=asked)).json()
    assert [(each["source"], each["properties"]) for each in answer["groups"]] == [
        ("", {"region": ""}), ("", {"region": "EU"}), ("", {"region": "US"}), ("", {}),
    ]  # fmt: skip
    same = asked | {"group_by": [], "group_by_property": "region"}
    answer = (await client.post("/v1/events/usage", json=same)).json()
    assert [each["value"] for each in answer["groups"]] == [1, 1, 1, 1]


async def test_more_groups_than_anyone_reads_are_refused(
    client: httpx.AsyncClient, store: Client
) -> None:
    put(store, Rule(ACCOUNT, "e", "COUNT"), "feat_e", *({"id": n} for n in range(24)), {"id": "x"})
    body: dict[str, Any] = {"event_name": "e", "aggregation_type": "COUNT"}
    body |= {"group_by": ["properties.id"]}
    body |= {"start_time": RANGE["start_time"], "end_time": "2025-04-10T00:00:00Z"}
    answer = await client.post("/v1/events/usage", json=body)
    assert len(answer.json()["groups"]) == 25
    store.command(
        "INSERT INTO events"
        " (account, event_name, verdict, grain, timestamp, ingested_at, properties)"
        " SELECT 'default', 'e', 'counted', 3600, '2025-04-01', '2025-04-01',"
        " concat('{\"id\":', toString(number), '}')"
        " FROM numbers(1000)"
    )
    answer = await client.post("/v1/events/usage", json=body)
    assert answer.status_code == 400
    assert "more than 1000 groups" in answer.json()["error"]


async def test_windows_lie_in_the_customers_zone_unless_the_request_names_one(
    client: httpx.AsyncClient, store: Client
) -> None:
    await client.post("/v1/customers", json={"external_id": "c1", "timezone": "Europe/Berlin"})
    body = {
        "event_name": "e",
        "aggregation_type": "COUNT",
        "external_customer_id": "c1",
        "window_size": "DAY",
        "start_time": "2025-03-30T00:00:00+01:00",
        "end_time": "2025-04-01T00:00:00+02:00",
    }
    answer = await client.post("/v1/events/usage", json=body)
    assert [each["window_size"] for each in answer.json()["results"]] == [
        "2025-03-29T23:00:00Z",
        "2025-03-30T22:00:00Z",  # a day of 23 hours
    ]
    answer = await client.post("/v1/events/usage", json=body | {"timezone": "UTC"})
    assert [each["window_size"] for each in answer.json()["results"]] == [
        "2025-03-29T00:00:00Z",
        "2025-03-30T00:00:00Z",
        "2025-03-31T00:00:00Z",
    ]


async def test_a_customer_may_be_named_by_our_id(client: httpx.AsyncClient, store: Client) -> None:
    customer = (await client.post("/v1/customers", json={"external_id": "c1"})).json()
    put(store, Rule(ACCOUNT, "e", "COUNT"), "feat_e", {})
    body = {"event_name": "e", "aggregation_type": "COUNT", "customer_id": customer["id"], **RANGE}
    assert (await client.post("/v1/events/usage", json=body)).json()["value"] == 1
    other = await client.post("/v1/events/usage", json=body | {"external_customer_id": "c2"})
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (400, "/customer_id")
    unknown = await client.post("/v1/events/usage", json=body | {"customer_id": "cust_x"})
    assert unknown.status_code == 404


async def test_another_accounts_meter_and_events_are_not_there(
    client: httpx.AsyncClient, connect: Any, key_of: Any, store: Client
) -> None:
    feature = await make_feature(client, aggregation={"type": "COUNT"})
    put(store, Rule(ACCOUNT, "model.usage", "COUNT"), feature["id"], {})
    stranger = connect(key_of("other", ["read"]))
    body = {"event_name": "model.usage", "aggregation_type": "COUNT", **RANGE}
    assert (await client.post("/v1/events/usage", json=body)).json()["value"] == 1
    assert (await stranger.post("/v1/events/usage", json=body)).json()["value"] == 0
    asked = {"meter_id": feature["meter_id"], **RANGE}
    assert (await stranger.post("/v1/events/usage/meter", json=asked)).status_code == 404


BACKWARDS = {"start_time": "2025-01-02T00:00", "end_time": "2025-01-01T00:00"}
COUNT = {"event_name": "e", "aggregation_type": "COUNT"}
SUM = {"event_name": "e", "aggregation_type": "SUM", "property_name": "n"}
BUCKETED = SUM | {"aggregation_type": "MAX", "bucket_size": "HOUR"}


@pytest.mark.parametrize(
    ("body", "pointer", "error"),
    [
        (SUM | {"property_name": ""}, "/property_name", "Missing required field: property_name"),
        ({"aggregation_type": "COUNT"}, "/event_name", "Missing required field: event_name"),
        ({"event_name": "e"}, "/aggregation_type", "Missing required field: aggregation_type"),
        (COUNT | {"aggregation_type": "MEDIAN"}, "/aggregation_type", "is unknown: use"),
        (SUM | {"bucket_size": "DAY"}, "/bucket_size", "only MAX does"),
        (SUM | {"multiplier": "2"}, "/multiplier", "leave it out"),
        (SUM | {"aggregation_type": "SUM_WITH_MULTIPLIER"}, "/multiplier", "Missing"),
        (COUNT | {"group_by": ["region"]}, "/group_by/0", 'write "source", or'),
        (COUNT | {"group_by": ["properties."]}, "/group_by/0", 'write "source", or'),
        (COUNT | {"group_by": ["source", "source"]}, "/group_by", "twice"),
        (BUCKETED | {"group_by": ["source"]}, "/group_by", "takes one property"),
        (BUCKETED | {"group_by": ["properties.a", "properties.b"]}, "/group_by", "one property"),
        (COUNT | {"timezone": "Mars"}, "/timezone", "IANA"),
        (COUNT | {"start_time": "yesterday"}, "/start_time", "ISO 8601"),
        (COUNT | BACKWARDS, "/end_time", "after"),
        (COUNT | {"start_time": "1969-01-01T00:00"}, "/start_time", "1970"),
        (COUNT | {"start_time": "2199-01-01T00:00"}, "/start_time", "before end_time"),
        (COUNT | {"window_size": "SECOND"}, "/window_size", "is unknown: use"),
        (COUNT | {"window_size": "MINUTE"}, "/window_size", "more than 10000 windows"),
        (COUNT | {"filters": {"k": []}}, "/filters/k", "at least 1"),
        (COUNT | {"customer": "c1"}, "/customer", "remove it"),
    ],
)  # fmt: skip
async def test_a_request_that_makes_no_sense_is_refused_with_its_place(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str, error: str
) -> None:
    if body.get("window_size") == "MINUTE":
        body = body | {"start_time": "2025-01-01T00:00", "end_time": "2025-01-09T00:00"}
    answer = await client.post("/v1/events/usage", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert error in answer.json()["error"]


def test_a_store_that_is_away_is_503() -> None:
    with pytest.raises(ServiceUnavailable), Store("http://127.0.0.1:1/x").reading():
        raise AssertionError("there is no store")


async def test_an_answer_of_too_many_buckets_is_400_with_the_cure(
    client: httpx.AsyncClient, store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each minute is a row; years of them, in groups, would take all memory there is."""
    aggregation = {"type": "MAX", "field": "n", "bucket_size": "MINUTE"}
    feature = await make_feature(client, aggregation=aggregation)
    rule = Rule(ACCOUNT, "model.usage", "MAX", "n", bucket_size="MINUTE")
    put(store, rule, feature["id"], *({"n": number} for number in range(5)))
    body = {"meter_id": feature["meter_id"], "external_customer_id": "c1", **RANGE}
    answer = await client.post("/v1/events/usage/meter", json=body)
    assert (answer.status_code, answer.json()["value"]) == (200, 10)
    monkeypatch.setattr("billing.usage.ROWS_MAX", 3)
    answer = await client.post("/v1/events/usage/meter", json=body)
    assert answer.status_code == 400
    assert "too many rows" in answer.text and "ask for a shorter range" in answer.text
