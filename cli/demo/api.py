"""The demo as a client of the API: what it creates, sends and asks, with nothing but a key."""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx

from cli.demo.meters import Metered


class DemoFailed(Exception):
    """An answer that the demo can't go on with."""


class Api:
    """Tallylog's HTTP API. `async with Api(base_url, api_key) as api`."""

    def __init__(self, base_url: str, api_key: str, connections: int = 16) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"x-api-key": api_key, "content-type": "application/json"},
            timeout=60,
            limits=httpx.Limits(max_connections=connections),
            trust_env=False,
        )

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def send(self, path: str, body: bytes) -> int:
        """Send events as they are; the status of the answer."""
        return (await self._http.post(path, content=body)).status_code

    async def create_customer(self, external_id: str, name: str) -> str:
        """Create a customer; our id."""
        body = {"external_id": external_id, "name": name}
        customer: str = (await self._call("POST", "/v1/customers", body))["id"]
        return customer

    async def archive_customer(self, customer_id: str) -> None:
        """Archive a customer."""
        await self._call("DELETE", f"/v1/customers/{customer_id}")

    async def feature(self, wish: Metered) -> str:
        """The meter's id of a feature: of the one that an earlier run made, or of a new one."""
        body = wish.request()
        query = {"event_name": wish.event_name, "status": "archived" if wish.retired else "all"}
        for found in (await self._call("GET", "/v1/features", params=query))["items"]:
            same = all(found["meter"][key] == body["meter"][key] for key in ("aggregation",))
            if same and (wish.retired or found["status"] == "published"):
                return str(found["meter"]["id"])
        made = await self._call("POST", "/v1/features", body)
        if wish.retired:
            await self._call("DELETE", f"/v1/features/{made['id']}")
        return str(made["meter"]["id"])

    async def usage(
        self, meter_id: str, customer: str, start: datetime, end: datetime
    ) -> Decimal | None:
        """The usage of a meter by one customer over `[start, end)`, exactly as answered."""
        body = {
            "meter_id": meter_id,
            "external_customer_id": customer,
            "start_time": start.isoformat(),
            "end_time": end.isoformat(),
        }
        value = (await self._call("POST", "/v1/events/usage/meter", body))["value"]
        return None if value is None else Decimal(value)

    async def _call(
        self, method: str, path: str, body: Any = None, params: dict[str, str] | None = None
    ) -> Any:
        """The answer's JSON, its numbers as Decimals. Raises DemoFailed."""
        content = None if body is None else json.dumps(body)
        answer = await self._http.request(method, path, content=content, params=params)
        if not answer.is_success:
            raise DemoFailed(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        if not answer.content:
            return None
        return json.loads(answer.content, parse_float=Decimal, parse_int=Decimal)


def bulk(texts: Sequence[bytes]) -> bytes:
    """The body of a bulk request."""
    return b'{"events": [' + b",".join(texts) + b"]}"
