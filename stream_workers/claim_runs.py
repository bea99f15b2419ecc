"""Runs: claims in the order of their keys, with a filter that says which keys can't be in. Pure.

A look-up asks one run after the other, all keys of a block at once. The filter has one word of 64
bits for every four claims, and a key sets six bits of one word (Putze, Sanders, Singler: "Cache-,
hash- and space-efficient Bloom filters", 2007): it lets one in some 300 foreign keys through.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_workers.claims import (
    CLAIM,
    WHOLE,
    Claims,
    Keys,
    Numbers,
    Rows,
    Table,
    absent,
)

CLAIMS_PER_WORD = 4
PIECE = 1 << 18
"""How many claims are merged at a time: what that takes stays in the processor's cache."""
FAN = 8
"""So many runs of about one size become one."""
SMALL = 2048
"""Runs up to this are of one size."""
_MAGIC = 0x31_4D_49_41_4C_43_54_54
_HEAD = 4
"""Words before the filter: magic, words of the filter, room, claims."""
_HALF = np.uint64(32)
_PAIR = np.uint64(4095)
_SHIFTS = np.array([0, 12, 24], dtype=np.uint64)
_PLACES = np.uint64(1) << np.arange(64, dtype=np.uint64)
_PAIRS = (_PLACES[:, None] | _PLACES).ravel()
"""The bits of each two places in a word."""

Bytes = npt.NDArray[np.uint8]


class Unreadable(Exception):
    """No run."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Claims in the order of `heads`, one of each key, and their filter."""

    heads: Numbers
    tails: Numbers
    table: Table
    words: Numbers

    @classmethod
    def of(cls, claims: Claims) -> "Run":
        """From claims in the order of their keys, one of each."""
        words = np.zeros(_words(len(claims)), dtype=np.uint64)
        _note(words, claims.keys)
        return cls(claims.keys.heads, claims.keys.tails, claims.table, words)

    @classmethod
    def read(cls, content: Bytes) -> "Run":
        """From what `lay_out` made. Raises Unreadable."""
        if len(content) < 8 * _HEAD:
            raise Unreadable("it has no head")
        magic, words, room, count = content[: 8 * _HEAD].view(np.uint64).tolist()
        if magic != _MAGIC or count > room or len(content) != size_of(room):
            raise Unreadable("its head or its size is wrong")
        heads, tails, table, filter_ = _parts(content, words, room)
        return cls(heads[:count], tails[:count], table[:count], filter_)

    def __len__(self) -> int:
        return len(self.heads)

    def part(self, start: int, end: int) -> Claims:
        """The claims from one number up to another."""
        keys = Keys(self.heads[start:end], self.tails[start:end])
        return Claims(keys, self.table[start:end])

    def may_hold(self, keys: Keys, bits: Numbers) -> npt.NDArray[np.bool_]:
        """Which keys may be in; `bits` are theirs (`bits_of`)."""
        at = _word_of(keys.heads, len(self.words))
        found: npt.NDArray[np.bool_] = self.words[at] & bits == bits
        return found

    def find(self, keys: Keys) -> Rows:
        """Where each key is; -1: nowhere."""
        last = len(self) - 1
        at = np.minimum(np.searchsorted(self.heads, keys.heads), last)
        like = self.heads[at] == keys.heads
        found = like & (self.tails[at] == keys.tails)
        beside = np.flatnonzero(like & ~found & (at < last))
        while len(beside):  # a key whose first half is another's too
            at[beside] += 1
            like = self.heads[at[beside]] == keys.heads[beside]
            found[beside] = like & (self.tails[at[beside]] == keys.tails[beside])
            beside = beside[like & ~found[beside] & (at[beside] < last)]
        return np.where(found, at, -1)


