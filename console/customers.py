"""/v1/customers: who uses features, by our id or by the client's own."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import customers
from catalog.database import Writing
from catalog.fixed import customer_update
from catalog.tables import CustomerRow
from console.calls import body_as, body_of, change, json_answer, look, page_answer, query_as
from console.routing import Resource, changes, reads
from schemas.customers import CustomerSearch, CustomerUpdate, NewCustomer
from schemas.errors import InvalidRequest
from schemas.reading import read


async def create_customer(request: Request) -> Response:
    """POST /v1/customers: make a customer. 201.

    Raises InvalidRequest (400), AlreadyExists (409) when its external id is taken.
    """
    wish = await body_as(NewCustomer, request)
    customer = await change(request, customers.create, wish)
    return json_answer(customer.document(), 201)


async def list_customers(request: Request) -> Response:
    """GET /v1/customers: a page of them, published ones unless `status` says otherwise."""
    page = query_as(CustomerSearch, request)
    return page_answer(await look(request, customers.search, page), page)


async def search_customers(request: Request) -> Response:
    """POST /v1/customers/search: the same, asked for in a body."""
    page = await body_as(CustomerSearch, request)
    return page_answer(await look(request, customers.search, page), page)


async def get_customer(request: Request) -> Response:
    """GET /v1/customers/:id: one customer, archived or not."""
    customer = await look(request, customers.get, request.path_params["id"])
    return json_answer(customer.document())


async def get_external_customer(request: Request) -> Response:
    """GET /v1/customers/external/:external_id: one customer by the client's own id."""
    customer = await look(request, customers.get_external, request.path_params["external_id"])
    return json_answer(customer.document())


async def put_customer(request: Request) -> Response:
    """PUT /v1/customers/:id: change all but the external id; a status of published revives it."""
    body = await body_of(request)
    customer = await change(request, _update, request.path_params["id"], body)
    return json_answer(customer.document())


async def put_customer_by_query(request: Request) -> Response:
    """PUT /v1/customers?id= or ?external_customer_id=: the same, as the SDKs write it."""
    body = await body_of(request)
    named = request.query_params
    if "id" in named:
        customer = await change(request, _update, named["id"], body)
    elif "external_customer_id" in named:
        customer = await change(request, _update_external, named["external_customer_id"], body)
    else:
        detail = "Say which customer: ?id= or ?external_customer_id="
        raise InvalidRequest.at("", "missing_parameter", detail)
    return json_answer(customer.document())


async def delete_customer(request: Request) -> Response:
    """DELETE /v1/customers/:id: archive it. 204; its external id stays taken."""
    await change(request, customers.archive, request.path_params["id"])
    return Response(status_code=204)


def _update(writing: Writing, account: str, customer_id: str, body: Any) -> CustomerRow:
    """Update a customer by what a body changes of it as it stands."""
    current = customers.get(writing.session, account, customer_id).document()
    wish = read(CustomerUpdate, customer_update(body, current))
    return customers.update(writing, account, customer_id, wish)


def _update_external(writing: Writing, account: str, external_id: str, body: Any) -> CustomerRow:
    customer = customers.get_external(writing.session, account, external_id)
    return _update(writing, account, customer.id, body)


def routes() -> list[BaseRoute]:
    """The routes of customers."""
    return [
        Resource(
            "/v1/customers",
            GET=reads(list_customers),
            POST=changes(create_customer),
            PUT=changes(put_customer_by_query),
        ),
        Resource("/v1/customers/search", POST=reads(search_customers)),
        Resource("/v1/customers/external/{external_id:path}", GET=reads(get_external_customer)),
        Resource(
            "/v1/customers/{id}",
            GET=reads(get_customer),
            PUT=changes(put_customer),
            DELETE=changes(delete_customer),
        ),
    ]
