"""The two routes: who may send, what goes into the log, what is answered."""

import asyncio
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from ingest_gateway.events import Gateway
from schemas.catalog import Scope
from schemas.errors import ServiceUnavailable
from schemas.ids import event_id_at
from tests.ingest_gateway.conftest import FakeLog

EVENT = {"event_name": "api.calls", "external_customer_id": "cust_1"}


# What is accepted


async def test_one_event_is_one_record_as_it_was_sent(
    client: httpx.AsyncClient, log: FakeLog
) -> None:
    body = b'{"event_name": "api.calls",  "external_customer_id": "cust_1", "event_id": "e\\u00e9"}'
    response = await client.post("/v1/events", content=body)
    assert response.status_code == 202
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"event_id": "eé", "message": "Event accepted for processing"}
    (record,) = log.records
    assert record.value == body
    assert record.headers["account"] == b"default"
    assert set(record.headers) == {"account", "received-at"}


async def test_an_event_without_an_id_is_answered_the_id_that_the_packer_derives(
    client: httpx.AsyncClient, log: FakeLog
) -> None:
    answered = (await client.post("/v1/events", json=EVENT)).json()["event_id"]
    first_id = log.records[0].headers["first-id"].decode()
    assert answered == event_id_at(first_id, 0) == f"event_{first_id}"


async def test_a_bulk_is_one_record_wrapped_or_bare(
    client: httpx.AsyncClient, log: FakeLog
) -> None:
    for body in ({"events": [EVENT] * 1000}, [EVENT]):
        response = await client.post("/v1/events/bulk", json=body)
        assert response.status_code == 202
        assert response.json() == {"message": "Events accepted for processing"}
        assert json.loads(log.records[-1].value) == body
    assert len(log.records) == 2


async def test_a_compressed_body_is_kept_as_the_text_it_was(
    client: httpx.AsyncClient, log: FakeLog
) -> None:
    text = json.dumps([EVENT] * 500).encode()
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    response = await client.post("/v1/events/bulk", content=gzip.compress(text), headers=headers)
    assert response.status_code == 202
    assert log.records[0].value == text


# Who may send


