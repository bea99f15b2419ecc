"""The routes that every kind of entity has: make, list, search, get, change, archive, history."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import changes as past
from catalog import listing
from catalog.database import Writing
from catalog.tables import EntityTable
from console.calls import body_as, body_of, change, json_answer, look, page_answer, query_as
from console.routing import Endpoint, Method, Resource, changes, reads
from schemas.documents import Change, Listed, Made
from schemas.reading import read
from schemas.requests import Many, Page, Slice

Row = TypeVar("Row", bound=EntityTable)
Document = dict[str, Any]


def documents(session: Session, rows: Sequence[EntityTable]) -> list[Document]:
    """Rows as they are written where nothing else belongs to them."""
    return [row.document() for row in rows]


def _changes(kind: str, session: Session, account: str, entity_id: str) -> list[Document]:
    return past.everything(session, account, kind, entity_id)


@dataclass(frozen=True, kw_only=True)
class Entity(Generic[Row]):
    """One kind of entity: what its catalog module does, what people write, what they get.

    path      Of the list, `/v1/features`; `one` is the entity's name in the OpenAPI.
    gives     The type of an entity's answer, which `show` makes of rows, many at once.
    create    With `new`, the model of a body; `bulk` where several may be made by one request.
    update    With `changed`, the model of what can change; read from what `changeable` leaves of a
              body, given the entity as it stands.
    archive   What DELETE does. The answer is the entity, or nothing where it is `silent`; `ends`
              is the model of a body that DELETE may have.
    looks     The scope that looking needs: `reads` or `changes`.
    history   Every change of one, by its id; those kept under its kind unless it says else.
    hidden    What history leaves out.
    """

    path: str
    one: str
    row: type[Row]
    gives: Any
    page: type[Page]
    search: Callable[[Session, str, Any], listing.Found[Row]]
    new: type[BaseModel] | None = None
    create: Callable[[Writing, str, Any], Row] | None = None
    bulk: bool = False
    changed: type[BaseModel] | None = None
    changeable: Callable[[object, Mapping[str, Any]], object] = lambda body, current: body
    update: Callable[[Writing, str, str, Any], Row] | None = None
    archive: Callable[[Writing, str, str], Row] | None = None
    silent: bool = False
    ends: type[BaseModel] | None = None
    show: Callable[[Session, Sequence[Row]], list[Document]] = documents
    looks: Callable[..., Method] = reads
    history: Callable[[Session, str, str], list[Document]] | None = None
    hidden: frozenset[str] = frozenset()

    def routes(self, **more: Method) -> list[BaseRoute]:
        """Its resources; `more` are methods of the list's path that only this entity has."""
        one, many = self.one, self.path.removeprefix("/v1/").replace("/", "_")
        noun, nouns = one.replace("_", " "), self.path.rpartition("/")[2]
        gives, page = self.gives, Listed[self.gives]  # type: ignore[name-defined]
        looks, named = self.looks, self._named
        listed = named(self._list, f"list_{many}", "GET", f"a page of {nouns}, newest first")
        searched = named(
            self._search,
            f"search_{many}",
            "POST /search",
            f"a page of {nouns}, asked for in a body",
        )
        got = named(self._get, f"get_{one}", "GET /:id", f"one {noun}, archived or not. 404")
        told = named(
            self._history,
            f"list_{one}_history",
            "GET /:id/history",
            f"each change of one {noun}. 404",
        )
        of_list = {"GET": looks(listed, asks=self.page, gives=page), **more}
        of_one = {"GET": looks(got, gives=gives)}
        others = {"/search": {"POST": looks(searched, takes=self.page, gives=page)}}
        if self.create is not None:
            made = named(
                self._create, f"create_{one}", "POST", f"make one {noun}. 201; 400, 404, 409"
            )
            of_list["POST"] = changes(made, takes=self.new, gives=gives, status=201)
        if self.bulk:
            made = named(
                self._create_all,
                f"create_{many}",
                "POST /bulk",
                f"make several {nouns}, all or none. 201",
            )
            takes, all_made = Many[self.new], Made[gives]  # type: ignore[name-defined,valid-type]
            others["/bulk"] = {"POST": changes(made, takes=takes, gives=all_made, status=201)}
        if hasattr(self.row, "lookup_key"):
            found = named(
                self._look_up,
                f"look_up_{one}",
                "GET /lookup/:lookup_key",
                f"one {noun} by its key. 404",
            )
            others["/lookup/{lookup_key}"] = {"GET": looks(found, gives=gives)}
        if self.update is not None:
            put = named(
                self._put,
                f"update_{one}",
                "PUT /:id",
                f"change one {noun}. 400, 404, 409",
            )
            of_one["PUT"] = changes(put, takes=self.changed, gives=gives)
        if self.archive is not None:
            gone = named(self._delete, f"delete_{one}", "DELETE /:id", f"archive one {noun}. 404")
            answer = {"status": 204} if self.silent else {"gives": gives}
            of_one["DELETE"] = changes(gone, takes=self.ends, **answer)
        others["/{id}/history"] = {"GET": looks(told, asks=Slice, gives=Listed[Change])}
        return [
            Resource(self.path, **of_list),
            *(Resource(self.path + place, **methods) for place, methods in others.items()),
            Resource(self.path + "/{id}", **of_one),
        ]

    def _named(self, endpoint: Endpoint, name: str, where: str, text: str) -> Endpoint:
        """The endpoint with a name and a text of its own, for the OpenAPI."""

        async def named(request: Request) -> Response:
            return await endpoint(request)

        method, _, place = where.partition(" ")
        named.__name__ = name
        named.__doc__ = f"{method} {self.path}{place}: {text}."
        return named

    def put(self, writing: Writing, account: str, entity_id: str, body: object) -> Document:
        """Change an entity by what a body changes of it as it stands. Raises what `update` does."""
        assert self.update is not None and self.changed is not None
        row = listing.get(writing.session, self.row, account, entity_id)
        absent = dict.fromkeys(self.new.model_fields if self.new else ())
        current = absent | self.shown(writing.session, row)
        wish = read(self.changed, self.changeable(body, current))
        return self.shown(writing.session, self.update(writing, account, entity_id, wish))

    def shown(self, session: Session, row: Row) -> Document:
        """One entity as the answer."""
        return self.show(session, [row])[0]

    def _without_hidden(self, change: Document) -> Document:
        return change | {
            side: {name: value for name, value in change[side].items() if name not in self.hidden}
            for side in ("before", "after")
            if change[side] is not None
        }

    async def _create(self, request: Request) -> Response:
        assert self.create is not None and self.new is not None
        wish, create = await body_as(self.new, request), self.create

        def make(writing: Writing, account: str) -> Document:
            return self.shown(writing.session, create(writing, account, wish))

        return json_answer(await change(request, make), 201)

    async def _create_all(self, request: Request) -> Response:
        assert self.create is not None
        takes: Any = Many[self.new]  # type: ignore[name-defined]
        wish, create = await body_as(takes, request), self.create

        def make(writing: Writing, account: str) -> list[Document]:
            rows = [create(writing, account, each) for each in wish.items]
            return self.show(writing.session, rows)

        return json_answer({"items": await change(request, make)}, 201)

    async def _list(self, request: Request) -> Response:
        return await self._page(request, query_as(self.page, request))

    async def _search(self, request: Request) -> Response:
        return await self._page(request, await body_as(self.page, request))

    async def _page(self, request: Request, page: Page) -> Response:
        def find(session: Session, account: str) -> listing.Found[Document]:
            found = self.search(session, account, page)
            return listing.Found(self.show(session, found.items), found.total)

        return page_answer(await look(request, find), page)

    async def _get(self, request: Request) -> Response:
        def get(session: Session, account: str) -> Document:
            row = listing.get(session, self.row, account, request.path_params["id"])
            return self.shown(session, row)

        return json_answer(await look(request, get))

    async def _look_up(self, request: Request) -> Response:
        def get(session: Session, account: str) -> Document:
            key = request.path_params["lookup_key"]
            return self.shown(session, listing.look_up(session, self.row, account, key))

        return json_answer(await look(request, get))

    async def _put(self, request: Request) -> Response:
        body = await body_of(request)
        return json_answer(await change(request, self.put, request.path_params["id"], body))

    async def _delete(self, request: Request) -> Response:
        assert self.archive is not None
        archive = self.archive
        if self.ends is not None and request.headers.get("content-length", "0") != "0":
            await body_as(self.ends, request)

        def end(writing: Writing, account: str) -> Document:
            return self.shown(writing.session, archive(writing, account, request.path_params["id"]))

        document = await change(request, end)
        return Response(status_code=204) if self.silent else json_answer(document)

    async def _history(self, request: Request) -> Response:
        page = query_as(Slice, request)

        def tell(session: Session, account: str) -> listing.Found[Document]:
            row = listing.get(session, self.row, account, request.path_params["id"])
            history = self.history or partial(_changes, row.kind)
            changes = history(session, account, row.id)
            part = changes[page.offset : page.offset + page.limit]
            return listing.Found([self._without_hidden(each) for each in part], len(changes))

        return page_answer(await look(request, tell), page)
