"""Inserts that a counter gave up on, and which of them landed all the same: nobody's guess."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from stream_workers.store import OWNER_RANDOM_BITS

_GIVEN_UP = re.compile(
    r"^\[(\S+ \S+)\].*block (\d+):(\d+) was not stored: no answer.*ReadTimeout", re.MULTILINE
)
Block = tuple[int, int]
"""A block partition, and an offset in it."""


class Doubt(NamedTuple):
    """An insert of a block that was given up at a moment (ms)."""

    block: Block
    at: int


def given_up(log: str) -> list[Doubt]:
    """The inserts that a counter's log tells of."""
    return [
        Doubt((int(partition), int(offset)), round(_moment(at) * 1000))
        for at, partition, offset in _GIVEN_UP.findall(log)
    ]


def landed(doubts: Sequence[Doubt], owners: Mapping[Block, int]) -> set[Block]:
    """The blocks whose rows are of an insert that was given up, by the owners of stored blocks.

    Who gave up took another owner number before anything else, and such a number says when.
    """
    return {
        each.block
        for each in doubts
        if each.block in owners and owners[each.block] >> OWNER_RANDOM_BITS < each.at
    }


def _moment(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007 - local
