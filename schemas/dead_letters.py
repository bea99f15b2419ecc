"""Dead letters as people see them, and what they write to replay them."""

from datetime import datetime
from typing import Annotated, Any, NotRequired, Self

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import TypedDict

from schemas.requests import Name, OptionalName, Request, Slice, absent_if_empty, fault, whole
from schemas.usage import OptionalMoment

REPLAYS_MAX = 500
CUSTOMERS_MAX = 1000

CURES = {
    "empty": "Replay it with `content` that has what is missing, or leave it.",
    "invalid_utf8": "The bytes are not UTF-8: replay it with the right text as `content`.",
    "invalid_json": "The bytes are not JSON: replay it with the right text as `content`.",
    "too_large": "Split what it holds and send the parts: a record has at most 10 MiB, "
    "an event 1 MiB, a Kafka batch 32 MiB when it is decompressed.",
    "too_many_events": "Split what it holds and send the parts: at most 100000 events a record.",
    "too_deep": "Flatten the event, and replay it with that as `content`.",
    "wrong_type": "Replay it with `content` in which the field has its right type.",
    "missing_field": "Replay it with `content` that has the field.",
    "too_long": "Replay it with `content` in which the field is shorter.",
    "nul_character": "Replay it with `content` without the NUL character.",
    "invalid_timestamp": "Replay it with `content` whose timestamp is ISO 8601 with a time of day.",
    "unknown_customer_id": "Replay it with `customers` that says whose customer_id this is, as "
    '{"customer_id": "external_customer_id"}, or with `content`.',
    "unreadable_batch": "What Kafka's client wrote can't be taken apart, and is lost with its "
    "headers or compression: send it anew, or replay it with `content`.",
    "log_recreated": "The topic was made anew, and what it held before is gone: there is nothing "
    "to replay.",
    "log_truncated": "The log's retention ended before it was read: there is nothing to replay.",
}
"""What to do about a dead letter, by its code."""

LOST = frozenset({"log_recreated", "log_truncated"})
"""Codes of dead letters that stand for records nobody has any more."""


class DeadLetterQuery(Slice):
    """GET /v1/events/dead-letters: a page of them, newest first.

    code                  One of the reasons, like `invalid_json`.
    topic                 Where the record was.
    start_time, end_time  Half-open, of receipt.
    """

    code: OptionalName = None
    topic: OptionalName = None
    start_time: OptionalMoment = None
    end_time: OptionalMoment = None


class DeadLetterFilter(Request):
    """Which dead letters to replay; those that were replayed before are left as they are."""

    code: OptionalName = None
    topic: OptionalName = None
    start_time: OptionalMoment = None
    end_time: OptionalMoment = None


class ReplayRequest(Request):
    """POST /v1/events/dead-letters/replay: some by their ids, or a page of a filter's.

    content    Instead of the bytes of the one dead letter in `ids`: an event, or, where a whole
               record was unreadable, `{"events": [...]}` or an array of them.
    customers  External ids of customers that events name by a customer_id which nobody has.
    limit      Of a filter: how many to look at in this request.
    after      Of a filter: the id of the last dead letter that the request before looked at.
    """

    ids: Annotated[list[Name], Field(max_length=REPLAYS_MAX)] | None = None
    filter: DeadLetterFilter | None = None
    content: Any = None
    customers: Annotated[dict[Name, Name], Field(max_length=CUSTOMERS_MAX)] = Field(
        default_factory=dict
    )
    limit: Annotated[int, BeforeValidator(whole(1, REPLAYS_MAX))] = REPLAYS_MAX
    after: Annotated[str | None, Field(max_length=512), BeforeValidator(absent_if_empty)] = None

    @model_validator(mode="after")
    def _names_dead_letters(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            code = "missing" if self.ids is None else "not_allowed"
            raise fault("ids", code, "send either ids or a filter")
        if self.ids is not None and not self.ids:
            raise fault("ids", "empty", "ids is empty: name a dead letter")
        if self.content is not None and len(self.ids or ()) != 1:
            detail = "content replaces one dead letter's bytes: name exactly one in ids"
            raise fault("content", "not_allowed", detail)
        if self.after is not None and self.filter is None:
            raise fault("after", "not_allowed", "after goes with a filter: leave it out")
        return self


class Position(TypedDict):
    """Where a producer's event is in Kafka."""

    topic: str
    epoch: int
    partition: int
    offset: int
    index: int


class ReplayedEvent(TypedDict):
    """An event that a replay sent; without a verdict it is not counted yet."""

    id: str
    verdict: NotRequired[str]


class ReplayShown(TypedDict):
    """When a dead letter was replayed first, by which API key, and what became of its events."""

    at: datetime
    actor: str
    corrected: bool
    events: list[ReplayedEvent]


class DeadLetterItem(TypedDict):
    """A record, or an event of a record, that could not be read.

    id    Its position, as one text.
    code  Why, and `detail` in words; `cure` says what to do.
    text  The beginning of its bytes, where they are UTF-8.
    """

    id: str
    code: str
    detail: str
    cure: str
    received_at: datetime
    position: Position
    bytes: int
    text: str | None
    replay: ReplayShown | None


class DeadLetter(DeadLetterItem):
    """The same with all its bytes, in base64; `text` is whole."""

    base64: str


class Pagination(TypedDict):
    """Where a page lies in its list."""

    total: int
    limit: int
    offset: int


class DeadLetterPage(TypedDict):
    """A page of dead letters."""

    items: list[DeadLetterItem]
    pagination: Pagination


class ReplayResult(TypedDict):
    """What became of the replay of one dead letter.

    status  `sent` into the log; `counted_before`: an earlier replay's events are stored, nothing
            was sent; `refused`: with a code, a detail and a cure.
    """

    id: str
    status: str
    event_ids: list[str]
    code: NotRequired[str]
    detail: NotRequired[str]


class ReplayAnswer(TypedDict):
    """What became of a replay; `after` and `has_more` say where a filter goes on."""

    sent: int
    counted_before: int
    refused: int
    items: list[ReplayResult]
    has_more: bool
    after: NotRequired[str]
