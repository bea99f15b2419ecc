"""Positions in a log: where an event stood, as one number that orders and covers."""

from typing import NamedTuple

import msgspec

INDEX_BITS = 20
INDEX_MASK = (1 << INDEX_BITS) - 1
SLOTS_PER_EPOCH = 1 << 16


def slot_of(epoch: int, partition: int) -> int:
    """A block partition's slot, as `owners` has it; divmod by SLOTS_PER_EPOCH takes it apart."""
    return epoch * SLOTS_PER_EPOCH + partition


class Log(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One partition of a source topic; `epoch` counts how often the topic was made anew."""

    topic: str
    epoch: int
    partition: int


class Range(msgspec.Struct, frozen=True, array_like=True):
    """The half-open span `[start, stop)` of positions of the log numbered `log` in a block."""

    log: int
    start: int
    stop: int


class Point(NamedTuple):
    """Where an event stands among blocks: (epoch of the topic, offset of the block, row in it)."""

    epoch: int
    offset: int
    row: int


def position(offset: int, index: int = 0) -> int:
    """The place of event `index` of the record at `offset`, as a number that orders like both."""
    return offset << INDEX_BITS | index


def offset_of(place: int) -> int:
    """The record's offset of a position."""
    return place >> INDEX_BITS


def index_of(place: int) -> int:
    """The event's index within its record of a position."""
    return place & INDEX_MASK
