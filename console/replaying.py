"""From a dead letter, or what somebody writes in its place, to events for the log. Pure.

An event keeps the dead letter's position as its home. One without an id gets it from that position,
so that whoever replays it again sends the same.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from schemas.errors import shown
from schemas.event import ABSENT, Event, Unreadable, read, texts
from schemas.ids import native_event_id
from schemas.limits import EVENTS_MAX, NAME_LENGTH_MAX
from schemas.position import INDEX_MASK, Log, Point, position
from schemas.resent import Resent

SUPERSEDES_NOTHING = Point(0, -1, 0)
"""A dead letter claims no event_id, so there is no row that a replay could replace."""


class Letter(NamedTuple):
    """A stored dead letter with its bytes; `id` is its position as one text.

    place  Its index in the record.
    """

    id: str
    code: str
    ingested_at: int
    log: Log
    offset: int
    place: int
    content: bytes


class Refused(Exception):
    """What can't be replayed as it stands: a stable code, and what to do."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


Resolve = Callable[[str], str | None]
"""customer_id -> external_customer_id, or None when there is no such customer."""


def text_of(content: Any) -> str:
    """The JSON text of what somebody wrote in a dead letter's place, numbers as they wrote them."""
    return msgspec.json.encode(_exact(content)).decode()


def _exact(value: Any) -> Any:
    if isinstance(value, Decimal):
        return Raw(str(value).encode())
    if isinstance(value, dict):
        return {key: _exact(each) for key, each in value.items()}
    return [_exact(each) for each in value] if isinstance(value, list) else value


def with_customers(letter: Letter, customers: Mapping[str, str]) -> str | None:
    """The letter's text with the external ids of customers filled in; None when it needs none."""
    if not customers:
        return None
    try:
        fields = _fields.decode(letter.content)
        customer = _text.decode(fields["customer_id"])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return None
    if customer not in customers or "external_customer_id" in fields:
        return None
    fields["external_customer_id"] = Raw(msgspec.json.encode(customers[customer]))
    return msgspec.json.encode(fields).decode()


def events_of(account: str, letter: Letter, content: str | None, resolve: Resolve) -> list[Resent]:
    """The events that a dead letter, or the content in its place, stands for. Raises Refused."""
    body = letter.content if content is None else content.encode()
    if not body:
        raise Refused("empty", "there are no bytes to replay: send `content`")
    try:
        reading = read(body, now_ms=None)
    except Unreadable as unreadable:
        raise Refused(unreadable.flaw.code, unreadable.flaw.detail) from None
    if reading.flaws:
        flaw = reading.flaws[0]
        raise Refused(flaw.code, flaw.detail)
    if not reading.events:
        raise Refused("empty", "there is no event in it")
    if len(reading.events) > EVENTS_MAX:
        raise Refused("too_many_events", f"more than {EVENTS_MAX} events: send them anew instead")
    several = len(reading.events) > 1
    if several and _is_one(letter):
        raise Refused("too_many_events", "it is one event of its record: send one in its place")
    events = []
    for number, event in enumerate(reading.events):
        assert event is not None  # without flaws, all are there
        time = int(reading.times[number])
        given = time != ABSENT
        log = letter.log
        made = native_event_id(log.topic, log.epoch, log.partition, letter.offset, letter.place)
        events.append(
            Resent(
                account=account,
                event_id=event.event_id or (f"{made}-{number}" if several else made),
                event_name=event.event_name,
                external_customer_id=_customer(event, resolve),
                timestamp=time if given else letter.ingested_at,
                timestamp_given=given,
                ingested_at=letter.ingested_at,
                source=event.source or "",
                properties=bytes(event.properties).decode(),
                home=log,
                home_position=position(letter.offset, min(letter.place + number, INDEX_MASK)),
                superseded=SUPERSEDES_NOTHING,
            )
        )
    return events


def _customer(event: Event, resolve: Resolve) -> str:
    if event.external_customer_id is not None:
        return event.external_customer_id
    external_id = resolve(event.customer_id or "")
    if external_id is None:
        raise Refused(
            "unknown_customer_id",
            f"no customer has the id {shown(event.customer_id, NAME_LENGTH_MAX)}: say whose it is"
            ' in `customers`, as {"customer_id": "external_customer_id"}',
        )
    return external_id


def _is_one(letter: Letter) -> bool:
    """Whether the letter is one event of a record, rather than a record that nobody could read."""
    try:
        elements = texts(letter.content)
    except Unreadable:
        return False
    return len(elements) == 1 and elements[0].lstrip()[:1] == b"{"


_fields = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)
