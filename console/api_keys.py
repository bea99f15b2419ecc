"""/v1/secrets/api/keys: who may send, read and change. A key is shown once, when it is made."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import keys
from catalog.tables import ApiKeyRow
from console.calls import body_as, change, json_answer, look, page_answer, query_as
from console.routing import Resource, changes
from schemas.keys import ApiKeySearch, NewApiKey


async def create_api_key(request: Request) -> Response:
    """POST /v1/secrets/api/keys: make a key; shown in this answer only. 201."""
    wish = await body_as(NewApiKey, request)
    row, key = await change(request, keys.create, wish)
    return json_answer({"secret": _shown(row), "api_key": key}, 201)


async def list_api_keys(request: Request) -> Response:
    """GET /v1/secrets/api/keys: a page of them, without the keys."""
    page = query_as(ApiKeySearch, request)
    return page_answer(await look(request, keys.search, page), page, _shown)


async def get_api_key(request: Request) -> Response:
    """GET /v1/secrets/api/keys/:id: one of them, without the key."""
    return json_answer(_shown(await look(request, keys.get, request.path_params["id"])))


async def delete_api_key(request: Request) -> Response:
    """DELETE /v1/secrets/api/keys/:id: revoke it for good. 204; everywhere within seconds."""
    await change(request, keys.revoke, request.path_params["id"])
    return Response(status_code=204)


def _shown(row: ApiKeyRow) -> dict[str, Any]:
    """What people see of a key: neither it nor its hash, and no empty dates."""
    document = row.document()
    return {name: value for name, value in document.items() if name != "hash" and value is not None}


def routes() -> list[BaseRoute]:
    """The routes of API keys; even looking at them is an administrator's."""
    return [
        Resource("/v1/secrets/api/keys", GET=changes(list_api_keys), POST=changes(create_api_key)),
        Resource(
            "/v1/secrets/api/keys/{id}", GET=changes(get_api_key), DELETE=changes(delete_api_key)
        ),
    ]