def look_up(runs: Iterable[Run], keys: Keys) -> Table:
    """The claim of each key, from the first run that has one."""
    found = absent(len(keys))
    if not len(keys):
        return found
    bits, missing = bits_of(keys), np.ones(len(keys), dtype=bool)
    for run in runs:
        asked = np.flatnonzero(run.may_hold(keys, bits) & missing)
        if not len(asked):
            continue
        at = run.find(keys.take(asked))
        rows, at = asked[at >= 0], at[at >= 0]
        found[rows] = run.table[at]
        missing[rows] = False
    return found


def due(sizes: Sequence[int]) -> int:
    """How many of the youngest runs are to become one; `sizes` from the youngest to the oldest.

    That is when FAN of them are of one size, within a factor of FAN: with those that are younger.
    So a claim is written once for each power of FAN.
    """
    below, upto = 0, SMALL
    while True:
        own = among = 0
        while among < len(sizes) and sizes[among] <= upto:
            own += sizes[among] > below
            among += 1
        if own >= FAN:
            return among
        if among == len(sizes):
            return 0
        below, upto = upto, upto * FAN


def merged(runs: Sequence[Run]) -> Iterator[Claims]:
    """The claims of runs in the order of their keys, piece by piece; of a key's the first run's."""
    total = sum(map(len, runs))
    pieces = total // PIECE + 1
    bounds = [(number << 64) // pieces for number in range(1, pieces)]
    cuts = np.array(bounds, dtype=np.uint64)
    places = [[0, *np.searchsorted(run.heads, cuts).tolist(), len(run)] for run in runs]
    for number in range(pieces):
        parts = [run.part(*at[number : number + 2]) for run, at in zip(runs, places, strict=True)]
        yield Claims.joined(parts).firsts()


def one_of(runs: Sequence[Run]) -> Run:
    """Several runs as one, in memory; of a key's claims the first run's stays."""
    return Run.of(Claims.joined(list(merged(runs))))


def size_of(room: int) -> int:
    """How many bytes a run of so many claims takes."""
    return 8 * (_HEAD + _words(room) + 2 * room) + CLAIM.itemsize * room


def lay_out(pieces: Iterable[Claims], room: int, content: Bytes) -> None:
    """Write a run of at most `room` claims into `size_of(room)` zeros; `pieces` in order."""
    count, words = 0, _words(room)
    heads, tails, table, filter_ = _parts(content, words, room)
    for piece in pieces:
        end = count + len(piece)
        heads[count:end], tails[count:end] = piece.keys.heads, piece.keys.tails
        table[count:end].view(WHOLE)[:] = piece.table.view(WHOLE)
        _note(filter_, piece.keys)
        count = end
    content[: 8 * _HEAD].view(np.uint64)[:] = _MAGIC, words, room, count


def bits_of(keys: Keys) -> Numbers:
    """The bits of a word that each key sets: two for every twelve bits of its second half."""
    first, second, third = (keys.tails >> shift & _PAIR for shift in _SHIFTS)
    bits: Numbers = _PAIRS[first] | _PAIRS[second] | _PAIRS[third]
    return bits


def _words(count: int) -> int:
    return count // CLAIMS_PER_WORD + 1


def _word_of(heads: Numbers, words: int) -> Numbers:
    """The word of each key: as far on in the filter as the key is among all keys."""
    return (heads >> _HALF) * np.uint64(words) >> _HALF


def _note(words: Numbers, keys: Keys) -> None:
    """Set the bits of some keys, which are in order, in a filter."""
    if not len(keys):
        return
    at = _word_of(keys.heads, len(words))
    starts = np.flatnonzero(np.concatenate(([True], at[1:] != at[:-1])))
    words[at[starts]] |= np.bitwise_or.reduceat(bits_of(keys), starts)


def _parts(content: Bytes, words: int, room: int) -> tuple[Any, Any, Any, Any]:
    """Heads, tails, claims and filter in the bytes of a run."""
    ends = np.cumsum([8 * _HEAD, 8 * words, 8 * room, 8 * room]).tolist()
    filter_, heads, tails = (content[a:b].view(np.uint64) for a, b in pairwise(ends))
    return heads, tails, content[ends[-1] :].view(CLAIM), filter_
