"""Claims: where each event_id was first seen. What they are (pure); `claim_store` keeps them."""

import struct
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.position import Point

_CLAIM = struct.Struct("<HQIqI")
CLAIM_BYTES = _CLAIM.size
_DTYPE = np.dtype(
    [("epoch", "<u2"), ("offset", "<u8"), ("row", "<u4"), ("time", "<i8"), ("content", "<u4")]
)


class Claim(NamedTuple):
    """The first position of an event_id, the append time of its block (ms), and a content CRC.

    Or of what is sent again in place of a row: `resent_key`.
    """

    point: Point
    time: int
    content: int


def resent_key(key: bytes, superseded: Point) -> bytes:
    """Under which an event claims the row that it supersedes; `key` is its id's. As in claims.sql.

    Who claims it first replaces the row. The claim of the id stays with the row that came first.
    """
    return sha256(b"%b%d:%d:%d" % (key, *superseded)).digest()[: len(key)]


def pack(claim: Claim) -> bytes:
    """A claim as 26 bytes."""
    return _CLAIM.pack(*claim.point, claim.time, claim.content)


def unpack(value: bytes) -> Claim:
    """The claim of 26 bytes."""
    epoch, offset, row, time, content = _CLAIM.unpack(value)
    return Claim(Point(epoch, offset, row), time, content)


def later(one: bytes | None, other: bytes | None) -> bytes | None:
    """Of two packed claims of one key the one of the later position: the earlier had expired."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda claim: unpack(claim).point)


Column = npt.NDArray[np.integer[Any]] | int


def pack_all(
    epochs: Column, offsets: Column, rows: npt.NDArray[Any], times: Column, contents: Column
) -> list[bytes]:
    """Many claims, packed; a number stands for a column of it."""
    table = np.zeros(len(rows), dtype=_DTYPE)
    table["epoch"], table["offset"], table["row"] = epochs, offsets, rows
    table["time"], table["content"] = times, contents
    text = table.tobytes()
    return [text[at : at + CLAIM_BYTES] for at in range(0, len(text), CLAIM_BYTES)]
