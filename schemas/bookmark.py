"""The packer's bookmark: what its commit says beside an offset. The console reads it as well."""

from typing import Protocol
from zlib import crc32

import msgspec


class Read(Protocol):
    """What a bookmark needs of a Kafka record."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...


class Bookmark(msgspec.Struct, frozen=True):
    """The last record read of a source partition, as the commit's metadata keeps it.

    epoch   How often the topic was made anew.
    events  How many events and dead letters the records of this epoch hold, up to this one; None
            where a packer that didn't count read some of them.
    """

    epoch: int
    offset: int
    timestamp: int
    crc: int
    events: int | None = None

    @classmethod
    def after(cls, epoch: int, record: Read, events: int | None = None) -> "Bookmark":
        """The bookmark behind a record."""
        return cls(epoch, record.offset, record.timestamp, crc32(record.value or b""), events)

    def to_text(self) -> str:
        """As JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_text(cls, text: str) -> "Bookmark | None":
        """From JSON; None where somebody else wrote the commit."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
