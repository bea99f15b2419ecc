"""The OpenAPI 3.1 description of a service, made from what its routes declare.

A service lists its operations; `document` puts together those of all that answer on one port.
Texts come from the endpoints' docstrings: "METHOD /path: what it does. STATUS.", and below it
"Raises X (400), Y (409) …", or those numbers alone, name the refusals.
"""

import re
from collections.abc import Iterable, Sequence
from inspect import cleandoc
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema
from typing_extensions import TypedDict

from schemas.catalog import Scope

VERSION = "3.1.0"
_REF = "#/components/schemas/{model}"
_HEADING = re.compile(r"^[A-Z]+ /.+?:\s+")
_REFUSAL = re.compile(r"\b([45]\d\d)\b")
_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_MEDIA_JSON = "application/json"


class Operation(NamedTuple):
    """One method of one path.

    name, text   What it is called, unique, and the docstring that says what it does.
    scope        What the API key needs; None where no key is asked for.
    takes, asks  The models of the body and of the query string.
    gives        The type of the answer; None where there is no body, or one of `media` alone.
    status       Of the answer when all went well.
    media        The answer's media type.
    """

    method: str
    path: str
    name: str
    text: str
    scope: Scope | None
    takes: Any = None
    asks: type[BaseModel] | None = None
    gives: Any = None
    status: int = 200
    media: str = _MEDIA_JSON


class FaultObject(TypedDict):
    """One thing wrong with a request: where (JSON pointer), its stable code, and the cure."""

    pointer: str
    code: str
    detail: str


class ErrorObject(TypedDict):
    """Why a request was not carried out, in every refusal."""

    error: str
    code: str
    message: str
    http_status_code: int
    details: dict[str, Any]
    type: str
    title: str
    status: int
    detail: str
    errors: list[FaultObject]


