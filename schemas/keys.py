"""Requests about accounts and their API keys."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, StringConstraints

from schemas.catalog import Scope
from schemas.requests import Moment, Name, Page, Request, whole

RatePerMinute = Annotated[int, BeforeValidator(whole(0, 10_000_000))] | None
"""Requests a minute: 0 for any number, null for what the gateway gives keys by default."""


class NewApiKey(Request):
    """POST /v1/secrets/api/keys. Without `scopes` it may do everything.

    strict  Check names and customers of all events that come with it before accepting them.
    """

    name: Name
    type: Literal["private_key"] = "private_key"
    scopes: list[Scope] = Field(default_factory=lambda: list(Scope), min_length=1)
    strict: StrictBool = False
    expires_at: Moment | None = None
    requests_per_minute: RatePerMinute = None
    bulk_requests_per_minute: RatePerMinute = None


class ApiKeyUpdate(Request):
    """PUT /v1/secrets/api/keys/:id: what can change; a field left out stays as it is."""

    name: Name | None = None
    strict: StrictBool | None = None
    requests_per_minute: RatePerMinute = None
    bulk_requests_per_minute: RatePerMinute = None


class ApiKeySearch(Page):
    """GET /v1/secrets/api/keys."""


class NewAccount(Request):
    """An account; its id is part of a topic's name, without the dot that Kafka confuses with _."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = None
    name: Name
