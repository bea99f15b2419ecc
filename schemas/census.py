"""How many rows source records have to make, counted from their bytes apart from what reads them.

Every event of a record becomes a row, with a verdict or as a dead letter; a record that can't be
read at all becomes one dead letter.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from schemas import resent
from schemas.event import Unreadable, texts
from schemas.limits import BODY_BYTES_MAX, RECORD_EVENTS_MAX
from schemas.topics import RESENT

NAME = b'"event_name"'


class SourceRecord(Protocol):
    """What is counted: whose a record is ("" where nobody says), and its bytes."""

    @property
    def account(self) -> str: ...
    @property
    def value(self) -> bytes | None: ...


def rows_due(topic: str, records: Sequence[SourceRecord], made: int) -> int:
    """How many rows the records of a topic have to make, when they made so many.

    Every event has a name. If each record holds that word, and they hold it as often as they made
    rows, that is it: a hundred times quicker than to take them apart.
    """
    if topic == RESENT:
        return sum(map(_resent, records))
    names = [0 if record.value is None else record.value.count(NAME) for record in records]
    if all(names) and sum(names) == made:
        return made
    return sum(rows_of(record.value) if record.account else 1 for record in records)


def rows_of(value: bytes | None) -> int:
    """How many rows a producer's record has to make: its events, or one dead letter."""
    if value is None or len(value) > BODY_BYTES_MAX:
        return 1
    try:
        value.decode()
        events = len(texts(value))
    except (UnicodeDecodeError, Unreadable):
        return 1
    return events if 0 < events <= RECORD_EVENTS_MAX else 1


def _resent(record: SourceRecord) -> int:
    try:
        return len(resent.decode(record.value or b""))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 1
