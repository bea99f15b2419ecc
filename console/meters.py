"""/v1/meters: the rules of features, which clients may make first and name by id."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import meters
from console.calls import body_as, change, json_answer, look, page_answer, query_as
from console.routing import Resource, changes, reads
from schemas.features import MeterSearch, NewMeter


async def create_meter(request: Request) -> Response:
    """POST /v1/meters: make a meter; it counts once a feature has it. 201."""
    wish = await body_as(NewMeter, request)
    meter = await change(request, meters.create, wish)
    return json_answer(meter.document(), 201)


async def list_meters(request: Request) -> Response:
    """GET /v1/meters: a page of them."""
    page = query_as(MeterSearch, request)
    return page_answer(await look(request, meters.search, page), page)


async def get_meter(request: Request) -> Response:
    """GET /v1/meters/:id: one meter."""
    meter = await look(request, meters.get, request.path_params["id"])
    return json_answer(meter.document())


def routes() -> list[BaseRoute]:
    """The routes of meters."""
    return [
        Resource("/v1/meters", GET=reads(list_meters), POST=changes(create_meter)),
        Resource("/v1/meters/{id}", GET=reads(get_meter)),
    ]
