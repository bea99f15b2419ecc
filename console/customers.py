"""/v1/customers: who uses features, by our id or by the client's own."""

from functools import partial
from typing import Any

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import customers
from catalog.database import Writing
from catalog.fixed import changeable
from catalog.tables import CustomerRow
from console.calls import body_of, change, json_answer, look, query_as
from console.entities import Document, Entity
from console.routing import Resource, changes, reads
from schemas.customers import CustomerSearch, CustomerUpdate, NamedCustomer, NewCustomer
from schemas.documents import CustomerDocument
from schemas.errors import InvalidRequest

CUSTOMERS = Entity(
    path="/v1/customers",
    one="customer",
    row=CustomerRow,
    gives=CustomerDocument,
    page=CustomerSearch,
    search=customers.search,
    new=NewCustomer,
    create=customers.create,
    changed=CustomerUpdate,
    changeable=partial(changeable, CustomerUpdate, "create a new customer"),
    update=customers.update,
    archive=customers.archive,
    silent=True,
)


async def get_external_customer(request: Request) -> Response:
    """GET /v1/customers/external/:external_id: one customer by the client's own id. 404."""

    def get(session: Session, account: str) -> Document:
        external_id = request.path_params["external_id"]
        return customers.get_external(session, account, external_id).document()

    return json_answer(await look(request, get))


async def put_customer_by_query(request: Request) -> Response:
    """PUT /v1/customers?id= or ?external_customer_id=: change one, as the SDKs write it.

    Raises InvalidRequest (400), NotFound (404).
    """
    named, body = query_as(NamedCustomer, request), await body_of(request)
    if named.id is None and named.external_customer_id is None:
        detail = "Say which customer: ?id= or ?external_customer_id="
        raise InvalidRequest.at("", "missing_parameter", detail)

    def put(writing: Writing, account: str) -> Any:
        customer = customers.get_named(
            writing.session, account, named.id, named.external_customer_id
        )
        return CUSTOMERS.put(writing, account, customer.id, body)

    return json_answer(await change(request, put))


def routes() -> list[BaseRoute]:
    """The routes of customers. Archiving one keeps its external id taken."""
    put = changes(
        put_customer_by_query, asks=NamedCustomer, takes=CustomerUpdate, gives=CustomerDocument
    )
    external = reads(get_external_customer, gives=CustomerDocument)
    return [
        Resource("/v1/customers/external/{external_id:path}", GET=external),
        *CUSTOMERS.routes(PUT=put),
    ]
