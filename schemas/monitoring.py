"""How far the pipeline is behind, as one account sees it."""

from datetime import datetime
from typing import NotRequired, Self

from pydantic import model_validator
from typing_extensions import TypedDict

from schemas.requests import OptionalName, Request, fault
from schemas.usage import OptionalMoment, OptionalWindow


class MonitoringQuery(Request):
    """GET /v1/events/monitoring: of which range to count events, by receipt.

    start_time, end_time  Half-open; the last 24 hours where they are absent.
    """

    start_time: OptionalMoment = None
    end_time: OptionalMoment = None
    window_size: OptionalWindow = None
    event_name: OptionalName = None

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.start_time and self.end_time and self.start_time >= self.end_time:
            raise fault("end_time", "out_of_range", "end_time has to be after start_time")
        return self


class EventCount(TypedDict):
    """The events and dead letters received in one window."""

    timestamp: datetime
    event_count: int


class Stage(TypedDict):
    """One step of the pipeline.

    stage         `packing`: from the log to blocks; `counting`: from blocks to the store.
    lag_events    The account's events that wait for it; at least so many where not `exact`.
    lag_offsets   Records (packing) or blocks (counting) that wait, of this account or shared.
    lag_seconds   Age of `until`; null while it isn't known.
    until         All that was received before it has passed this stage.
    """

    stage: str
    lag_events: int
    exact: bool
    lag_offsets: int
    lag_seconds: float | None
    until: datetime | None


class Conservation(TypedDict):
    """Whether all that was received became something: a verdict, or a dead letter.

    gap_events  Events in the log that the packer read, and that became neither; 0, or something
                was lost. Of the topics that hold the account's events, one of which it shares.
    gap_rows    Rows, of all accounts, that were counted and are not in the store; below 0: rows
                in the store that nobody counted.
    until       All that was received before it was compared.

    Null: not known, as nothing was compared yet, or counted by a version that kept no balance.
    """

    gap_events: int | None
    gap_rows: int | None
    until: datetime | None


class Monitoring(TypedDict):
    """The account's events and how far they are counted.

    total_count          Null, and `points` empty, while the store is away.
    consumption_lag      Events that wait to be packed; `post_processing_lag` to be counted.
    watermark            Everything received before it is counted; null while it isn't known.
    conservation         Whether anything was lost on the way.
    looked_at            When the pipeline was looked at; `trouble` says why not just now.
    """

    total_count: int | None
    consumption_lag: int
    post_processing_lag: int
    points: list[EventCount]
    watermark: datetime | None
    stages: list[Stage]
    conservation: Conservation
    looked_at: datetime | None
    trouble: NotRequired[str]
