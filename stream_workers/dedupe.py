"""Dedupe: which events of a block are the first of their id. Pure."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_workers.claims import Keys, Rows, Table, claims_at, is_there, stands_before


class Standing(IntEnum):
    """What the claims say of an event."""

    ACCEPTED = 0
    DUPLICATE = 1
    DROPPED = 2  # re-sent, but its row is superseded already: it leaves no trace


class Decision(NamedTuple):
    """Per event its standing; for duplicates the claim that was first, and whether the content
    differs from it."""

    standings: npt.NDArray[np.uint8]
    first: Table
    differs: npt.NDArray[np.bool_]


class Place(NamedTuple):
    """Where a block stands: topic epoch, block partition, offset, append time in ms."""

    epoch: int
    partition: int
    offset: int
    time: int


def decide(
    keys: Keys,
    contents: npt.NDArray[np.uint32],
    indexes: npt.NDArray[np.uint32],
    resent: npt.NDArray[np.bool_] | None,
    found: Table,
    place: Place,
    horizon_ms: int,
    order: Rows,
) -> Decision:
    """Say for each event of a block, in block order, whether it is the first of its id.

    `found` holds the claims of earlier positions, and of this very block when it was folded before
    a crash: a claim at this position or later is our own; an earlier one makes the event a
    duplicate until it expires by block time. A re-sent event comes with the key of the row that it
    supersedes (`claims.resent_key`): it is dropped when another has superseded the row before.
    `order` sorts the events by the heads of their keys.
    """
    stored = (
        is_there(found)
        & stands_before(found, place.epoch, place.offset, indexes)
        & (place.time - found["time"] <= horizon_ms)
    )
    first, taken = found, stored
    firsts = keys.firsts(order)
    if firsts is not None:  # an id that comes twice has one claim: the stored one, or its first's
        stored = stored[firsts]
        inside = claims_at(place.epoch, place.offset, indexes[firsts], place.time, contents[firsts])
        first = np.where(stored, found[firsts], inside)
        taken = stored | (firsts != np.arange(len(keys)))
    standings = np.where(taken, Standing.DUPLICATE, Standing.ACCEPTED).astype(np.uint8)
    if resent is not None:
        standings[taken & resent] = Standing.DROPPED
    return Decision(standings, first, taken & (first["content"] != contents))