@pytest.mark.parametrize("key", ["", "wrong", "sk_" + "0" * 39, "sk_é"])
async def test_a_wrong_key_is_401(client: httpx.AsyncClient, log: FakeLog, key: str) -> None:
    headers = [(b"x-api-key", key.encode())]
    for path in ("/v1/events", "/v1/events/bulk"):
        response = await client.post(path, json=EVENT, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"] == "Unauthorized"
        assert response.json()["code"] == "unauthorized"
    assert log.records == []


async def test_no_key_is_401(client: httpx.AsyncClient) -> None:
    del client.headers["x-api-key"]
    assert (await client.post("/v1/events", json=EVENT)).status_code == 401


async def test_a_key_without_the_scope_is_403_and_names_it(
    client: httpx.AsyncClient, new_key: Callable[..., str]
) -> None:
    key = new_key(scopes=[Scope.READ])
    response = await client.post("/v1/events", json=EVENT, headers={"x-api-key": key})
    assert response.status_code == 403
    assert response.json()["error"] == "The API key lacks the scope 'ingest'"


async def test_a_new_key_works_at_once_and_a_revoked_one_no_more(
    client: httpx.AsyncClient,
    gateway: Gateway,
    new_key: Callable[..., str],
    revoke_all: Callable[[], None],
) -> None:
    key = new_key(scopes=[Scope.INGEST])
    headers = {"x-api-key": key}
    assert (await client.post("/v1/events", json=EVENT, headers=headers)).status_code == 202
    revoke_all()
    gateway.follower.refresh()
    assert (await client.post("/v1/events", json=EVENT, headers=headers)).status_code == 401


async def test_an_expired_key_is_401(
    client: httpx.AsyncClient, new_key: Callable[..., str]
) -> None:
    headers = {"x-api-key": new_key(expires_at=datetime.now(UTC) + timedelta(seconds=0.3))}
    assert (await client.post("/v1/events", json=EVENT, headers=headers)).status_code == 202
    await asyncio.sleep(0.4)
    assert (await client.post("/v1/events", json=EVENT, headers=headers)).status_code == 401


async def test_known_keys_go_on_while_the_catalog_is_away(
    client: httpx.AsyncClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> int:
        raise ServiceUnavailable("The catalog is unavailable")

    monkeypatch.setattr(gateway.follower, "refresh", away)
    assert (await client.post("/v1/events", json=EVENT)).status_code == 202
    unknown = {"event_name": "a", "customer_id": "cust_unknown"}
    assert (await client.post("/v1/events", json=unknown)).status_code == 503


# What is refused


@pytest.mark.parametrize(
    ("path", "body", "error", "pointer"),
    [
        ("/v1/events", {}, "Missing required field: event_name", "/event_name"),
        (
            "/v1/events",
            {"event_name": "a"},
            "Missing required field: external_customer_id",
            "/external_customer_id",
        ),
        (
            "/v1/events",
            EVENT | {"timestamp": "2025-13-01T00:00:00Z"},
            "Invalid timestamp format",
            "/timestamp",
        ),
        ("/v1/events", [EVENT], "send one event as a JSON object; several are a bulk", ""),
        ("/v1/events/bulk", {"events": []}, "Empty events array", "/events"),
        ("/v1/events/bulk", [EVENT] * 1001, "More than 1000 events in a single request", "/events"),
        (
            "/v1/events/bulk",
            [EVENT, EVENT, EVENT, {"event_name": ""}],
            "Missing required field: event_name",
            "/events/3/event_name",
        ),
    ],
)
async def test_a_bad_body_is_400_and_nothing_is_written(
    client: httpx.AsyncClient, log: FakeLog, path: str, body: Any, error: str, pointer: str
) -> None:
    response = await client.post(path, json=body)
    answer = response.json()
    assert response.status_code == answer["http_status_code"] == answer["status"] == 400
    assert (answer["error"], answer["code"]) == (error, "validation_error")
    assert answer["errors"][0]["pointer"] == pointer
    assert log.records == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content-encoding": "br"}, 415, "unsupported_media_type"),
        ({"content-encoding": "gzip"}, 400, "validation_error"),
    ],
)
async def test_a_body_of_the_wrong_kind_is_refused(
    client: httpx.AsyncClient, headers: dict[str, str], status: int, code: str
) -> None:
    response = await client.post("/v1/events", content=json.dumps(EVENT), headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"rubbish", b"\xef\xbb\xbf{}", b"null", b"[" * 99999]
)
async def test_bytes_that_are_no_event_are_400(client: httpx.AsyncClient, body: bytes) -> None:
    for path in ("/v1/events", "/v1/events/bulk"):
        assert (await client.post(path, content=body)).status_code == 400


async def test_a_body_over_the_limit_is_413(client: httpx.AsyncClient) -> None:
    body = b" " * (10 << 20) + json.dumps(EVENT).encode()
    response = await client.post("/v1/events", content=body)
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
    bomb = gzip.compress(body)
    response = await client.post("/v1/events", content=bomb, headers={"content-encoding": "gzip"})
    assert response.status_code == 413


async def test_a_problem_is_answered_as_such_where_asked(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/v1/events", json={}, headers={"accept": "application/problem+json"}
    )
    assert response.headers["content-type"] == "application/problem+json"


async def test_other_paths_and_methods_have_the_same_shape_of_error(
    client: httpx.AsyncClient,
) -> None:
    response = await client.get("/v1/events")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    response = await client.post("/v1/nothing")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


# Strict, and customers by our id


async def test_strict_handling_is_asked_for_or_the_keys(
    client: httpx.AsyncClient,
    new_key: Callable[..., str],
    new_feature: Callable[[str], None],
    new_customer: Callable[[str], str],
) -> None:
    strict = {"Prefer": 'respond-async, handling="strict"'}
    event = {"event_name": "unknown.event", "external_customer_id": "invalid_id"}
    assert (await client.post("/v1/events", json=event)).status_code == 202
    for headers in (strict, {"x-api-key": new_key(strict=True)}):
        response = await client.post("/v1/events", json=event, headers=headers)
        assert response.status_code == 400
        assert [each["detail"] for each in response.json()["errors"]] == [
            "Event name 'unknown.event' not found",
            "Customer with external_customer_id 'invalid_id' not found",
        ]
    new_feature("unknown.event")
    new_customer("invalid_id")
    response = await client.post("/v1/events", json=event, headers=strict)
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "handling=strict"


