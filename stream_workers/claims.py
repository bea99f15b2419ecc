"""Claims: where each event_id was first seen. What they are (pure); `claim_store` keeps them.

Keys and claims are columns: nothing here costs an object for each event.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from schemas.position import Point

KEY_BYTES = 16
CLAIM = np.dtype(
    [("epoch", "<u2"), ("offset", "<u8"), ("row", "<u4"), ("time", "<i8"), ("content", "<u4")]
)
WHOLE = np.dtype((np.void, CLAIM.itemsize))
"""As one piece a claim is copied twenty times as fast as field by field."""
NOWHERE = (1 << 64) - 1
"""The offset of a claim that isn't there."""

Numbers = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Table = npt.NDArray[np.void]
"""Claims as rows of CLAIM."""


class Claim(NamedTuple):
    """The first position of an event_id, the append time of its block (ms), and a content CRC.

    Or of what is sent again in place of a row: `resent_key`.
    """

    point: Point
    time: int
    content: int


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """Keys of 16 bytes, as columns of their halves: big-endian, so they are ordered as the bytes.

    They are halves of SHA-256: as good as random.
    """

    heads: Numbers
    tails: Numbers

    @classmethod
    def of(cls, text: Any, start: int = 0, count: int = -1) -> Self:
        """The keys that stand one after the other in a buffer, from number `start` on."""
        end = None if count < 0 else start + count
        halves = np.frombuffer(text, dtype=">u8").reshape(-1, 2)[start:end]
        return cls(halves[:, 0].astype(np.uint64), halves[:, 1].astype(np.uint64))

    @classmethod
    def joined(cls, parts: Sequence["Keys"]) -> Self:
        """Several, one after the other."""
        heads = np.concatenate([part.heads for part in parts])
        return cls(heads, np.concatenate([part.tails for part in parts]))

    def __len__(self) -> int:
        return len(self.heads)

    def take(self, rows: npt.NDArray[Any]) -> "Keys":
        """Some of them: by their numbers, or by a mask."""
        return Keys(self.heads[rows], self.tails[rows])

    def texts(self) -> list[bytes]:
        """Each as bytes."""
        text = np.stack([self.heads, self.tails], axis=1).astype(">u8").tobytes()
        return [text[at : at + KEY_BYTES] for at in range(0, len(text), KEY_BYTES)]

    def firsts(self, order: Rows) -> Rows | None:
        """For each the number of the first that is equal; None when each is the first.

        `order` sorts by `heads`.
        """
        heads = self.heads[order]
        twice = heads[1:] == heads[:-1]
        if not twice.any():
            return None
        among = np.zeros(len(heads), dtype=bool)
        among[1:] = twice
        among[:-1] |= twice
        rows = order[among]
        rows = rows[np.lexsort((rows, self.tails[rows], self.heads[rows]))]
        new = np.ones(len(rows), dtype=bool)
        new[1:] = _differ(self.take(rows))
        firsts = np.arange(len(heads))
        firsts[rows] = rows[np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))]
        return firsts


@dataclass(frozen=True, slots=True, eq=False)
class Claims:
    """Keys, and the claim of each."""

    keys: Keys
    table: Table

    @classmethod
    def of(cls, pairs: Iterable[tuple[bytes, Claim]]) -> Self:
        """From a key and a claim each."""
        known = list(pairs)
        rows = [(*claim.point, claim.time, claim.content) for _, claim in known]
        return cls(Keys.of(b"".join(key for key, _ in known)), np.array(rows, dtype=CLAIM))

    @classmethod
    def joined(cls, parts: Sequence["Claims"]) -> Self:
        """Several, one after the other."""
        keys = Keys.joined([part.keys for part in parts])
        table = np.concatenate([part.table.view(WHOLE) for part in parts])
        return cls(keys, table.view(CLAIM))

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: npt.NDArray[Any]) -> "Claims":
        """Some of them: by their numbers, or by a mask."""
        return Claims(self.keys.take(rows), self.table.view(WHOLE)[rows].view(CLAIM))

    def pairs(self) -> list[tuple[bytes, Claim]]:
        """A key and a claim each."""
        return list(zip(self.keys.texts(), listed(self.table), strict=True))

    def firsts(self) -> "Claims":
        """In the order of the keys; of several claims of one key the first."""
        ordered = self.take(np.argsort(self.keys.heads, kind="stable"))
        heads = ordered.keys.heads
        if not (heads[1:] == heads[:-1]).any():
            return ordered
        ordered = ordered.take(np.lexsort((ordered.keys.tails, heads)))
        new = np.ones(len(ordered), dtype=bool)
        new[1:] = _differ(ordered.keys)
        return ordered.take(new)

    def latest(self) -> "Claims":
        """In the order of the keys; of several claims of one key that of the latest position."""
        table = self.table
        later_first = np.lexsort((table["row"], table["offset"], table["epoch"]))[::-1]
        return self.take(later_first).firsts()


def claims_at(
    epochs: npt.NDArray[Any] | int,
    offsets: npt.NDArray[Any] | int,
    rows: npt.NDArray[Any],
    times: npt.NDArray[Any] | int,
    contents: npt.NDArray[Any] | int,
) -> Table:
    """Claims from their columns; a number stands for a column of it."""
    table = np.empty(len(rows), dtype=CLAIM)
    table["epoch"], table["offset"], table["row"] = epochs, offsets, rows
    table["time"], table["content"] = times, contents
    return table


def no_claims() -> Claims:
    """None at all."""
    return Claims.of(())


def absent(count: int) -> Table:
    """So many claims that aren't there."""
    table = np.zeros(count, dtype=CLAIM)
    table["offset"] = NOWHERE
    return table


def put(table: Table, order: Rows) -> Table:
    """The claims put where `order` says, one row of which is each one's."""
    found = np.empty(len(table), dtype=CLAIM)
    found.view(WHOLE)[order] = table.view(WHOLE)
    return found


def is_there(table: Table) -> npt.NDArray[np.bool_]:
    """Which of them are."""
    there: npt.NDArray[np.bool_] = table["offset"] != NOWHERE
    return there


def listed(table: Table) -> list[Claim]:
    """Each claim by itself."""
    return [
        Claim(Point(epoch, offset, row), time, content)
        for epoch, offset, row, time, content in table.tolist()
    ]


def stands_before(table: Table, epoch: Any, offset: Any, row: Any) -> npt.NDArray[np.bool_]:
    """Which claims' positions come before these."""
    epochs, offsets = table["epoch"], table["offset"]
    before: npt.NDArray[np.bool_] = (epochs < epoch) | (
        (epochs == epoch) & ((offsets < offset) | ((offsets == offset) & (table["row"] < row)))
    )
    return before


def later(one: Table, other: Table) -> Table:
    """Of two claims of each key the one of the later position: the earlier had expired."""
    is_later = stands_before(one, other["epoch"], other["offset"], other["row"])
    return np.where(is_there(other) & (is_later | ~is_there(one)), other, one)


def resent_key(key: bytes, superseded: Point) -> bytes:
    """Under which an event claims the row that it supersedes; `key` is its id's. As in claims.sql.

    Who claims it first replaces the row. The claim of the id stays with the row that came first.
    """
    return sha256(b"%b%d:%d:%d" % (key, *superseded)).digest()[: len(key)]


def _differ(keys: Keys) -> npt.NDArray[np.bool_]:
    """Whether each but the first is another than the one before it."""
    heads, tails = keys.heads, keys.tails
    different: npt.NDArray[np.bool_] = (heads[1:] != heads[:-1]) | (tails[1:] != tails[:-1])
    return different
