"""One report of usage as a producer wrote it, and how it is read: the same over HTTP and Kafka.

The fast path decodes a whole record at once and never looks at a property. Only when something
about the record as a whole is suspicious are its events read one by one, to name what is wrong.
"""

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Meta, Raw

from schemas.limits import (
    DEPTH_MAX,
    EVENT_BYTES_MAX,
    FUTURE_MS_MAX,
    NAME_LENGTH_MAX,
    RECORD_EVENTS_MAX,
)

Name = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)]


class Event(msgspec.Struct, gc=False):
    """One report of usage, as sent: six fields, and `customer_id` as another name for whose it is.

    event_name            Which feature it is for, exactly.
    external_customer_id  The client's own id of the customer; or `customer_id`, ours.
    event_id              Idempotency key; given by Tallylog when absent.
    timestamp             When the usage happened, ISO 8601; the moment of receipt when absent.
    source                Where it came from.
    properties            JSON object, kept as its text, empty when absent: numbers stay as written.
    """

    event_name: Name
    external_customer_id: Name | None = None
    event_id: Name | None = None
    timestamp: Annotated[str, Meta(max_length=NAME_LENGTH_MAX)] | None = None
    source: Annotated[str, Meta(max_length=NAME_LENGTH_MAX)] | None = None
    properties: Raw = Raw(b"")
    customer_id: Name | None = None


class Flaw(msgspec.Struct, frozen=True):
    """What is wrong with a record: which event, which field, a stable code, and the cure.

    `index` is None when the record as a whole can't be read.
    """

    index: int | None
    field: str
    code: str
    detail: str

    def pointer(self, bulk: bool) -> str:
        """The JSON pointer of the fault: `/events/3/event_name`, or `/event_name` of a single."""
        parts = ([f"events/{self.index}"] if bulk and self.index is not None else []) + (
            [self.field] if self.field else []
        )
        return "/" + "/".join(parts) if parts else ""


class Reading(NamedTuple):
    """A record read.

    events  One for each of the record; None where a flaw names its index.
    times   Their timestamps, ms since 1970 (int64); ABSENT where there is none.
    """

    events: list[Event | None]
    times: npt.NDArray[np.int64]
    flaws: list[Flaw]


class Columns(NamedTuple):
    """Good events of many records, in order.

    counts      How many each record holds, at least one.
    times       Their timestamps, as in Reading.
    properties  Their properties' JSON texts, one after the other.
    lengths     Bytes of each text (int64); 0 where there is none.
    """

    counts: list[int]
    events: list[Event]
    times: npt.NDArray[np.int64]
    properties: bytes
    lengths: npt.NDArray[np.int64]


ABSENT = -1
"""The time of an event without a timestamp: all others are from 1970 on."""


class Unreadable(ValueError):
    """The record as a whole can't be read; `flaw` says why."""

    def __init__(self, code: str, detail: str, field: str = "") -> None:
        super().__init__(detail)
        self.flaw = Flaw(None, field, code, detail)


class Unread(bytes):
    """The value of a record that nobody could get at: no bytes, but why."""

    code: str
    detail: str

    def __new__(cls, code: str, detail: str) -> "Unread":
        made = super().__new__(cls)
        made.code, made.detail = code, detail
        return made


class _Bulk(msgspec.Struct):
    events: list[Event]


class _BulkOfRaw(msgspec.Struct):
    events: list[Raw]


_one = msgspec.json.Decoder(Event)
_bulk = msgspec.json.Decoder(_Bulk)
_array = msgspec.json.Decoder(list[Event])
_raw_bulk = msgspec.json.Decoder(_BulkOfRaw)
_raw_array = msgspec.json.Decoder(list[Raw])
_fields = msgspec.json.Decoder(dict[str, Raw])
_anything = msgspec.json.Decoder(Raw)
_BRACES = bytes.maketrans(b"[]", b"{}")
_NOT_MARKS = bytes(set(range(256)) - set(b'{}[]"'))
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_NAIVE = _EPOCH.replace(tzinfo=None)
_MS = timedelta(milliseconds=1)
COMMAS_MAX = 1 << 20
_TOO_DEEP = f"nested deeper than {DEPTH_MAX} levels: flatten it"
_ADVICE = "write ISO 8601 with a time of day, like 2025-08-22T07:05:49.441Z"


