"""A request's body as a model, or every fault in it with its place and cure."""

from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from schemas.errors import Fault, InvalidRequest, pointer, shown

Model = TypeVar("Model", bound=BaseModel)
_json = msgspec.json.Decoder(float_hook=Decimal)
_SHOULD_BE = "Input should be "
"""How pydantic begins to say what type it wants; our own faults are whole already."""


def read_json(body: bytes) -> Any:
    """The value of a JSON text, numbers with a point exactly as Decimal. Raises InvalidRequest."""
    try:
        return _json.decode(body)
    except UnicodeDecodeError as error:
        detail = f"The body is not UTF-8: byte {error.start}"
    except RecursionError:
        detail = "The body is nested too deeply"
    except msgspec.MsgspecError as error:
        detail = f"The body is not valid JSON: {error}" if body else "The body is empty: send JSON"
    raise InvalidRequest.at("", "invalid_json", detail)


def read(model: type[Model], value: object) -> Model:
    """The model that a decoded value describes. Raises InvalidRequest with every fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise InvalidRequest.of([_fault(each) for each in found]) from None


def _fault(error: ErrorDetails) -> Fault:
    context = error.get("ctx", {})
    place = [part for part in error["loc"] if part != "[key]"]
    place += [context["field"]] if "field" in context else []
    name = ".".join(map(str, place)) or "The body"
    match error["type"]:
        case "missing":
            why = error["msg"] if "field" in context else "add it"
            return Fault(pointer(*place), "missing", f"{name} is required: {why}")
        case "extra_forbidden":
            detail = f"{shown(name)} is not a field of this request: remove it"
            return Fault(pointer(*place), "unknown_field", detail)
        case "enum" | "literal_error":
            detail = f"{name} {shown(error['input'])} is unknown: use {context['expected']}"
            return Fault(pointer(*place), "unknown_value", detail)
        case "string_too_short":
            return Fault(pointer(*place), "too_short", f"{name} is empty: fill it in")
        case "string_too_long":
            detail = f"{name} is too long: at most {context['max_length']} characters"
            return Fault(pointer(*place), "too_long", detail)
        case "too_short":
            detail = f"{name} is too short: it needs at least {context['min_length']}"
            return Fault(pointer(*place), "too_short", detail)
        case "too_long":
            detail = f"{name} is too long: at most {context['max_length']}"
            return Fault(pointer(*place), "too_long", detail)
        case "string_pattern_mismatch":
            detail = f"{name} {shown(error['input'])} does not match {context['pattern']}"
            return Fault(pointer(*place), "invalid_format", detail)
    if error["type"].endswith("_type") and error["msg"].startswith(_SHOULD_BE):
        wanted = error["msg"].removeprefix(_SHOULD_BE).replace("a valid dictionary", "an object")
        wanted = "an object" if error["type"].startswith("model") else wanted
        return Fault(pointer(*place), "wrong_type", f"{name} should be {wanted}")
    if "field" in context:
        return Fault(pointer(*place), error["type"], error["msg"])
    return Fault(pointer(*place), error["type"], f"{name} {error['msg']}")
