"""Requests about accounts and their API keys."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, StringConstraints

from schemas.catalog import Scope
from schemas.requests import Moment, Name, Page, Request

RatePerMinute = Annotated[StrictInt, Field(ge=1, le=10_000_000)]


class NewApiKey(Request):
    """POST /v1/secrets/api/keys. Without `scopes` it may do everything."""

    name: Name
    type: Literal["private_key"] = "private_key"
    scopes: list[Scope] = Field(default_factory=lambda: list(Scope), min_length=1)
    strict: StrictBool = False
    expires_at: Moment | None = None
    requests_per_minute: RatePerMinute | None = None
    bulk_requests_per_minute: RatePerMinute | None = None


class ApiKeySearch(Page):
    """GET /v1/secrets/api/keys."""


class NewAccount(Request):
    """An account; its id is part of a topic's name, without the dot that Kafka confuses with _."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = None
    name: Name
