"""The catalog's words, and what the hot path reads of it.

The msgspec structs are what gateway, packer and counter match events against.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec


class Aggregation(StrEnum):
    """How the events of a feature become one quantity."""

    COUNT = "COUNT"
    SUM = "SUM"
    AVG = "AVG"
    COUNT_UNIQUE = "COUNT_UNIQUE"
    LATEST = "LATEST"
    SUM_WITH_MULTIPLIER = "SUM_WITH_MULTIPLIER"
    MAX = "MAX"
    WEIGHTED_SUM = "WEIGHTED_SUM"


ADDITIVE = frozenset({Aggregation.COUNT, Aggregation.SUM, Aggregation.SUM_WITH_MULTIPLIER})
"""Aggregations whose usage adds up over periods, so that a limit can be granted once for all."""


class Window(StrEnum):
    """The length of a window of time, or of a bucket of MAX."""

    MINUTE = "MINUTE"
    MIN_15 = "15MIN"
    MIN_30 = "30MIN"
    HOUR = "HOUR"
    HOUR_3 = "3HOUR"
    HOUR_6 = "6HOUR"
    HOUR_12 = "12HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


class Reset(StrEnum):
    """Whether usage starts from zero in each billing period, or keeps its level."""

    BILLING_PERIOD = "BILLING_PERIOD"
    NEVER = "NEVER"


class Status(StrEnum):
    """Whether something is in use, or kept for its past only."""

    PUBLISHED = "published"
    ARCHIVED = "archived"


class Scope(StrEnum):
    """What an API key may do: send events, read, change the catalog."""

    INGEST = "ingest"
    READ = "read"
    ADMIN = "admin"


class Feature(msgspec.Struct, frozen=True):
    """A feature with its meter, as events are matched against it.

    id               Whose usage an event becomes; `meter_id` names its rule.
    field            The property that is aggregated; None for COUNT.
    multiplier       Of SUM_WITH_MULTIPLIER, else None.
    bucket_size      Of a bucketed MAX, else None; `group_by` its group's property.
    filters          Every key must match by one of its values (canonical texts), in this order.
    status           Archived features count nothing, but say why.
    created_version  The catalog version that created it; `version` the one that made it so.
    """

    id: str
    meter_id: str
    account: str
    event_name: str
    aggregation: Aggregation
    field: str | None
    multiplier: Decimal | None
    bucket_size: Window | None
    group_by: str | None
    filters: tuple[tuple[str, frozenset[str]], ...]
    reset_usage: Reset
    status: Status
    created_version: int
    version: int

    @property
    def active(self) -> bool:
        """Whether events of its name count."""
        return self.status is Status.PUBLISHED


class ApiKey(msgspec.Struct, frozen=True):
    """An API key, as a request is checked against it: never the key itself, only its hash.

    strict                Check names and customers before accepting events.
    requests_per_minute   Limits for single and bulk requests; 0: none, None: the gateway's own.
    """

    id: str
    account: str
    hash: str
    scopes: frozenset[Scope]
    expires_at: datetime | None
    revoked_at: datetime | None
    strict: bool
    requests_per_minute: int | None
    bulk_requests_per_minute: int | None

    def valid_at(self, now: datetime) -> bool:
        """Whether it opens anything at this moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
