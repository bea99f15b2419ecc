"""From a request to an endpoint and back: who asks, what it may do, and how a refusal looks."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.catalog import ApiKey, Scope
from schemas.errors import (
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Rejection,
    answer,
    shown,
)

Endpoint = Callable[[Request], Awaitable[Response]]
ExceptionHandler = Callable[[Request, Exception], Awaitable[Response]]


class Method(NamedTuple):
    """One method of a path: what the key needs, what is done, and what the OpenAPI says of it.

    takes, asks  The models of the body and of the query string.
    gives        The type of the answer, anything that pydantic's TypeAdapter can describe.
    status       Of the answer when all went well.
    media        The answer's media type.
    """

    scope: Scope
    endpoint: Endpoint
    takes: type[BaseModel] | None = None
    asks: type[BaseModel] | None = None
    gives: Any = None
    status: int = 200
    media: str = "application/json"


class Resource(Route):
    """A path with all its methods, each behind an API key; `methods_of` is for the OpenAPI."""

    def __init__(self, path: str, **methods: Method) -> None:
        self.methods_of: Mapping[str, Method] = methods
        super().__init__(path, _dispatch(methods), methods=list(methods))


def reads(endpoint: Endpoint, **described: Any) -> Method:
    """A method for keys that may read; `described` as in Method."""
    return Method(Scope.READ, endpoint, **described)


def changes(endpoint: Endpoint, **described: Any) -> Method:
    """A method for keys that may change the catalog; `described` as in Method."""
    return Method(Scope.ADMIN, endpoint, **described)


def caller(request: Request) -> ApiKey:
    """The API key that the request came with."""
    key: ApiKey = request.state.caller
    return key


def peer(request: Request) -> str:
    """The address that the request came from."""
    return request.client.host if request.client else ""


def refused(request: Request, rejection: Rejection) -> Response:
    """The answer to a request that was not carried out."""
    status, body, headers = _parts(rejection, request.headers.get("accept", ""))
    return Response(body, status, headers)


def _dispatch(methods: Mapping[str, Method]) -> Endpoint:
    """The endpoint of a path: checks the key and the address, then does the method."""

    async def endpoint(request: Request) -> Response:
        method = methods["GET" if request.method == "HEAD" else request.method]
        try:
            key = request.headers.get("x-api-key")
            request.state.caller = await request.state.follower.authenticate(
                key, method.scope, peer=peer(request)
            )
            _check_address(request)
            return await method.endpoint(request)
        except Rejection as rejection:
            return refused(request, rejection)

    return endpoint


def _check_address(request: Request) -> None:
    """Raises InvalidRequest for a NUL in the path or the query: no database takes one."""
    values = [*request.path_params.items(), *request.query_params.multi_items()]
    for name, value in values:
        if "\0" in name or "\0" in value:
            detail = f"{shown(name)} holds a NUL character: remove it"
            raise InvalidRequest.at("", "invalid_character", detail)


def _parts(rejection: Rejection, accept: str) -> tuple[int, bytes, dict[str, str]]:
    it = answer(rejection, accept)
    return it.status, it.body, it.headers


async def _http_exception(request: Request, error: Exception) -> Response:
    """What the router itself refuses: an unknown path, or an unknown method of a path."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    if error.status_code == 405:
        headers = dict(error.headers or {})
        allowed = headers.get("Allow", "")
        text = f"Method {request.method} is not allowed here"
        return refused(
            request, MethodNotAllowed(text, cure=f"use one of {allowed}", headers=headers)
        )
    if error.status_code == 404:
        return refused(
            request, NotFound(f"Route {shown(where, 200)} not found", cure="check the path")
        )
    return refused(request, InvalidRequest(error.detail))


async def _fault_of_ours(request: Request, error: Exception) -> Response:
    return refused(request, InternalError("Internal server error"))


EXCEPTION_HANDLERS: dict[type[Exception] | int, ExceptionHandler] = {
    HTTPException: _http_exception,
    Exception: _fault_of_ours,
}
"""For the application that serves these routes."""
