"""Why the gateway refuses: on top of `schemas.errors`, what only happens on its way to the log.

Rejection (schemas.errors)
├── InvalidRequest
│   └── NotInCatalog       400  the catalog doesn't know it: look again, it may be new
└── ServiceUnavailable
    ├── LogUnavailable     503  no ack: the same request, with the same ids, may be sent again
    └── Overloaded         503  too much on the way at once
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Rejection,
    ServiceUnavailable,
    answer,
    shown,
)


class NotInCatalog(InvalidRequest):
    """An event names something that the catalog, as far as it is known here, doesn't hold."""


class LogUnavailable(ServiceUnavailable):
    """The broker is away or didn't acknowledge in time: the events may or may not be in the log."""

    def __init__(self, why: str) -> None:
        super().__init__(
            "Events were not accepted",
            cure=f"the event log is unavailable ({why}): send them again with the same event_id",
        )


class Overloaded(ServiceUnavailable):
    """More bytes are on their way to the log than may be at once, of all or of this account."""

    def __init__(self) -> None:
        super().__init__(
            "Events were not accepted",
            cure="too many bytes are on their way: send them again in a moment",
        )


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """What the router refuses, in the one shape of errors."""
    assert isinstance(error, HTTPException)
    rejection: Rejection = NotFound(f"No route {shown(request.url.path)}")
    if error.status_code == 405:
        rejection = MethodNotAllowed(
            f"Method {request.method} is not allowed here", headers=error.headers
        )
    refusal = answer(rejection, request.headers.get("accept", ""))
    return Response(refusal.body, refusal.status, refusal.headers)


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    HTTPException: answer_http_exception
}
