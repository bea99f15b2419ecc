"""A block partition's balance: what it took from the source logs, and the rows that this makes."""

import msgspec

from schemas.position import Log


class Balance(msgspec.Struct, frozen=True):
    """Running totals of a block partition, from its first block on; each block's marker has them.

    taken  By source log, the events and dead letters taken from it, each position once.
    rows   What `events` has to hold of the partition: a row for each of them but re-sent events
           whose row was superseded already, and a marker for each block.
    """

    taken: dict[Log, int]
    rows: int

    def with_block(self, taken: dict[Log, int], rows: int) -> "Balance":
        """The totals with a block's own added."""
        total = dict(self.taken)
        for log, count in taken.items():
            total[log] = total.get(log, 0) + count
        return Balance(total, self.rows + rows)

    def to_text(self) -> str:
        """As JSON: a marker's `detail`."""
        return _encoder.encode(_Text(sorted(self.taken.items()), self.rows)).decode()

    @classmethod
    def from_text(cls, text: str) -> "Balance | None":
        """Of a marker's `detail`; None where a counter that kept no balance wrote it ("")."""
        if not text:
            return None
        read = _decoder.decode(text.encode())
        return cls(dict(read.taken), read.rows)


class _Text(msgspec.Struct):
    taken: list[tuple[Log, int]]
    rows: int


NOTHING = Balance({}, 0)
"""Of a partition before its first block."""
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Text)
