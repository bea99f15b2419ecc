"""/openapi.json and /docs: what the service can do, for programs and for people."""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from console.routing import Resource
from schemas.openapi import Operation, document

TITLE = "Tallylog"


def operations_of(routes: Iterable[BaseRoute]) -> list[Operation]:
    """What the console's routes declare."""
    return [
        Operation(
            name,
            route.path,
            method.endpoint.__name__,
            method.endpoint.__doc__ or "",
            method.scope,
            *method[2:],
        )
        for route in routes
        if isinstance(route, Resource)
        for name, method in route.methods_of.items()
    ]


def routes(operations: Sequence[Operation]) -> list[BaseRoute]:
    """The description of these operations as JSON and as a page, open to all."""
    described = tuple(operations)

    async def openapi(request: Request) -> Response:
        return Response(_made(described).text, media_type="application/json")

    async def docs(request: Request) -> Response:
        return HTMLResponse(_made(described).page)

    return [
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/docs", docs, methods=["GET"]),
    ]


class _Made(NamedTuple):
    """A description, ready to send."""

    text: bytes
    page: str


@cache
def _made(operations: tuple[Operation, ...]) -> _Made:
    """Made when it is first asked for: it takes a quarter of a second."""
    described = document(operations, title=TITLE, version=version("tallylog"))
    return _Made(msgspec.json.encode(described), _page(described))


def _page(described: dict[str, Any]) -> str:
    pages = Environment(
        loader=PackageLoader("console", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["shape"] = lambda schema: _shape(schema, described["components"]["schemas"])
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return pages.get_template("api.html").render(info=described["info"], groups=groups)


def _shape(schema: dict[str, Any], models: dict[str, Any], depth: int = 0) -> str:
    """A JSON schema as people write examples of it: names and kinds, optional ones with "?"."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return name if depth > DEPTH_MAX else _shape(models[name], models, depth)
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            kinds = dict.fromkeys(_shape(each, models, depth) for each in schema[word])
            return " | ".join(kinds)
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    if "const" in schema:
        return f'"{schema["const"]}"'
    match schema.get("type"):
        case "object" if "properties" in schema:
            required = schema.get("required", ())
            inner = "  " * (depth + 1)
            lines = [
                f"{inner}{name}{'' if name in required else '?'}: "
                + _shape(each, models, depth + 1)
                for name, each in schema["properties"].items()
            ]
            return "{\n" + "\n".join(lines) + "\n" + "  " * depth + "}"
        case "object":
            values = schema.get("additionalProperties")
            kind = _shape(values, models, depth) if isinstance(values, dict) else "any"
            return f"{{string: {kind}}}"
        case "array":
            return f"[{_shape(schema.get('items', {}), models, depth)}, …]"
        case "string":
            return {"date-time": "time", "decimal": "decimal"}.get(
                schema.get("format", ""), "string"
            )
        case None:
            return "any"
        case kind:
            return str(kind)


DEPTH_MAX = 4