class _Texts(GenerateJsonSchema):
    """Decimals are texts on the wire, and are taken as numbers too."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        text: JsonSchemaValue = {"type": "string", "format": "decimal"}
        if self.mode == "serialization":
            return text
        return {"anyOf": [text, {"type": "number"}]}


def document(operations: Sequence[Operation], *, title: str, version: str) -> dict[str, Any]:
    """The description of a service that has these operations."""
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = []
    for number, operation in enumerate(operations):
        for kind in ("takes", "asks"):
            if getattr(operation, kind) is not None:
                adapter = TypeAdapter(getattr(operation, kind))
                inputs.append((f"{kind}{number}", "validation", adapter))
        if operation.gives is not None:
            inputs.append((f"gives{number}", "serialization", TypeAdapter(operation.gives)))
    inputs.append(("error", "serialization", TypeAdapter(ErrorObject)))
    found, definitions = TypeAdapter.json_schemas(
        inputs, ref_template=_REF, schema_generator=_Texts
    )
    schemas = {key: schema for (key, _), schema in found.items()}
    models: dict[str, Any] = definitions.get("$defs", {})
    paths: dict[str, dict[str, Any]] = {}
    for number, operation in enumerate(operations):
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(
            operation,
            body=schemas.get(f"takes{number}"),
            query=_resolved(schemas.get(f"asks{number}"), models),
            answer=schemas.get(f"gives{number}"),
            error=schemas["error"],
        )
    security = {"type": "apiKey", "in": "header", "name": "x-api-key"}
    return {
        "openapi": VERSION,
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": models, "securitySchemes": {"apiKey": security}},
    }


def _operation(
    operation: Operation,
    *,
    body: JsonSchemaValue | None,
    query: JsonSchemaValue | None,
    answer: JsonSchemaValue | None,
    error: JsonSchemaValue,
) -> dict[str, Any]:
    summary, description = _texts(operation.text)
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": summary,
        "tags": [_tag(operation.path)],
    }
    if description:
        described["description"] = description
    if operation.scope is not None:
        described["security"] = [{"apiKey": []}]
        described["x-scope"] = operation.scope.value
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]
    parameters += _query_parameters(query)
    if parameters:
        described["parameters"] = parameters
    if body is not None:
        described["requestBody"] = {"required": True, "content": {_MEDIA_JSON: {"schema": body}}}
    done: dict[str, Any] = {"description": summary}
    if answer is not None:
        done["content"] = {operation.media: {"schema": answer}}
    elif operation.media != _MEDIA_JSON:
        done["content"] = {operation.media: {"schema": {"type": "string"}}}
    refused = {"content": {_MEDIA_JSON: {"schema": error}}}
    described["responses"] = {str(operation.status): done} | {
        str(status): {"description": REFUSALS[status], **refused, **_refusal_headers(status)}
        for status in sorted(_statuses(operation))
    }
    return described


def _refusal_headers(status: int) -> dict[str, Any]:
    """The headers of a refusal that say when to come back."""
    texts = REFUSAL_HEADERS.get(status, {})
    headers = {
        name: {
            "description": text,
            "required": name == "Retry-After",
            "schema": {"type": "string" if name.startswith("RateLimit") else "integer"},
        }
        for name, text in texts.items()
    }
    return {"headers": headers} if headers else {}


REFUSALS = {
    400: "Invalid request: `errors` names each field and its cure",
    401: "No valid API key",
    403: "The key lacks the scope that this needs",
    404: "There is no such thing in this account",
    409: "It exists already, or something else is in its way",
    413: "The body is too large",
    415: "The body is not JSON, or encoded in a way that isn't supported",
    429: "Too many requests: `Retry-After` says when to come back",
    503: "Something this needs is away: the same request will work later",
}


_WAIT = {"Retry-After": "Seconds to wait; then the same request may be sent again"}
REFUSAL_HEADERS = {
    429: _WAIT
    | {
        "RateLimit-Policy": 'The limit by its name, requests and seconds: `"single";q=1000;w=60`',
        "RateLimit": 'What is left of it, and the seconds until there is more: `"single";r=0;t=7`',
        "X-RateLimit-Limit": "Requests a minute",
        "X-RateLimit-Remaining": "What is left of them",
        "X-RateLimit-Reset": "When there is more, in seconds since 1970",
    },
    503: _WAIT,
}


def _statuses(operation: Operation) -> set[int]:
    """Which refusals an operation has: those its docstring names, and those of its kind."""
    named = _REFUSAL.findall(operation.text)
    statuses = {int(status) for status in named}
    if operation.scope is not None:
        statuses |= {401, 403, 429, 503}
    if operation.takes is not None:
        statuses |= {400, 413, 415}
    if operation.asks is not None or _PARAMETER.search(operation.path):
        statuses.add(400)
    return statuses & REFUSALS.keys()


def _query_parameters(query: JsonSchemaValue | None) -> Iterable[dict[str, Any]]:
    if query is None:
        return
    required = query.get("required", ())
    for name, schema in query.get("properties", {}).items():
        parameter = {"name": name, "in": "query", "required": name in required, "schema": schema}
        yield parameter | (
            {"description": schema["description"]} if "description" in schema else {}
        )


def _resolved(schema: JsonSchemaValue | None, models: dict[str, Any]) -> JsonSchemaValue | None:
    """The model that a reference stands for."""
    if schema is None or "$ref" not in schema:
        return schema
    resolved: JsonSchemaValue = models[schema["$ref"].rpartition("/")[2]]
    return resolved


def _texts(docstring: str) -> tuple[str, str]:
    """What an endpoint does, in a line, and what else its docstring says."""
    first, _, rest = cleandoc(docstring).partition("\n\n")
    summary = _HEADING.sub("", " ".join(first.split()))
    return summary[:1].upper() + summary[1:], rest.strip()


def _tag(path: str) -> str:
    """What a path is about: its first word after the version."""
    words = [word for word in path.split("/") if word and word != "v1" and "{" not in word]
    return words[0] if words else "service"
