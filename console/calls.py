"""What endpoints have in common: a body as a model, a transaction on a thread, an answer."""

import contextlib
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from catalog.database import Catalog, CatalogUnavailable, Writing
from catalog.follower import Follower
from catalog.listing import Found
from console.routing import caller
from schemas.errors import PayloadTooLarge, UnsupportedMediaType, shown
from schemas.reading import Model, read, read_json
from schemas.requests import Slice

P = ParamSpec("P")
T = TypeVar("T")


async def body_of(request: Request) -> Any:
    """The JSON of a request's body, not yet a model.

    Raises InvalidRequest, PayloadTooLarge, UnsupportedMediaType.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0]
    if not media_type.strip().lower().endswith(("/json", "+json")):
        raise UnsupportedMediaType(
            f"Content-Type {shown(media_type)} is not supported", cure="send application/json"
        )
    limit: int = request.state.settings.body_bytes_max
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise PayloadTooLarge(f"The body is larger than {limit} bytes", cure="send less")
    return read_json(bytes(body))


async def body_as(model: type[Model], request: Request) -> Model:
    """The request's body. Raises what `body_of` raises, and InvalidRequest with every fault."""
    return read(model, await body_of(request))


def query_as(model: type[Model], request: Request) -> Model:
    """The request's query string. Raises InvalidRequest with every fault."""
    query = request.query_params
    values = {name: query.getlist(name) for name in query}
    return read(model, {name: each[0] if len(each) == 1 else each for name, each in values.items()})


async def change(
    request: Request,
    operation: Callable[Concatenate[Writing, str, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Do `operation(writing, account, ...)` in one transaction; this process then knows it."""
    key = caller(request)
    catalog: Catalog = request.state.catalog
    follower: Follower = request.state.follower

    def run() -> T:
        with catalog.writing(actor=key.id) as writing:
            done = operation(writing, key.account, *args, **kwargs)
        with contextlib.suppress(CatalogUnavailable):
            follower.refresh()
        return done

    return await catalog.on_thread(run)


async def look(
    request: Request,
    operation: Callable[Concatenate[Session, str, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Do `operation(session, account, ...)`, which only reads."""
    account = caller(request).account
    catalog: Catalog = request.state.catalog

    def run() -> T:
        with catalog.reading() as session:
            return operation(session, account, *args, **kwargs)

    return await catalog.on_thread(run)


def json_answer(value: object, status: int = 200) -> Response:
    """A value as JSON; moments in UTC, decimals as texts."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def page_answer(found: Found[Any], page: Slice) -> Response:
    """A page of a list, and its place in it."""
    pagination = {"total": found.total, "limit": page.limit, "offset": page.offset}
    return json_answer({"items": found.items, "pagination": pagination})
