"""/v1/features and /v1/meters: seed 003, and every refusal with its place and cure."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from schemas.catalog import Scope

SUM = {"type": "SUM", "field": "credits"}
METER = {
    "name": "Model Usage",
    "event_name": "model.usage",
    "aggregation": SUM,
    "filters": [{"key": "region", "values": ["EU"]}],
    "reset_usage": "BILLING_PERIOD",
}
MODEL_USAGE = {
    "name": "Model Usage",
    "type": "metered",
    "unit_singular": "credit",
    "unit_plural": "credits",
    "meter": METER,
}


def with_meter(**meter: Any) -> dict[str, Any]:
    return {"name": "F", "meter": {"event_name": "e", "aggregation": SUM, **meter}}


async def test_a_feature_is_made_read_changed_and_archived(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/features", json=MODEL_USAGE)
    assert (made.status_code, made.headers["content-type"]) == (201, "application/json")
    feature = made.json()
    place = f"/v1/features/{feature['id']}"
    assert feature["meter"]["id"] == feature["meter_id"]
    assert {key: feature["meter"][key] for key in METER} == METER
    assert (await client.get(place)).json() == feature

    changed = await client.put(place, json={"name": "Usage", "meter": {"reset_usage": "NEVER"}})
    assert changed.status_code == 200
    assert changed.json()["meter"]["reset_usage"] == "NEVER"
    assert changed.json()["unit_singular"] == "credit"

    archived = await client.delete(place)
    assert (archived.status_code, archived.json()["status"]) == (200, "archived")
    assert (await client.get("/v1/features")).json()["pagination"]["total"] == 0
    again = await client.put(place, json={"status": "published"})
    assert again.json()["status"] == again.json()["meter"]["status"] == "published"


async def test_a_feature_sent_back_as_it_was_read_changes_nothing(
    client: httpx.AsyncClient,
) -> None:
    feature = (await client.post("/v1/features", json=MODEL_USAGE)).json()
    again = await client.put(f"/v1/features/{feature['id']}", json=feature)
    assert (again.status_code, again.json()) == (200, feature)


@pytest.mark.parametrize(
    ("change", "pointer", "field"),
    [
        ({"event_name": "other"}, "/event_name", "event_name"),
        ({"meter": {"event_name": "other"}}, "/meter/event_name", "event_name"),
        ({"meter": {"aggregation": {"type": "COUNT"}}}, "/meter/aggregation", "aggregation"),
        ({"meter": {"aggregation": 5}}, "/meter/aggregation", "aggregation"),
        ({"filters": [{"key": "region", "values": ["US"]}]}, "/filters", "filters"),
        ({"meter": {"filters": None}}, "/meter/filters", "filters"),
        ({"type": "boolean"}, "/type", "type"),
        ({"meter_id": "meter_x"}, "/meter_id", "meter_id"),
        ({"id": "feat_x"}, "/id", "id"),
    ],
)
async def test_what_decides_counting_cannot_be_changed(
    client: httpx.AsyncClient, change: dict[str, Any], pointer: str, field: str
) -> None:
    feature = (await client.post("/v1/features", json=MODEL_USAGE)).json()
    refused = await client.put(f"/v1/features/{feature['id']}", json=change)
    text = f"{field} cannot be changed after creation: create a new feature"
    assert refused.status_code == 400
    assert refused.json()["error"] == text
    assert refused.json()["errors"] == [{"pointer": pointer, "code": "immutable", "detail": text}]


async def test_equal_filters_and_numbers_are_no_change(client: httpx.AsyncClient) -> None:
    rule = {"type": "SUM_WITH_MULTIPLIER", "field": "n", "multiplier": 2}
    feature = (await client.post("/v1/features", json=with_meter(aggregation=rule))).json()
    assert feature["meter"]["aggregation"]["multiplier"] == "2"
    body = {"meter": {"aggregation": {**rule, "multiplier": "2.0"}}, "filters": []}
    assert (await client.put(f"/v1/features/{feature['id']}", json=body)).json() == feature


@pytest.mark.parametrize(
    ("body", "pointer", "error"),
    [
        ({}, "/name", "Missing required field: name"),
        ({"name": "F"}, "/meter", "Missing required field: meter"),
        (
            {"name": "F", "meter": {"aggregation": SUM}},
            "/meter/event_name",
            "Missing required field: meter.event_name",
        ),
        ({**MODEL_USAGE, "colour": 1}, "/colour", "'colour' is not a field of this request"),
        ({**MODEL_USAGE, "type": "boolean"}, "/type", "type 'boolean' is unknown: use 'metered'"),
        ({**MODEL_USAGE, "meter_id": "m"}, "/meter", "either a meter or a meter_id"),
        ({"name": "F", "meter_id": "m"}, "/meter_id", "Meter 'm' not found"),
        ({**MODEL_USAGE, "name": "x" * 256}, "/name", "at most 255 characters"),
        ({**MODEL_USAGE, "name": "x\0"}, "/name", "NUL"),
        ({**MODEL_USAGE, "name": 5}, "/name", "name should be a valid string"),
        ({**MODEL_USAGE, "metadata": {"a": 1}}, "/metadata/a", "should be a valid string"),
        (with_meter(event_name=""), "/meter/event_name", "is empty"),
        (with_meter(aggregation={"type": "MEDIAN"}), "/meter/aggregation/type", "'MEDIAN'"),
        (
            with_meter(aggregation={"type": "SUM"}),
            "/meter/aggregation/field",
            "Missing required field: meter.aggregation.field",
        ),
        (
            with_meter(aggregation={"type": "COUNT", "field": "n"}),
            "/meter/aggregation/field",
            "leave field out",
        ),
        (
            with_meter(aggregation={**SUM, "multiplier": "2"}),
            "/meter/aggregation/multiplier",
            "SUM takes no multiplier",
        ),
        (
            with_meter(aggregation={"type": "SUM_WITH_MULTIPLIER", "field": "n"}),
            "/meter/aggregation/multiplier",
            "Missing required field: meter.aggregation.multiplier",
        ),
        (
            with_meter(aggregation={**SUM, "bucket_size": "DAY"}),
            "/meter/aggregation/bucket_size",
            "only MAX does",
        ),
        (
            with_meter(aggregation={"type": "MAX", "field": "n", "bucket_size": "YEAR"}),
            "/meter/aggregation/bucket_size",
            "'15MIN'",
        ),
        (
            with_meter(aggregation={"type": "MAX", "field": "n", "group_by": "g"}),
            "/meter/aggregation/group_by",
            "needs MAX with a bucket_size",
        ),
        (
            with_meter(
                aggregation={"type": "MAX", "field": "n", "bucket_size": "DAY"},
                reset_usage="NEVER",
            ),
            "/meter/reset_usage",
            "use BILLING_PERIOD",
        ),
        (with_meter(reset_usage="NEVERMORE"), "/meter/reset_usage", "'NEVERMORE'"),
        (with_meter(filters=[{"key": "", "values": ["a"]}]), "/meter/filters/0/key", "is empty"),
        (with_meter(filters=[{"key": "k", "values": []}]), "/meter/filters/0/values", "too short"),
        (with_meter(filters=[{"key": "k", "values": [""]}]), "/meter/filters/0/values/0", "empty"),
        (with_meter(filters=[{"key": "k", "values": ["a"]}] * 2), "/meter/filters", "twice"),
        ([MODEL_USAGE], "", "The body should be an object"),
    ],
)
async def test_a_wrong_feature_is_refused_with_place_and_cure(
    client: httpx.AsyncClient, body: Any, pointer: str, error: str
) -> None:
    refused = await client.post("/v1/features", json=body)
    assert refused.status_code == 400
    assert refused.json()["code"] == "validation_error"
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert error in refused.json()["error"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.1", "0.1"),
        ("1e3", "1000"),
        ('"0.000000000000000001"', "0.000000000000000001"),
        ("0.123456789012345678", "0.123456789012345678"),
        ("99999999999999999999", "99999999999999999999"),
        ("2.500", "2.5"),
    ],
)
async def test_a_multiplier_is_exact_from_number_or_text(
    client: httpx.AsyncClient, number: str, text: str
) -> None:
    body = (
        '{"name":"F","meter":{"event_name":"e","aggregation":'
        f'{{"type":"SUM_WITH_MULTIPLIER","field":"n","multiplier":{number}}}}}}}'
    )
    made = await client.post(
        "/v1/features", content=body, headers={"content-type": "application/json"}
    )
    assert made.json()["meter"]["aggregation"]["multiplier"] == text


@pytest.mark.parametrize(
    "number",
    ["0", "-1", "true", "[]", '"x"', '"NaN"', "1e20", "1e-19", "1e99999999999", "1e-99999999999"],
)
async def test_a_multiplier_out_of_range_is_refused(client: httpx.AsyncClient, number: str) -> None:
    body = (
        '{"name":"F","meter":{"event_name":"e","aggregation":'
        f'{{"type":"SUM_WITH_MULTIPLIER","field":"n","multiplier":{number}}}}}}}'
    )
    refused = await client.post(
        "/v1/features", content=body, headers={"content-type": "application/json"}
    )
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["pointer"] == "/meter/aggregation/multiplier"


async def test_a_second_active_feature_of_a_name_is_409(client: httpx.AsyncClient) -> None:
    first = (await client.post("/v1/features", json=MODEL_USAGE)).json()
    refused = await client.post("/v1/features", json=MODEL_USAGE)
    assert (refused.status_code, refused.json()["code"]) == (409, "already_exists")
    assert refused.json()["details"]["feature_id"] == first["id"]


async def test_empty_texts_of_typed_clients_mean_nothing(client: httpx.AsyncClient) -> None:
    rule = {"type": "COUNT", "field": "", "bucket_size": "", "group_by": "", "multiplier": ""}
    body = {**with_meter(aggregation=rule, name="", filters=None), "lookup_key": ""}
    made = await client.post("/v1/features", json=body)
    assert made.status_code == 201
    assert made.json()["meter"]["aggregation"] == {"type": "COUNT"}
    assert "lookup_key" not in made.json()


async def test_features_are_listed_and_searched(client: httpx.AsyncClient) -> None:
    made = [
        (await client.post("/v1/features", json=with_meter(event_name=f"e{n}"))).json()
        for n in range(3)
    ]
    listed = (await client.get("/v1/features", params={"limit": 2, "offset": 1})).json()
    assert listed == {
        "items": [made[1], made[0]],
        "pagination": {"total": 3, "limit": 2, "offset": 1},
    }
    body = {"feature_ids": [made[2]["id"]], "expand": "meters"}
    found = (await client.post("/v1/features/search", json=body)).json()
    assert found["items"] == [made[2]]
    ids = ",".join([made[0]["id"], made[2]["id"]])
    assert (await client.get(f"/v1/features?feature_ids={ids}")).json()["pagination"]["total"] == 2
    for bad in ("limit=0", "limit=1001", "limit=x", "limit=²", "offset=-1", "status=gone", "a=b"):
        assert (await client.get(f"/v1/features?{bad}")).status_code == 400


async def test_a_meter_made_first_is_named_by_a_feature(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/meters", json=METER)
    meter = made.json()
    assert made.status_code == 201
    assert (await client.get(f"/v1/meters/{meter['id']}")).json() == meter
    feature = await client.post("/v1/features", json={"name": "F", "meter_id": meter["id"]})
    assert feature.json()["meter"] == meter
    assert (await client.get("/v1/meters")).json()["items"] == [meter]
    again = await client.post("/v1/features", json={"name": "G", "meter_id": meter["id"]})
    assert again.status_code == 409


async def test_another_accounts_features_are_not_there(
    client: httpx.AsyncClient,
    connect: Callable[[str], httpx.AsyncClient],
    key_of: Callable[[str, list[Scope]], str],
) -> None:
    feature = (await client.post("/v1/features", json=MODEL_USAGE)).json()
    stranger = connect(key_of("stranger", list(Scope)))
    for method, place in (
        ("GET", f"/v1/features/{feature['id']}"),
        ("PUT", f"/v1/features/{feature['id']}"),
        ("DELETE", f"/v1/features/{feature['id']}"),
        ("GET", f"/v1/meters/{feature['meter_id']}"),
    ):
        refused = await stranger.request(method, place, json={"name": "mine"})
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert (await stranger.get("/v1/features")).json()["items"] == []
    assert (await stranger.post("/v1/features", json=MODEL_USAGE)).status_code == 201


async def test_a_meters_history_is_told_with_that_of_its_feature(client: httpx.AsyncClient) -> None:
    rule = {"event_name": "told", "aggregation": {"type": "COUNT"}}
    alone = (await client.post("/v1/meters", json=rule)).json()
    wish = {"name": "Told", "meter_id": alone["id"]}
    feature = (await client.post("/v1/features", json=wish)).json()
    place = f"/v1/features/{feature['id']}"
    await client.put(place, json={"description": "not about the meter"})
    await client.put(place, json={"meter": {"reset_usage": "NEVER"}})
    history = (await client.get(f"/v1/meters/{alone['id']}/history")).json()
    assert [each["after"]["reset_usage"] for each in history["items"]] == [
        "BILLING_PERIOD",
        "NEVER",
    ]
    assert history["items"][0]["after"] == alone
    assert history["items"][1]["before"] == alone
    second = await client.get(f"/v1/meters/{alone['id']}/history", params={"offset": 1, "limit": 1})
    assert second.json() == {
        "items": history["items"][1:],
        "pagination": {"total": 2, "limit": 1, "offset": 1},
    }
    embedded = {"name": "Embedded", "meter": {**rule, "event_name": "embedded"}}
    meter_id = (await client.post("/v1/features", json=embedded)).json()["meter_id"]
    made = (await client.get(f"/v1/meters/{meter_id}/history")).json()["items"]
    assert [(each["before"], each["after"]["id"]) for each in made] == [(None, meter_id)]
