"""The shortcut: producers' requests don't pass the routing, all others do."""

from typing import NoReturn

import pytest
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from ingest_gateway.app import routes
from ingest_gateway.shortcut import Shortcut


class Routed(Exception):
    """The request came to the application."""


class Unroutable(Starlette):
    """An application that nothing should come to."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> NoReturn:
        raise Routed


async def status(method: str, path: str) -> int:
    """What a request without a gateway behind it is answered."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    await Shortcut(Unroutable(routes=routes()))(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/bulk"])
async def test_a_producers_request_goes_straight_to_its_endpoint(path: str) -> None:
    assert await status("POST", path) == 500  # the endpoint missed its gateway


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/events"), ("POST", "/v1/events/"), ("POST", "/readyz")]
)
async def test_every_other_request_goes_to_the_application(method: str, path: str) -> None:
    with pytest.raises(Routed):
        await status(method, path)
