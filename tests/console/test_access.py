"""Who may do what, and how every refusal looks."""

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from catalog import keys
from catalog.database import Catalog
from console.app import routes
from console.routing import Resource
from console.settings import Settings
from schemas.catalog import Scope

Connect = Callable[[str | None], httpx.AsyncClient]
ERROR_FIELDS = {
    "error",
    "code",
    "message",
    "http_status_code",
    "details",
    "type",
    "title",
    "status",
    "detail",
    "errors",
}
METHODS = [
    (resource.path.replace("{external_id:path}", "x").replace("{id}", "x"), name, method.scope)
    for resource in routes()
    if isinstance(resource, Resource)
    for name, method in resource.methods_of.items()
]


def read_files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("catalog.db*"))


@pytest.mark.parametrize(("path", "method", "scope"), METHODS)
async def test_every_route_needs_a_key_with_its_scope(
    connect: Connect,
    key_of: Callable[[str, list[Scope]], str],
    path: str,
    method: str,
    scope: Scope,
) -> None:
    for key in (None, "sk_wrong", keys.new_key()):
        refused = await connect(key).request(method, path)
        assert (refused.status_code, refused.json()["error"]) == (401, "Unauthorized")
        assert set(refused.json()) == ERROR_FIELDS
    others = [each for each in Scope if each is not scope]
    denied = await connect(key_of("default", others)).request(method, path)
    assert (denied.status_code, denied.json()["code"]) == (403, "permission_denied")
    assert f"'{scope}'" in denied.json()["error"]
    allowed = await connect(key_of("default", [scope])).request(method, path)
    assert allowed.status_code not in (401, 403)


async def test_a_key_is_shown_once_and_ends_when_revoked(
    client: httpx.AsyncClient, connect: Connect, tmp_path: Path
) -> None:
    wish = {"name": "ci", "type": "private_key", "expires_at": "2099-01-01T00:00:00Z"}
    made = (await client.post("/v1/secrets/api/keys", json={**wish, "scopes": ["read"]})).json()
    place = f"/v1/secrets/api/keys/{made['secret']['id']}"
    assert made["secret"]["expires_at"] == "2099-01-01T00:00:00.000Z"
    assert made["secret"]["scopes"] == ["read"]
    seen = await client.get(place)
    listed = await client.get("/v1/secrets/api/keys")
    assert seen.json() == made["secret"] == listed.json()["items"][0]
    assert made["api_key"] not in seen.text + listed.text
    assert "hash" not in made["secret"]
    everything = await asyncio.to_thread(read_files, tmp_path)
    assert made["api_key"].encode() not in everything
    assert keys.hash_of(made["api_key"]).encode() in everything

    user = connect(made["api_key"])
    assert (await user.get("/v1/features")).status_code == 200
    revoked = await client.delete(place)
    assert (revoked.status_code, revoked.content) == (204, b"")
    assert (await user.get("/v1/features")).status_code == 401
    assert (await client.get(place)).json()["status"] == "archived"


async def test_a_key_revoked_elsewhere_ends_within_a_poll(
    connect: Connect, key_of: Callable[[str, list[Scope]], str], settings: Settings
) -> None:
    key = key_of("default", list(Scope))
    user = connect(key)
    assert (await user.get("/v1/features")).status_code == 200
    catalog = Catalog(settings.catalog)
    with catalog.writing("elsewhere") as writing:
        found = keys.find(writing.session, key)
        assert found is not None
        keys.revoke(writing, "default", found.id)
    catalog.close()
    for _ in range(100):
        if (await user.get("/v1/features")).status_code == 401:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the key still opens")


async def test_a_key_ends_when_it_expires(client: httpx.AsyncClient, connect: Connect) -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=0.5)
    wish = {"name": "short", "expires_at": expires_at.isoformat()}
    user = connect((await client.post("/v1/secrets/api/keys", json=wish)).json()["api_key"])
    assert (await user.get("/v1/features")).status_code == 200
    await asyncio.sleep((expires_at - datetime.now(UTC)).total_seconds() + 0.01)
    assert (await user.get("/v1/features")).status_code == 401


async def test_the_history_of_a_key_tells_who_revoked_it_and_not_the_hash(
    client: httpx.AsyncClient,
) -> None:
    made = (await client.post("/v1/secrets/api/keys", json={"name": "ci"})).json()
    place = f"/v1/secrets/api/keys/{made['secret']['id']}"
    await client.delete(place)
    history = await client.get(f"{place}/history")
    first, last = history.json()["items"]
    assert (first["before"], last["before"]["status"]) == (None, "published")
    assert last["after"]["revoked_at"] == last["at"]
    assert last["actor"].startswith("secret_")
    assert "hash" not in history.text


async def test_wrong_keys_are_refused_with_place_and_cure(client: httpx.AsyncClient) -> None:
    for wish, pointer in (
        ({}, "/name"),
        ({"name": "x", "type": "publishable_key"}, "/type"),
        ({"name": "x", "scopes": []}, "/scopes"),
        ({"name": "x", "scopes": ["root"]}, "/scopes/0"),
        ({"name": "x", "strict": "yes"}, "/strict"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "x", "expires_at": "2020-01-01"}, "/expires_at"),
        ({"name": "x", "expires_at": 5}, "/expires_at"),
        ({"name": "x", "requests_per_minute": -1}, "/requests_per_minute"),
        ({"name": "x", "bulk_requests_per_minute": 1.5}, "/bulk_requests_per_minute"),
        ({"name": "x", "bulk_requests_per_minute": 10_000_001}, "/bulk_requests_per_minute"),
    ):
        refused = await client.post("/v1/secrets/api/keys", json=wish)
        assert refused.status_code == 400, wish
        assert refused.json()["errors"][0]["pointer"] == pointer


