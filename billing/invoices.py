"""A period's invoice, and what late usage changes about it afterwards. Pure.

`needed` says what has to be measured, for one period or many; `bill` computes the invoice; `adjust`
computes a closed one again with what is known now. An invoice holds the basis that it was computed
on, so what it comes to can be found again from usage alone.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import reduce

import msgspec

from billing.aggregation import EXACT, SHOWN_DIGITS, ZERO
from billing.charges import Basis, Charge, Due, due, measures, reach
from billing.measures import Measure, Measured
from billing.pricing import rounded
from schemas.catalog import Aggregation

TEXT_QUANTITY = "text_quantity"
"""Warning of a line whose LATEST is a text: it can't be priced and costs nothing."""

QUOTIENTS = frozenset({Aggregation.AVG, Aggregation.WEIGHTED_SUM})
"""Aggregations that divide; what comes of them is shown with 18 places."""


class Mark(msgspec.Struct, frozen=True):
    """How far the log was counted in one block partition: up to this offset, inclusive."""

    block_epoch: int
    block_partition: int
    block_offset: int


class Step(msgspec.Struct, frozen=True):
    """What a tier holds of a line's billable quantity, and its unrounded amount."""

    up_to: int | None
    quantity: Decimal
    amount: Decimal


class Line(msgspec.Struct, frozen=True):
    """What one price comes to in a period.

    usage     As every usage query says it; None where that is null.
    text      The LATEST that is a text.
    free      What the limit kept from being billed, in the feature's unit.
    billable  What is priced; 0 where all is free.
    counted   The billable quantity with its unit: "5 credits".
    amount    Rounded once, to the currency's precision.
    steps     Of a tiered price.
    """

    price_id: str
    feature_id: str
    meter_id: str
    display_name: str
    usage: Decimal | None
    text: str | None
    free: Decimal
    billable: Decimal
    counted: str
    amount: Decimal
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()


class Late(msgspec.Struct, frozen=True):
    """Which events made an adjustment: a feature's and customer's, by their times and positions.

    start, end   Of their timestamps, half-open.
    after, upto  Their blocks lie behind the first marks and not behind the second.
    """

    feature_id: str
    external_customer_id: str
    start: datetime
    end: datetime
    after: tuple[Mark, ...]
    upto: tuple[Mark, ...]


class Adjustment(msgspec.Struct, frozen=True):
    """What late usage changed about a closed period's price.

    invoice_id  The closed invoice.
    line        What its line comes to now.
    amount      That, less all that was billed for it before; never 0.
    """

    invoice_id: str
    period_start: datetime
    period_end: datetime
    line: Line
    amount: Decimal
    late: Late


class Invoice(msgspec.Struct, frozen=True):
    """What a period comes to.

    total  The sum of the lines and adjustments.
    upto   What was counted in.
    """

    basis: Basis
    lines: tuple[Line, ...]
    adjustments: tuple[Adjustment, ...]
    total: Decimal
    upto: tuple[Mark, ...]


def needed(*bases: Basis) -> list[Measure]:
    """All that has to be measured to bill some periods, each measure once."""
    return list(
        dict.fromkeys(
            measure for one in bases for charge in one.charges for measure in measures(one, charge)
        )
    )


def bill(basis: Basis, measured: Measured, adjustments: Sequence[Adjustment] = ()) -> Invoice:
    """The invoice of a period: a line for each price, also at 0, and adjustments of earlier ones.

    On a basis without charges it is one of adjustments only, after the last period. Raises KeyError
    where something that was `needed` is missing.
    """
    lines = tuple(_line(basis, charge, measured) for charge in basis.charges)
    return Invoice(
        basis=basis,
        lines=lines,
        adjustments=tuple(adjustments),
        total=total_of([*lines, *adjustments], basis.digits),
        upto=_marks(measured),
    )


def adjust(
    invoice_id: str, closed: Invoice, earlier: Iterable[Adjustment], measured: Measured
) -> tuple[Adjustment, ...]:
    """What a closed invoice's lines come to now, less all that was billed for them.

    `earlier` are all adjustments so far, in the order of their invoices; those of other invoices
    are passed over. `measured` answers what its basis needed. A price without a difference has no
    adjustment, and its late events go with the next that has one.
    """
    billed = {line.price_id: line.amount for line in closed.lines}
    counted = {line.price_id: closed.upto for line in closed.lines}
    for one in earlier:
        if one.invoice_id == invoice_id:
            price = one.line.price_id
            billed[price] = EXACT.add(billed[price], one.amount)
            counted[price] = one.late.upto
    basis = closed.basis
    found = []
    for charge in basis.charges:
        line = _line(basis, charge, measured)
        amount = EXACT.subtract(line.amount, billed[line.price_id])
        if amount:
            start, end = reach(basis, charge)
            late = Late(
                feature_id=charge.feature.id,
                external_customer_id=basis.subscription.external_customer_id,
                start=start,
                end=end,
                after=counted[line.price_id],
                upto=_marks(measured),
            )
            period = basis.period
            found.append(Adjustment(invoice_id, period.start, period.end, line, amount, late))
    return tuple(found)


def total_of(items: Iterable[Line | Adjustment], digits: int) -> Decimal:
    """The sum of what lines and adjustments come to; also 0 has the currency's digits."""
    return reduce(EXACT.add, (one.amount for one in items), rounded(Fraction(0), digits))


def stored(invoice: Invoice) -> bytes:
    """An invoice as JSON, with everything that it was computed with."""
    return msgspec.json.encode(invoice, order="deterministic")


def restored(text: bytes | str) -> Invoice:
    """The invoice from its JSON, equal to what was stored. Raises msgspec.ValidationError."""
    return msgspec.json.decode(text, type=Invoice)


def shown(value: Fraction, *, is_quotient: bool) -> Decimal:
    """A fraction as a decimal without trailing zeros; a quotient half up to 18 places.

    What isn't a quotient has to end after some places; it keeps all of them.
    """
    if is_quotient:
        number = rounded(value, SHOWN_DIGITS)
    else:
        number = EXACT.divide(Decimal(value.numerator), Decimal(value.denominator))
    return number.normalize(EXACT) if number else ZERO


def _line(basis: Basis, charge: Charge, measured: Measured) -> Line:
    found = due(basis, charge, measured)
    is_quotient = charge.feature.aggregation in QUOTIENTS
    billable = shown(found.billable, is_quotient=is_quotient)
    price = charge.price
    return Line(
        price_id=price.id,
        feature_id=charge.feature.id,
        meter_id=charge.feature.meter_id,
        display_name=price.display_name,
        usage=found.usage.shown,
        text=found.usage.text,
        free=shown(found.free, is_quotient=is_quotient),
        billable=billable,
        counted=charge.unit.counted(billable),
        amount=rounded(found.amount, basis.digits),
        steps=_steps(found, is_quotient),
        warnings=(TEXT_QUANTITY,) if found.usage.text is not None else (),
    )


def _steps(found: Due, is_quotient: bool) -> tuple[Step, ...]:
    return tuple(
        Step(
            up_to=one.up_to,
            quantity=shown(one.quantity, is_quotient=is_quotient),
            amount=shown(one.amount, is_quotient=is_quotient),
        )
        for one in found.slices
    )


def _marks(measured: Measured) -> tuple[Mark, ...]:
    return tuple(Mark(*place, offset) for place, offset in sorted(measured.upto.items()))
