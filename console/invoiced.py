"""Which line of a subscription's closed invoices an event is in. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from billing.invoices import Late, Mark, restored
from catalog.invoice_tables import InvoiceRow
from console.invoices import line_id

Block = tuple[int, int, int]
"""A block's epoch, partition and offset."""


def invoiced_on(
    closed: Sequence[InvoiceRow], feature_id: str, at: datetime, block: Block
) -> dict[str, Any] | None:
    """The line that an event of a feature is in, by its time and its block; None: not yet in any.

    `closed` are the invoices of periods that end after its time, in their order. The period's own
    has it, unless it was counted after that was closed: then it is in the adjustment of a later
    one.
    """
    if not closed or closed[0].period_start > at:
        return None
    own = restored(closed[0].content)
    for place, line in enumerate(own.lines):
        if line.feature_id == feature_id and _counted(own.upto, block):
            return _line(closed[0], place, "line")
    for row in closed[1:]:
        for place, one in enumerate(restored(row.content).adjustments):
            if _holds(one.late, feature_id, at, block):
                return _line(row, place, "adjustment")
    return None


def _holds(late: Late, feature_id: str, at: datetime, block: Block) -> bool:
    in_range = late.feature_id == feature_id and late.start <= at < late.end
    return in_range and _counted(late.upto, block) and not _counted(late.after, block)


def _counted(upto: Sequence[Mark], block: Block) -> bool:
    """Whether a block was counted when the log was counted up to some marks."""
    epoch, partition, offset = block
    return any(
        mark.block_epoch == epoch
        and mark.block_partition == partition
        and offset <= mark.block_offset
        for mark in upto
    )


def _line(row: InvoiceRow, place: int, kind: str) -> dict[str, Any]:
    return {
        "invoice_id": row.id,
        "invoice_number": row.invoice_number,
        "line_id": line_id(row.id, place, kind),
        "adjustment": kind == "adjustment",
    }
