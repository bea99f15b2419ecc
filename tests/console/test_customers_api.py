"""/v1/customers."""

from collections.abc import Callable

import httpx

from schemas.catalog import Scope

ADA = {
    "external_id": "cust/ada",
    "name": "Ada",
    "email": "ada@example.com",
    "timezone": "Europe/Berlin",
    "metadata": {"tier": "gold"},
    "address_city": "Berlin",
}


async def test_a_customer_is_made_read_changed_and_archived(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/customers", json=ADA)
    customer = made.json()
    place = f"/v1/customers/{customer['id']}"
    assert made.status_code == 201
    assert {key: customer[key] for key in ADA} == ADA
    assert (await client.get(place)).json() == customer
    assert (await client.get("/v1/customers/external/cust/ada")).json() == customer
    assert (await client.get("/v1/customers/external/cust%2Fada")).json() == customer

    changed = await client.put(place, json={**customer, "name": "Ada L."})
    assert (changed.status_code, changed.json()["name"]) == (200, "Ada L.")

    gone = await client.delete(place)
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await client.delete(place)).status_code == 204
    assert (await client.get(place)).json()["status"] == "archived"
    assert (await client.get("/v1/customers")).json()["items"] == []
    assert (await client.post("/v1/customers", json=ADA)).status_code == 409
    revived = await client.put(place, json={"status": "published"})
    assert revived.json()["status"] == "published"


async def test_a_customer_is_changed_by_query_as_the_sdks_do(client: httpx.AsyncClient) -> None:
    customer = (await client.post("/v1/customers", json=ADA)).json()
    by_ours = await client.put("/v1/customers", params={"id": customer["id"]}, json={"name": "A"})
    assert by_ours.json()["name"] == "A"
    named = {"external_customer_id": "cust/ada"}
    by_theirs = await client.put("/v1/customers", params=named, json={"name": "B"})
    assert by_theirs.json()["name"] == "B"
    assert (await client.put("/v1/customers", json={"name": "C"})).status_code == 400
    named = {"external_customer_id": "nobody"}
    unknown = await client.put("/v1/customers", params=named, json={"name": "C"})
    text = "Customer with external_customer_id 'nobody' not found"
    assert (unknown.status_code, unknown.json()["error"]) == (404, text)


async def test_an_external_id_cannot_be_changed(client: httpx.AsyncClient) -> None:
    customer = (await client.post("/v1/customers", json=ADA)).json()
    refused = await client.put(f"/v1/customers/{customer['id']}", json={"external_id": "other"})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["pointer"] == "/external_id"


async def test_wrong_customers_are_refused(client: httpx.AsyncClient) -> None:
    for field, value, word in (
        ("external_id", "", "empty"),
        ("external_id", "a\0", "NUL"),
        ("external_id", None, "should be a valid string"),
        ("email", "nobody", "name@example.com"),
        ("timezone", "Mars/Olympus", "IANA"),
        ("timezone", "../../etc/passwd", "IANA"),
        ("tax_treatment", "exempt", "not a field"),
        ("metadata", {"k": "v" * 2000}, "too long"),
        ("metadata", {str(n): "" for n in range(51)}, "at most 50"),
    ):
        refused = await client.post("/v1/customers", json={**ADA, field: value})
        assert refused.status_code == 400, (field, value)
        assert refused.json()["errors"][0]["pointer"].startswith(f"/{field}")
        assert word in refused.json()["error"]


async def test_another_accounts_customers_are_not_there(
    client: httpx.AsyncClient,
    connect: Callable[[str], httpx.AsyncClient],
    key_of: Callable[[str, list[Scope]], str],
) -> None:
    customer = (await client.post("/v1/customers", json=ADA)).json()
    stranger = connect(key_of("stranger", list(Scope)))
    for method, place in (
        ("GET", f"/v1/customers/{customer['id']}"),
        ("PUT", f"/v1/customers/{customer['id']}"),
        ("PUT", f"/v1/customers?id={customer['id']}"),
        ("PUT", "/v1/customers?external_customer_id=cust/ada"),
        ("DELETE", f"/v1/customers/{customer['id']}"),
        ("GET", "/v1/customers/external/cust/ada"),
    ):
        assert (await stranger.request(method, place, json={"name": "x"})).status_code == 404
    found = await stranger.post("/v1/customers/search", json={"external_ids": ["cust/ada"]})
    assert found.json()["pagination"]["total"] == 0
    assert (await stranger.post("/v1/customers", json=ADA)).status_code == 201