def parse_timestamp(text: str) -> int:
    """Milliseconds since 1970 UTC of an ISO 8601 date and time; further digits are cut.

    No offset means UTC. Raises ValueError for a date alone, second 60 and what is no date.
    """
    if len(text) < 13 or text[8 if text[:8].isdigit() else 10] not in "Tt ":
        raise ValueError(f"{text[:64]!r} is not a date and time: {_ADVICE}")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.upper())
        except ValueError:
            raise ValueError(f"{text[:64]!r} is not a date and time: {_ADVICE}") from None
    try:
        return (moment - (_EPOCH_NAIVE if moment.tzinfo is None else _EPOCH)) // _MS
    except OverflowError:
        raise ValueError(f"{text[:64]!r} is out of the calendar: {_ADVICE}") from None


def read(body: bytes, *, now_ms: int | None, single: bool = False, bulk: bool = False) -> Reading:
    """Read a record of one event, an array of them, or `{"events": [...]}`.

    `now_ms` is the moment of receipt: a timestamp more than 24 h after it is a flaw (None: the
    caller judges). `single` takes nothing but one event, `bulk` nothing but several; what one of
    them takes reads the same without it. Raises Unreadable when nothing of the record can be
    told apart; otherwise each bad event is a flaw with its index.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Unreadable("invalid_utf8", f"byte {error.start} is not UTF-8") from None
    try:
        events = _decode(body, single, bulk)
    except _DECODE_ERRORS:
        return _read_slowly(body, now_ms, single, bulk)
    if len(events) > RECORD_EVENTS_MAX:
        raise Unreadable("too_many_events", f"more than {RECORD_EVENTS_MAX} events: send fewer")
    if len(body) > EVENT_BYTES_MAX and _holds_a_large_event(body, single):
        return _read_slowly(body, now_ms, single, bulk)
    columns = _columns(body, [len(events)], events, around=0)
    if columns is None:
        return _read_slowly(body, now_ms, single, bulk)
    if now_ms is not None and columns.times.max(initial=ABSENT) > now_ms + FUTURE_MS_MAX:
        return _read_slowly(body, now_ms, single, bulk)
    return Reading(list(events), columns.times, [])


def read_all(bodies: Sequence[bytes]) -> Columns | None:
    """Read many records at once; None when one of them wants a look of its own, by `read`.

    What it reads, `read` reads the same. A record costs next to nothing besides its events.
    """
    if max(map(len, bodies)) > EVENT_BYTES_MAX:
        return None
    text = b"\n".join(bodies)
    try:
        text.decode()
        counts, events = _decode_all(bodies, text)
    except _DECODE_ERRORS:
        return None
    if not 0 < min(counts) <= max(counts) <= RECORD_EVENTS_MAX:
        return None
    pairs = zip(bodies, counts, strict=True)
    around = sum(1 + body.startswith(b"{") for body, count in pairs if count > 1)
    return _columns(text, counts, events, around)


def _decode_all(bodies: Sequence[bytes], text: bytes) -> tuple[list[int], list[Event]]:
    """The events of each record, and all of them."""
    if b'"events"' not in text and {body[:1] for body in bodies} == {b"{"}:
        return [1] * len(bodies), [_one.decode(body) for body in bodies]
    several = [_decode(body, single=False, bulk=False) for body in bodies]
    return list(map(len, several)), list(chain.from_iterable(several))


def _columns(text: bytes, counts: list[int], events: list[Event], around: int) -> Columns | None:
    """The columns of events decoded from a text; None when one has a flaw that decoding misses.

    `around`: so many of the text's opening brackets stand around events, at least.
    """
    # One byte is found ten times faster than six.
    if b"\\" in text and b"\\u0000" in text:
        return None
    times = _times([event.timestamp for event in events])
    if times is None or None in [
        event.external_customer_id or event.customer_id for event in events
    ]:
        return None
    texts = [event.properties for event in events]
    properties = b"".join(texts)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    absent = len(texts) - np.count_nonzero(lengths)
    if len(texts) <= FEW:
        objects = {bytes(text)[:1] for text in texts} <= _OBJECT_OR_ABSENT
    else:
        starts = (np.cumsum(lengths) - lengths)[lengths > 0]
        objects = bool((np.frombuffer(properties, np.uint8)[starts] == ord("{")).all())
    if not objects:
        return None
    # An event and its properties open a bracket each; so few more can't nest too deep.
    more = _opening_brackets(text) - 2 * len(events) + absent - around
    if more > DEPTH_MAX - 4 and nests_deeper(text, DEPTH_MAX):
        return None
    return Columns(counts, events, times, properties, lengths)


_OBJECT_OR_ABSENT = {b"{", b""}
FEW = 16
"""Up to so many texts, parsing each in turn is faster than all at once."""
SMALL = 4096
"""Up to so many bytes, looking for one after the other is faster than comparing them all."""


def _opening_brackets(body: bytes) -> int:
    if len(body) <= SMALL:
        return body.count(b"{") + body.count(b"[")
    marks = np.frombuffer(body, np.uint8) | 0x20  # makes a brace of a bracket
    return int(np.count_nonzero(marks == ord("{")))


def _times(texts: list[str | None]) -> npt.NDArray[np.int64] | None:
    """The texts' milliseconds since 1970; None when one of them is no timestamp from 1970 on."""
    if len(texts) > FEW:
        with contextlib.suppress(pa.ArrowInvalid):
            column = pa.array(texts, pa.utf8()).cast(_MOMENT).view(pa.int64())
            parsed = column.fill_null(ABSENT) if column.null_count else column
            times: npt.NDArray[np.int64] = parsed.to_numpy()
            if (times < 0).sum() == column.null_count:
                return times
            return None
    try:
        given = [ABSENT if text is None else parse_timestamp(text) for text in texts]
    except ValueError:
        return None
    if sum(time < 0 for time in given) != texts.count(None):
        return None
    return np.array(given, dtype=np.int64)


