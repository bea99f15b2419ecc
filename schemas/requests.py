"""What requests are made of: bodies that refuse what they don't know, their fields, and pages."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeVar
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from schemas.limits import NAME_LENGTH_MAX

METADATA_KEYS_MAX = 50
METADATA_VALUE_LENGTH_MAX = 1024
DESCRIPTION_LENGTH_MAX = 4096
PAGE_SIZE_MAX = 1000
PAGE_SIZE = 50
BULK_MAX = 100
WHOLE_MAX = 1 << 53
"""The greatest whole number that every JSON reader keeps."""

Each = TypeVar("Each", bound=BaseModel)


class Request(BaseModel):
    """A request's body: unknown fields are refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def fault(field: str, code: str, detail: str) -> PydanticCustomError:
    """A fault of one field among several that are checked together."""
    return PydanticCustomError(code, "{detail}", {"field": field, "detail": detail})


def without_nul(text: str) -> str:
    """The text, if every database takes it. Raises PydanticCustomError."""
    if "\0" in text:
        raise PydanticCustomError("invalid_character", "holds a NUL character: remove it")
    return text


def absent_if_empty(value: object) -> object:
    """Clients with typed structs send "" for what they leave out."""
    return None if value == "" else value


def absent_list(value: object) -> object:
    """Clients send null for a list that they leave out."""
    return [] if value is None else value


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _known_zone(name: str) -> str:
    if name not in _zones():
        raise PydanticCustomError(
            "unknown_timezone", "is no IANA time zone: write one like Europe/Berlin, or UTC"
        )
    return name


def _looks_like_email(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not local or not domain or any(character.isspace() for character in text):
        raise PydanticCustomError("invalid_email", "is no e-mail address: write name@example.com")
    return text


def _moment(value: object) -> datetime:
    """An aware time from ISO 8601 text; no offset means UTC."""
    if isinstance(value, datetime):
        moment = value
    else:
        if not isinstance(value, str) or len(value) < 13:
            raise PydanticCustomError(
                "invalid_time", "is no date and time: write ISO 8601, like 2030-01-31T00:00:00Z"
            )
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise PydanticCustomError(
                "invalid_time", "is no date and time: write ISO 8601, like 2030-01-31T00:00:00Z"
            ) from None
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise PydanticCustomError("out_of_range", "is out of the calendar") from None


def texts(value: object) -> object:
    """A list from a query string, where one text stands for itself."""
    return value.split(",") if isinstance(value, str) else value


def whole(low: int, high: int) -> Callable[[object], int]:
    """A reader of whole numbers, as JSON or as the text of a query string."""

    def read(value: object) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise PydanticCustomError(
                "out_of_range",
                "has to be a whole number from {low} to {high}",
                {"low": low, "high": high},
            )
        return value

    return read


def _nothing(value: object) -> None:
    """What says nothing is taken for absent: clients with typed structs send it."""
    if value not in (None, "", "0", 0, [], {}):
        raise PydanticCustomError("not_supported", "is not supported: leave it out")


Nothing = Annotated[None, BeforeValidator(_nothing)]
"""A field that would change what is done, and isn't supported: refused rather than ignored."""

Whole = Annotated[int, BeforeValidator(whole(0, WHOLE_MAX))]
Count = Annotated[int, BeforeValidator(whole(1, WHOLE_MAX))]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=NAME_LENGTH_MAX),
    AfterValidator(without_nul),
]
"""An id or a name: not empty, at most 255 characters, no NUL."""

OptionalName = Annotated[Name | None, BeforeValidator(absent_if_empty)]
MetadataValue = Annotated[
    str, StringConstraints(max_length=METADATA_VALUE_LENGTH_MAX), AfterValidator(without_nul)
]
Metadata = Annotated[dict[Name, MetadataValue], Field(max_length=METADATA_KEYS_MAX)]
Description = Annotated[
    str, StringConstraints(max_length=DESCRIPTION_LENGTH_MAX), AfterValidator(without_nul)
]
Timezone = Annotated[Name, AfterValidator(_known_zone)]
Email = Annotated[Name, AfterValidator(_looks_like_email)]
OptionalEmail = Annotated[Email | None, BeforeValidator(absent_if_empty)]
OptionalTimezone = Annotated[Timezone | None, BeforeValidator(absent_if_empty)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Ids = Annotated[list[Name], Field(max_length=PAGE_SIZE_MAX), BeforeValidator(texts)]


class Sort(Request):
    """One column of a list's order."""

    field: Literal["created_at", "updated_at", "name"]
    direction: Literal["asc", "desc"] = "desc"


class Slice(Request):
    """How many of a list, after how many others."""

    limit: Annotated[int, BeforeValidator(whole(1, PAGE_SIZE_MAX))] = PAGE_SIZE
    offset: Annotated[int, BeforeValidator(whole(0, WHOLE_MAX))] = 0


class Page(Slice):
    """Which part of a list: newest first unless `order` or `sort` say otherwise.

    expand  Clients send it; what it may name is always there.
    """

    order: Literal["asc", "desc"] = "desc"
    sort: Annotated[list[Sort], Field(max_length=3)] = []
    status: Literal["published", "archived", "all"] = "published"
    start_time: Moment | None = None
    end_time: Moment | None = None
    expand: Any = None


class Many(Request, Generic[Each]):
    """Several to be made by one request: all of them, or none."""

    items: Annotated[list[Each], Field(min_length=1, max_length=BULK_MAX)]