@pytest.mark.parametrize(
    ("preferences", "strict"),
    [
        (["handling=strict"], True),
        (["Handling = STRICT ; note=x"], True),
        (["return=minimal", 'handling="strict"'], True),
        (["wait=5, handling=strict, handling=lenient"], True),
        (["handling=lenient", "handling=strict"], False),
        (["handling=strictly"], False),
        (["xhandling=strict"], False),
        (["handling"], False),
        ([""], False),
    ],
)
async def test_the_first_word_on_handling_counts_in_one_header_or_several(
    client: httpx.AsyncClient, preferences: list[str], strict: bool
) -> None:
    headers = [("prefer", each) for each in preferences]
    answer = await client.post("/v1/events", json=EVENT, headers=headers)
    assert answer.status_code == (400 if strict else 202)


async def test_a_strict_bulk_is_refused_whole_with_every_flaw_by_its_index(
    client: httpx.AsyncClient,
    log: FakeLog,
    new_feature: Callable[[str], None],
    new_customer: Callable[[str], str],
) -> None:
    new_feature("model.usage")
    new_customer("cust_123")
    good = {"event_name": "model.usage", "external_customer_id": "cust_123"}
    events = [good, good | {"event_name": "unknown.event"}, good, good]
    events[3] = good | {"external_customer_id": "invalid_id"}
    strict = {"Prefer": "handling=strict"}
    answer = await client.post("/v1/events/bulk", json={"events": events}, headers=strict)
    assert (answer.status_code, answer.json()["details"]) == (400, {"count": 2})
    assert answer.json()["error"] == "Event name 'unknown.event' not found"
    assert [(each["pointer"], each["detail"]) for each in answer.json()["errors"]] == [
        ("/events/1/event_name", "events[1]: Event name 'unknown.event' not found"),
        (
            "/events/3/external_customer_id",
            "events[3]: Customer with external_customer_id 'invalid_id' not found",
        ),
    ]
    assert log.records == []
    answer = await client.post("/v1/events/bulk", json=[good], headers=strict)
    assert answer.headers["preference-applied"] == "handling=strict"


async def test_our_customer_id_is_resolved_also_of_a_customer_made_just_now(
    client: httpx.AsyncClient, log: FakeLog, new_customer: Callable[[str], str]
) -> None:
    customer_id = new_customer("acme-1")
    response = await client.post("/v1/events", json={"event_name": "a", "customer_id": customer_id})
    assert response.status_code == 202
    assert json.loads(log.records[0].value)["external_customer_id"] == "acme-1"
    bad = [EVENT, {"event_name": "a", "customer_id": "cust_nobody"}]
    response = await client.post("/v1/events/bulk", json=bad)
    assert response.json()["error"] == "Customer with customer_id 'cust_nobody' not found"
    assert response.json()["errors"][0]["pointer"] == "/events/1/customer_id"


# When the log is away


async def test_without_the_log_it_is_503_with_retry_after(
    client: httpx.AsyncClient, log: FakeLog
) -> None:
    log.away = "no broker"
    for path, body in (("/v1/events", EVENT), ("/v1/events/bulk", [EVENT])):
        response = await client.post(path, json=body)
        assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")
        assert int(response.headers["retry-after"]) >= 1


async def test_too_many_bytes_on_their_way_are_503_and_room_comes_back(
    client: httpx.AsyncClient, gateway: Gateway, log: FakeLog
) -> None:
    room = gateway.budget.left
    gateway.budget.left = 300
    log.silent = True
    async with asyncio.TaskGroup() as group:
        first = group.create_task(client.post("/v1/events", json=EVENT))
        await asyncio.sleep(0.05)
        second = await client.post("/v1/events", json=EVENT)
        assert second.status_code == 503
        assert "retry-after" in second.headers
        first.cancel()
    assert gateway.budget.left == 300 < room
    log.silent = False
    assert (await client.post("/v1/events", json=EVENT)).status_code == 202


# Health


async def test_readiness_says_why_not(
    client: httpx.AsyncClient, gateway: Gateway, log: FakeLog
) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    log.away = "no broker"
    gateway.follower.snapshot.version = 0
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["reasons"] == [
        "the event log is unavailable: no broker",
        "the catalog has not been read yet: no API key is known",
    ]


async def test_what_happened_is_counted(client: httpx.AsyncClient) -> None:
    await client.post("/v1/events/bulk", json=[EVENT] * 7)
    await client.post("/v1/events", json={})
    text = (await client.get("/metrics")).text
    assert 'gateway_requests_total{route="/v1/events/bulk",status="202"}' in text
    assert 'gateway_requests_total{route="/v1/events",status="400"}' in text
    assert 'gateway_events_refused_total{code="validation_error"}' in text
    assert "gateway_events_accepted_total" in text