_MOMENT = pa.timestamp("ms", "UTC")


def _decode(body: bytes, single: bool, bulk: bool) -> list[Event]:
    if body.lstrip()[:1] == b"[":
        if not single:
            return _array.decode(body)
    elif not _is_bulk(body):
        if not bulk:
            return [_one.decode(body)]
    elif not single:
        return _bulk.decode(body).events
    raise _WRONG_KIND


_WRONG_KIND = msgspec.ValidationError("one event where several belong, or the reverse")


def _is_bulk(body: bytes) -> bool:
    """Whether an object is `{"events": [...]}` rather than one event."""
    head = body[:64].replace(b" ", b"")
    if head.startswith(b'{"events":['):
        return True
    if b'"events"' not in body:
        return False
    try:
        return bytes(_fields.decode(body).get("events", b"null")) != b"null"
    except _DECODE_ERRORS:
        return False


def nests_deeper(text: bytes, depth: int) -> bool:
    """Whether brackets of a JSON text nest deeper than `depth`, those inside its texts not counted.

    Deletes innermost pairs round by round: as many rounds as there are levels.
    """
    marks = text
    if b"\\" in marks:
        marks = marks.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = marks.translate(_BRACES, _NOT_MARKS).replace(b'""', b"")
    if b'"' in marks:  # a text holds brackets: what is left of the quotes encloses them
        marks = b"".join(marks.split(b'"')[::2])
    for _ in range(depth):
        if not marks:
            return False
        marks = marks.replace(b"{}", b"")
    return bool(marks)


