"""/v1/features: what is metered and sold."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from catalog import features
from catalog.database import Writing
from catalog.fixed import feature_update
from catalog.tables import FeatureRow
from console.calls import body_as, body_of, change, json_answer, look, page_answer, query_as
from console.routing import Resource, changes, reads
from schemas.features import FeatureSearch, FeatureUpdate, NewFeature
from schemas.reading import read


async def create_feature(request: Request) -> Response:
    """POST /v1/features: make a feature with its meter. 201.

    Raises InvalidRequest (400), AlreadyExists (409) while another has its event name.
    """
    wish = await body_as(NewFeature, request)
    feature = await change(request, features.create, wish)
    return json_answer(feature.document(), 201)


async def list_features(request: Request) -> Response:
    """GET /v1/features: a page of them, published ones unless `status` says otherwise."""
    page = query_as(FeatureSearch, request)
    return page_answer(await look(request, features.search, page), page)


async def search_features(request: Request) -> Response:
    """POST /v1/features/search: the same, asked for in a body."""
    page = await body_as(FeatureSearch, request)
    return page_answer(await look(request, features.search, page), page)


async def get_feature(request: Request) -> Response:
    """GET /v1/features/:id: one feature, archived or not."""
    feature = await look(request, features.get, request.path_params["id"])
    return json_answer(feature.document())


async def put_feature(request: Request) -> Response:
    """PUT /v1/features/:id: change names, units, metadata, reset, status.

    Raises InvalidRequest (400) for what is fixed, AlreadyExists (409) when its name was taken.
    """
    body = await body_of(request)
    feature = await change(request, _update, request.path_params["id"], body)
    return json_answer(feature.document())


async def delete_feature(request: Request) -> Response:
    """DELETE /v1/features/:id: archive it. Its usage stays, new events don't count."""
    feature = await change(request, features.archive, request.path_params["id"])
    return json_answer(feature.document())


def _update(writing: Writing, account: str, feature_id: str, body: Any) -> FeatureRow:
    """Update a feature by what a body changes of it as it stands."""
    current = features.get(writing.session, account, feature_id).document()
    wish = read(FeatureUpdate, feature_update(body, current))
    return features.update(writing, account, feature_id, wish)


def routes() -> list[BaseRoute]:
    """The routes of features."""
    return [
        Resource("/v1/features", GET=reads(list_features), POST=changes(create_feature)),
        Resource("/v1/features/search", POST=reads(search_features)),
        Resource(
            "/v1/features/{id}",
            GET=reads(get_feature),
            PUT=changes(put_feature),
            DELETE=changes(delete_feature),
        ),
    ]
