"""/v1/secrets/api/keys: who may send, read and change. A key is shown once, when it is made."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import keys
from catalog.database import Writing
from catalog.fixed import changeable
from catalog.tables import ApiKeyRow
from console.calls import body_as, change, json_answer
from console.entities import Document, Entity
from console.routing import changes
from schemas.documents import ApiKeyDocument, NewApiKeyDocument
from schemas.keys import ApiKeySearch, ApiKeyUpdate, NewApiKey

HIDDEN = frozenset({"hash"})


def _show(session: Session, rows: Sequence[ApiKeyRow]) -> list[Document]:
    """What people see of keys: neither them nor their hashes, and no empty dates."""
    shown = [row.document().items() for row in rows]
    return [{k: v for k, v in each if k not in HIDDEN and v is not None} for each in shown]


API_KEYS = Entity(
    path="/v1/secrets/api/keys",
    one="api_key",
    row=ApiKeyRow,
    gives=ApiKeyDocument,
    page=ApiKeySearch,
    search=keys.search,
    new=NewApiKey,
    changed=ApiKeyUpdate,
    changeable=partial(changeable, ApiKeyUpdate, "make a new key"),
    update=keys.update,
    archive=keys.revoke,
    silent=True,
    show=_show,
    looks=changes,
    hidden=HIDDEN,
)


async def create_api_key(request: Request) -> Response:
    """POST /v1/secrets/api/keys: make a key; shown in this answer only. 201.

    Raises InvalidRequest (400).
    """
    wish = await body_as(NewApiKey, request)

    def make(writing: Writing, account: str) -> Document:
        row, key = keys.create(writing, account, wish)
        return {"secret": API_KEYS.shown(writing.session, row), "api_key": key}

    return json_answer(await change(request, make), 201)


def routes() -> list[BaseRoute]:
    """The routes of API keys: even looking is an administrator's. DELETE revokes for good."""
    method = changes(create_api_key, takes=NewApiKey, gives=NewApiKeyDocument, status=201)
    return API_KEYS.routes(POST=method)