def _holds_a_large_event(body: bytes, single: bool) -> bool:
    return single or any(len(text) > EVENT_BYTES_MAX for text in _split(body))


def _read_slowly(body: bytes, now_ms: int | None, single: bool, bulk: bool) -> Reading:
    """Read event by event, and say for each what is wrong with it."""
    texts = _split(body)
    if single and (body.lstrip()[:1] == b"[" or _is_bulk(body)):
        raise Unreadable("wrong_type", "send one event as a JSON object; several are a bulk")
    if bulk and len(texts) == 1 and texts[0] is body:
        if _fields_of(body) is None:
            raise Unreadable("wrong_type", 'send {"events": [...]} or an array of events')
        raise Unreadable("missing_field", "Missing required field: events", "events")
    if len(texts) > RECORD_EVENTS_MAX:
        raise Unreadable("too_many_events", f"more than {RECORD_EVENTS_MAX} events: send fewer")
    events: list[Event | None] = []
    times: list[int] = []
    flaws: list[Flaw] = []
    for index, text in enumerate(texts):
        event, time, flaw = _read_one(bytes(text), index, now_ms)
        events.append(event)
        times.append(ABSENT if time is None else time)
        if flaw is not None:
            flaws.append(flaw)
    return Reading(events, np.array(times, dtype=np.int64), flaws)


def _fields_of(body: bytes) -> dict[str, Raw] | None:
    try:
        return _fields.decode(body)
    except _DECODE_ERRORS:
        return None


def texts(body: bytes) -> list[bytes]:
    """The JSON texts of a record's events, in order, good or bad. Raises Unreadable."""
    return [bytes(text) for text in _split(body)]


