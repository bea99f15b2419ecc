"""Which invoice line an event is in: its period's own, or the adjustment that it came late for."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from billing.charges import Basis
from billing.invoices import Adjustment, adjust, bill, needed, stored
from catalog.invoice_tables import InvoiceRow
from console.invoiced import invoiced_on
from tests.billing.metering import event, measure
from tests.billing.sold import at, make_basis

EVENTS = [
    replace(event("2025-01-10", 100), position=1),
    replace(event("2025-01-20", 100), position=2),
]
JANUARY = make_basis()
FEBRUARY = make_basis(moment="2025-02-05")


def row(number: int, basis: Basis, upto: int, adjustments: tuple[Adjustment, ...] = ()) -> Any:
    """A closed invoice, counted up to a block of partition 0."""
    invoice = bill(basis, measure(needed(basis), EVENTS, upto=upto), adjustments)
    return InvoiceRow(
        id=f"inv_{number}",
        number=number,
        period_start=basis.period.start,
        period_end=basis.period.end,
        total=Decimal(0),
        content=stored(invoice).decode(),
        late=[1] * len(adjustments),
    )


def late() -> tuple[Adjustment, ...]:
    closed = bill(JANUARY, measure(needed(JANUARY), EVENTS, upto=1))
    found = adjust("inv_1", closed, (), measure(needed(JANUARY), EVENTS, upto=2))
    assert found
    return found


CLOSED = [row(1, JANUARY, 1), row(2, FEBRUARY, 2, late())]


@pytest.mark.parametrize(
    ("offset", "line"),
    [(0, "inv_1.line.1"), (1, "inv_1.line.1"), (2, "inv_2.adjustment.1"), (3, None)],
)
def test_an_event_is_where_its_block_was_counted_in(offset: int, line: str | None) -> None:
    found = invoiced_on(CLOSED, "feat_1", at("2025-01-10"), (0, 0, offset))
    assert (None if found is None else found["line_id"]) == line
    if found is not None:
        assert found["adjustment"] == (".adjustment." in found["line_id"])
        assert found["invoice_number"] == f"INV-{found['invoice_id'][-1]:0>6}"


@pytest.mark.parametrize(
    ("feature", "block"), [("feat_2", (0, 0, 1)), ("feat_1", (0, 1, 1)), ("feat_1", (1, 0, 1))]
)
def test_other_features_partitions_and_epochs_are_in_no_line(
    feature: str, block: tuple[int, int, int]
) -> None:
    assert invoiced_on(CLOSED, feature, at("2025-01-10"), block) is None


def test_a_period_that_is_not_closed_has_no_line() -> None:
    assert invoiced_on([], "feat_1", at("2025-01-10"), (0, 0, 0)) is None
    assert invoiced_on(CLOSED[1:], "feat_1", at("2025-01-10"), (0, 0, 0)) is None
