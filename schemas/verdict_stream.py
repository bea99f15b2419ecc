"""The live stream of verdicts: what it can be narrowed to, and where it is taken up again."""

import re
from typing import Annotated, NamedTuple, NotRequired, Self

from pydantic import BeforeValidator, Field

from schemas.event_queries import EventItem, Warnings
from schemas.requests import OptionalName, Request
from schemas.verdict import Verdict

SLOTS_MAX = 4096


def _several(value: object) -> object:
    if value is None or value == "":
        return []
    return value.split(",") if isinstance(value, str) else value


class StreamQuery(Request):
    """GET /v1/events/stream: verdicts as they fall, of the account's events; all, if no filter.

    verdict  Some of them, with commas between; `dead_letter` for what could not be read.
    warning  Events with one of these, with commas between, as it stands when they are sent.
    """

    event_name: OptionalName = None
    external_customer_id: OptionalName = None
    source: OptionalName = None
    verdict: Annotated[list[Verdict], BeforeValidator(_several)] = Field(default_factory=list)
    warning: Warnings = Field(default_factory=list)


class Point(NamedTuple):
    """The last row that was sent of a block partition: the block's offset, the row in it."""

    offset: int
    row: int


class Cursor(NamedTuple):
    """Where a stream stands: a block time (ms) that no unsent row is older than, and its points.

    As text it is the `id:` of each event, which a client sends back as Last-Event-ID.
    """

    time: int
    points: dict[int, Point]

    def text(self) -> str:
        """Like `1763700000000/0:17:3/1:9:0`."""
        parts = [f"{p}:{at.offset}:{at.row}" for p, at in sorted(self.points.items())]
        return "/".join([str(self.time), *parts])

    @classmethod
    def of(cls, text: str) -> Self:
        """The cursor of a text. Raises ValueError."""
        if not _TEXT.fullmatch(text) or text.count("/") > SLOTS_MAX:
            raise ValueError("no id of this stream")
        time, *parts = text.split("/")
        points = {}
        for part in parts:
            partition, offset, row = map(int, part.split(":"))
            points[partition] = Point(offset, row)
        return cls(int(time), points)


_TEXT = re.compile(r"[0-9]{1,15}(?:/[0-9]{1,5}:[0-9]{1,18}:[0-9]{1,10})*", re.ASCII)


class StreamedEvent(EventItem):
    """The `data:` of each event of the stream.

    properties_left_out  True where they are too large for a stream: look the event up.
    dead_letter          Of what could not be read: its id among the dead letters.
    """

    properties_left_out: NotRequired[bool]
    dead_letter: NotRequired[str]