def _split(body: bytes) -> Sequence[bytes | Raw]:
    """The texts of a record's events, each of which may still be bad; [body] when it is one."""
    if body.count(b",") > COMMAS_MAX:
        return _split_by_hand(body)
    try:
        if body.lstrip()[:1] == b"[":
            return _raw_array.decode(body)
        if _is_bulk(body):
            return _raw_bulk.decode(body).events
        _anything.decode(body)
        return [body]
    except RecursionError:
        return _split_by_hand(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(*_explain(body, error)) from None


def _split_by_hand(body: bytes) -> Sequence[bytes]:
    """Cut the elements out of what no parser should be given: brackets and texts only.

    That is JSON that nests too deep, or that may hold millions of elements: they'd take half a
    gigabyte before anyone counted them.
    """
    masked = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    marks = np.frombuffer(masked, np.uint8)
    outside = np.cumsum(marks == ord('"'), dtype=np.uint8) % 2 == 0
    opening = ((marks == ord("{")) | (marks == ord("["))) & outside
    closing = ((marks == ord("}")) | (marks == ord("]"))) & outside
    levels = np.cumsum(opening.astype(np.int8) - closing, dtype=np.int32)
    if body.lstrip()[:1] == b"[":
        start = body.index(b"[")
    else:
        lists = [m.end() - 1 for m in _EVENTS.finditer(masked) if levels[m.end() - 1] == 2]
        if not lists:
            return [body]
        start = lists[-1]
    level = levels[start]
    ends = np.flatnonzero(levels[start:] < level)
    if not len(ends):
        raise Unreadable("invalid_json", "not valid JSON: an array does not end")
    end = start + int(ends[0])
    try:
        _anything.decode(body[: start + 1] + body[end:])
    except _DECODE_ERRORS as error:
        raise Unreadable("invalid_json", f"not valid JSON: {error}") from None
    commas = (marks == ord(",")) & outside & (levels == level)
    if np.count_nonzero(commas[start:end]) >= RECORD_EVENTS_MAX:
        raise Unreadable("too_many_events", f"more than {RECORD_EVENTS_MAX} events: send fewer")
    cuts = [start, *(start + np.flatnonzero(commas[start:end])).tolist(), end]
    return [body[left + 1 : right] for left, right in pairwise(cuts)]


_EVENTS = re.compile(rb'"events"\s*:\s*\[')


def _explain(body: bytes, error: Exception) -> tuple[str, str, str]:
    if not body.strip():
        return "empty", "the body is empty: send a JSON event", ""
    if isinstance(error, msgspec.ValidationError):
        return "wrong_type", f'"events" must be an array of events ({error})', "events"
    return "invalid_json", f"not valid JSON: {error}", ""


def _read_one(
    text: bytes, index: int, now_ms: int | None
) -> tuple[Event | None, int | None, Flaw | None]:
    """One event and its time, or the first flaw found in it."""

    def flaw(field: str, code: str, detail: str) -> tuple[None, None, Flaw]:
        return None, None, Flaw(index, field, code, detail)

    if len(text) > EVENT_BYTES_MAX:
        return flaw("", "too_large", f"{len(text)} bytes: an event has at most {EVENT_BYTES_MAX}")
    try:
        fields = _fields.decode(text)
    except RecursionError:
        return flaw("", "too_deep", _TOO_DEEP)
    except msgspec.ValidationError:
        return flaw("", "wrong_type", "an event must be a JSON object")
    except _DECODE_ERRORS as error:
        return flaw("", "invalid_json", f"not valid JSON: {error}")
    if nests_deeper(text, DEPTH_MAX):
        return flaw("", "too_deep", _TOO_DEEP)
    try:
        for field in ("event_name", "external_customer_id"):
            if not _given(fields, field) and not (
                field == "external_customer_id" and _given(fields, "customer_id")
            ):
                return flaw(field, "missing_field", f"Missing required field: {field}")
        for field in _NAMES:
            problem = _name_problem(fields, field)
            if problem is not None:
                return flaw(field, *problem)
        properties = fields.get("properties")
        if properties is not None and bytes(properties) == b"null":
            del fields["properties"]
        elif properties is not None and not bytes(properties).startswith(b"{"):
            return flaw("properties", "wrong_type", "properties must be a JSON object")
        event = _one.decode(msgspec.json.encode(fields))
    except _DECODE_ERRORS as error:
        return flaw("", "invalid_json", f"not valid JSON: {error}")
    if event.timestamp is None:
        return event, None, None
    try:
        time = parse_timestamp(event.timestamp)
    except ValueError as error:
        return flaw("timestamp", "invalid_timestamp", str(error))
    if time < 0:
        return flaw("timestamp", "invalid_timestamp", "timestamp is before 1970")
    if now_ms is not None and time > now_ms + FUTURE_MS_MAX:
        return flaw(
            "timestamp", "timestamp_in_future", "timestamp is more than 24 hours in the future"
        )
    return event, time, None


_NAMES = ("event_name", "external_customer_id", "customer_id", "event_id", "source", "timestamp")
_text = msgspec.json.Decoder(str)


def _given(fields: dict[str, Raw], field: str) -> bool:
    """Whether a field has a value; null and, for what is required, an empty text are none."""
    return field in fields and bytes(fields[field]) not in (b"null", b'""')


def _name_problem(fields: dict[str, Raw], field: str) -> tuple[str, str] | None:
    """What is wrong with a text field, as code and cure."""
    if field not in fields or bytes(fields[field]) == b"null":
        return None
    if not bytes(fields[field]).startswith(b'"'):
        return "wrong_type", f"{field} must be a string"
    value = _text.decode(fields[field])
    if not value and field != "source":
        return "empty", f"{field} is empty: leave it out or give it a value"
    if len(value) > NAME_LENGTH_MAX:
        return "too_long", f"{field} has {len(value)} characters: at most {NAME_LENGTH_MAX}"
    if "\0" in value:
        return "nul_character", f"{field} must not contain a NUL character"
    return None
