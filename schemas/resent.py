"""A stored event on its way through the log again: what the console writes to `resent`."""

import msgspec

from schemas.position import Log, Point


class Resent(msgspec.Struct, frozen=True):
    """One stored event with its original identity, times and position, and the row it supersedes.

    `superseded` is the row's (block epoch, block offset, block index): the counter takes the event
    as the first for that row, so sending it twice leaves no second one.
    """

    account: str
    event_id: str
    event_name: str
    external_customer_id: str
    timestamp: int
    timestamp_given: bool
    ingested_at: int
    source: str
    properties: str
    home: Log
    home_position: int
    superseded: Point


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Resent])


def encode(events: list[Resent]) -> bytes:
    """Re-sent events as the value of one Kafka record."""
    return _encoder.encode(events)


def decode(value: bytes) -> list[Resent]:
    """The re-sent events of a record. Raises msgspec.MsgspecError."""
    return _decoder.decode(value)
