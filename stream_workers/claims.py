"""Claims: where each event_id was first seen. What they are (pure); `claim_store` keeps them."""

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.position import Point

_CLAIM = struct.Struct("<HQIqI")
CLAIM_BYTES = _CLAIM.size
_DTYPE = np.dtype(
    [("epoch", "<u2"), ("offset", "<u8"), ("index", "<u4"), ("time", "<i8"), ("content", "<u4")]
)


class Claim(NamedTuple):
    """The first position of an event_id, the append time of its block (ms), and a content CRC."""

    point: Point
    time: int
    content: int


def pack(claim: Claim) -> bytes:
    """A claim as 26 bytes."""
    return _CLAIM.pack(*claim.point, claim.time, claim.content)


def unpack(value: bytes) -> Claim:
    """The claim of 26 bytes."""
    epoch, offset, index, time, content = _CLAIM.unpack(value)
    return Claim(Point(epoch, offset, index), time, content)


def pack_all(
    epoch: int,
    offset: int,
    indexes: npt.NDArray[np.uint32],
    time: int,
    contents: npt.NDArray[np.uint32],
) -> list[bytes]:
    """The claims of many events of one block, packed."""
    table = np.zeros(len(indexes), dtype=_DTYPE)
    table["epoch"], table["offset"], table["time"] = epoch, offset, time
    table["index"], table["content"] = indexes, contents
    text = table.tobytes()
    return [text[at : at + CLAIM_BYTES] for at in range(0, len(text), CLAIM_BYTES)]
