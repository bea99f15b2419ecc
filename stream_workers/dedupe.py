"""Dedupe: which events of a block are the first of their id. Pure."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.position import Point
from stream_workers.claims import Claim, unpack


class Standing(IntEnum):
    """What the claims say of an event."""

    ACCEPTED = 0
    DUPLICATE = 1
    DROPPED = 2  # re-sent, but its row is superseded already: it leaves no trace


class Decision(NamedTuple):
    """Per event its standing; for duplicates, by row, the claim that was first and whether the
    content differs from it."""

    standings: npt.NDArray[np.uint8]
    first: dict[int, tuple[Point, bool]]


class Place(NamedTuple):
    """Where a block stands: topic epoch, block partition, offset, append time in ms."""

    epoch: int
    partition: int
    offset: int
    time: int


def decide(
    keys: Sequence[bytes],
    contents: Sequence[int],
    indexes: Sequence[int],
    resent: Sequence[bool] | None,
    found: Sequence[bytes | None],
    place: Place,
    horizon_ms: int,
) -> Decision:
    """Say for each event of a block, in block order, whether it is the first of its id.

    `found` holds the claims of earlier positions, and of this very block when it was folded before
    a crash: a claim at this position or later is our own; an earlier one makes the event a
    duplicate until it expires by block time. A re-sent event comes with the key of the row that it
    supersedes (`claims.resent_key`): it is dropped when another has superseded the row before.
    """
    standings = np.zeros(len(keys), dtype=np.uint8)
    first: dict[int, tuple[Point, bool]] = {}
    if resent is None and not any(found) and len(set(keys)) == len(keys):
        return Decision(standings, first)
    inside: dict[bytes, Claim] = {}
    for row, key in enumerate(keys):
        own = Point(place.epoch, place.offset, indexes[row])
        claim = inside.get(key)
        if claim is None:
            stored = found[row]
            claim = None if stored is None else unpack(stored)
            if claim is not None and (claim.point >= own or place.time - claim.time > horizon_ms):
                claim = None
        if claim is None:
            inside[key] = Claim(own, place.time, contents[row])
        elif resent is not None and resent[row]:
            standings[row] = Standing.DROPPED
        else:
            standings[row] = Standing.DUPLICATE
            first[row] = (claim.point, claim.content != contents[row])
    return Decision(standings, first)