async def test_the_limits_of_a_key_are_shown_and_changed(client: httpx.AsyncClient) -> None:
    wish = {"name": "ci", "requests_per_minute": 5000, "strict": True}
    made = (await client.post("/v1/secrets/api/keys", json=wish)).json()["secret"]
    assert made["requests_per_minute"] == 5000
    assert "bulk_requests_per_minute" not in made
    place = f"/v1/secrets/api/keys/{made['id']}"
    changed = await client.put(place, json={"bulk_requests_per_minute": 0, "strict": False})
    assert changed.status_code == 200
    told = changed.json()
    assert (told["requests_per_minute"], told["bulk_requests_per_minute"]) == (5000, 0)
    assert (told["strict"], told["name"]) == (False, "ci")
    back = (await client.put(place, json={"requests_per_minute": None})).json()
    assert "requests_per_minute" not in back
    assert (await client.put(place, json=back | {"name": "CI"})).json()["name"] == "CI"
    history = (await client.get(f"{place}/history")).json()["items"]
    assert [each["after"]["requests_per_minute"] for each in history] == [5000, 5000, None, None]
    assert "hash" not in str(history)
    for body, pointer in (
        ({"scopes": ["read"]}, "/scopes"),
        ({"requests_per_minute": -1}, "/requests_per_minute"),
        ({"requests_per_minute": True}, "/requests_per_minute"),
        ({"expires_at": "2099-01-01T00:00:00Z"}, "/expires_at"),
        ({"hash": "0"}, "/hash"),
    ):
        refused = await client.put(place, json=body)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, pointer)
    assert (await client.put("/v1/secrets/api/keys/secret_x", json={})).status_code == 404


async def test_guessing_keys_is_429_after_twenty_and_a_valid_key_goes_on(
    connect: Connect, client: httpx.AsyncClient
) -> None:
    statuses = []
    for _ in range(25):
        refused = await connect(keys.new_key()).get("/v1/features")
        statuses.append(refused.status_code)
        assert set(refused.json()) == ERROR_FIELDS
        assert (await client.get("/v1/features")).status_code == 200
    assert statuses == [401] * 20 + [429] * 5
    assert int(refused.headers["retry-after"]) >= 1


async def test_an_unknown_path_and_an_unknown_method_have_the_error_object(
    client: httpx.AsyncClient,
) -> None:
    unknown = await client.get("/v1/nothing")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    wrong = await client.patch("/v1/features")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert set(unknown.json()) == set(wrong.json()) == ERROR_FIELDS
    assert (await client.head("/v1/features")).status_code == 200
    assert (await client.get("/v1/features/")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nope", b"\xff", b'{"name":"\xff"}', b'{"name":"\\ud800"}', b"[" * 200_000],
)
async def test_what_is_not_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    refused = await client.post("/v1/features", content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "validation_error")


async def test_a_body_too_large_is_413_and_one_that_is_no_json_415(
    client: httpx.AsyncClient,
) -> None:
    large = await client.post("/v1/features", json={"name": "x" * (1 << 20)})
    assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")
    form = await client.post("/v1/features", data={"name": "x"})
    assert (form.status_code, form.json()["code"]) == (415, "unsupported_media_type")
    for media_type in ("application/json; charset=utf-8", "application/merge-patch+json"):
        headers = {"content-type": media_type}
        read = await client.post("/v1/features", content=b"{}", headers=headers)
        assert read.status_code == 400


async def test_a_nul_in_the_address_is_400(client: httpx.AsyncClient) -> None:
    for path in ("/v1/features/a%00b", "/v1/customers/external/%00", "/v1/features?lookup_key=%00"):
        refused = await client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (400, "validation_error")


async def test_problem_json_is_sent_to_who_asks_for_it(connect: Connect) -> None:
    async def media_type(accept: str) -> str:
        refused = await connect(None).get("/v1/features", headers={"accept": accept})
        return refused.headers["content-type"]

    assert await media_type("application/problem+json") == "application/problem+json"
    assert await media_type("text/html, Application/Problem+JSON;q=0.5") == (
        "application/problem+json"
    )
    assert await media_type("application/problem+json;q=0") == "application/json"
    assert await media_type("*/*") == "application/json"


async def test_a_catalog_that_is_away_is_503(client: httpx.AsyncClient, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "catalog.db")
    connection.execute("ALTER TABLE features RENAME TO hidden")
    connection.commit()
    connection.close()
    refused = await client.get("/v1/features")
    assert (refused.status_code, refused.json()["code"]) == (503, "service_unavailable")
    assert refused.headers["retry-after"] == "1"


async def test_a_fault_of_ours_is_500_and_tells_nothing(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("catalog.listing.find", broken)
    refused = await client.get("/v1/features")
    assert (refused.status_code, refused.json()["code"]) == (500, "internal_error")
    assert "secret detail" not in refused.text
