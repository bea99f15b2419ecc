"""The OpenAPI says what the live routes do: nothing is missing from it, nothing is made up."""

import re
from collections import Counter
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from catalog import attempts
from cli.serve import create_app
from tests.console.conftest import Connect

METHODS = {"get", "post", "put", "delete", "patch"}
OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}


def live() -> set[tuple[str, str]]:
    """Every method and path of the service that `tallylog up` runs, but those for everybody."""
    return {
        (method.lower(), re.sub(r"{(\w+):\w+}", r"{\1}", route.path))
        for route in create_app().routes
        if isinstance(route, Route) and route.path not in OPEN
        for method in (route.methods or set()) - {"HEAD"}
    }


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    from console import app, openapi
    from ingest_gateway.description import OPERATIONS
    from schemas.openapi import document

    operations = [*OPERATIONS, *openapi.operations_of(app.routes())]
    return document(operations, title="Tallylog", version="0")


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def test_it_describes_the_live_routes_and_no_others(described: dict[str, Any]) -> None:
    assert {(method, path) for method, path, _ in operations(described)} == live()


def test_every_operation_has_a_name_of_its_own_a_text_and_an_answer(
    described: dict[str, Any],
) -> None:
    names = Counter(operation["operationId"] for _, _, operation in operations(described))
    assert [name for name, count in names.items() if count > 1] == []
    for method, path, operation in operations(described):
        assert operation["summary"], (method, path)
        done = {status: it for status, it in operation["responses"].items() if status < "300"}
        assert len(done) == 1, (method, path)
        status, answer = done.popitem()
        assert ("content" in answer) == (status != "204"), (method, path)


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]
    found = set(re.findall(r"'#/components/schemas/([^']+)'", str(described)))
    assert found
    assert found <= models.keys()


async def test_it_is_served_as_json_and_as_a_page(connect: Connect) -> None:
    client = connect(None)
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in document["paths"]:
        assert path in page.text


def test_every_429_says_when_to_come_back(described: dict[str, Any]) -> None:
    for method, path, operation in operations(described):
        headers = operation["responses"]["429"]["headers"]
        assert headers["Retry-After"]["required"], (method, path)
        assert headers.keys() == {
            "Retry-After", "RateLimit-Policy", "RateLimit",
            "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
        }  # fmt: skip
    gateway = described["paths"]["/v1/events"]["post"]["responses"]
    assert gateway["503"]["headers"].keys() == {"Retry-After"}


async def test_without_a_key_every_operation_is_401(
    connect: Connect, described: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FAILURES_MAX", 1000)
    client = connect(None)
    for method, path, _ in operations(described):
        if path in ("/v1/events", "/v1/events/bulk") and method == "post":
            continue  # the gateway's
        answer = await client.request(method, path.replace("{", "").replace("}", ""))
        assert answer.status_code == 401, (method, path)
        assert answer.json()["error"] == "Unauthorized"


async def test_another_accounts_ids_are_404_on_every_route(
    client: httpx.AsyncClient, connect: Connect, described: dict[str, Any], key_of: Any
) -> None:
    """What one account makes does not exist for another, whatever the method."""
    stranger = connect(key_of("stranger", ["ingest", "read", "admin"]))
    meter = {"event_name": "walk", "aggregation": {"type": "COUNT"}}
    made = {
        "features": await client.post("/v1/features", json={"name": "Walk", "meter": meter}),
        "customers": await client.post("/v1/customers", json={"external_id": "walker"}),
        "keys": await client.post("/v1/secrets/api/keys", json={"name": "walk"}),
    }
    ids = {kind: answer.json() for kind, answer in made.items()}
    known = {
        "features": ids["features"]["id"],
        "meters": ids["features"]["meter_id"],
        "customers": ids["customers"]["id"],
        "keys": ids["keys"]["secret"]["id"],
    }
    walked = 0
    for method, path, operation in operations(described):
        match = re.match(r"/v1/(?:secrets/api/)?(\w+)/{id}", path)
        if match is None or match[1] not in known:
            continue
        where = path.replace("{id}", known[match[1]])
        body = {"name": "theirs now"} if "requestBody" in operation else None
        answer = await stranger.request(method, where, json=body)
        assert answer.status_code == 404, (method, where, answer.text)
        assert known[match[1]] in answer.text
        walked += 1
    assert walked >= 10
