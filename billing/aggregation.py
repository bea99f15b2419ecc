"""From the state of a feature's events to its quantity. Pure, and exact: no float, one division.

The formulas are the table "Aggregations" in the semantics.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, Inexact
from typing import Self

from schemas.catalog import Aggregation, Feature

SHOWN_DIGITS = 18
EXACT = Context(prec=300, traps=[Inexact])
"""For sums and products: 58 digits of a sum, 13 of a time, 38 of a multiplier; never rounds."""
DIVISION = Context(prec=150, rounding=ROUND_HALF_EVEN)
_SHOWN = Context(prec=300, rounding=ROUND_HALF_UP)
_QUANTUM = Decimal(1).scaleb(-SHOWN_DIGITS)
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class State:
    """What is kept of the events of a span; v is an event's value, t its time in ms since 1970.

    A level that is never reset counts what came before the span as well; its sum stands apart.

    count         Number of events.
    value_sum     Σ v of the span; of a bucketed MAX, the sum of its buckets' greatest.
    time_sum      Σ v·t of the span.
    before_sum    Σ v of what came before the span, when that counts.
    value_max     Greatest v.
    latest        v of the last event, when it is a number; else `latest_text`.
    unique_count  Distinct values.
    """

    count: int = 0
    value_sum: Decimal = ZERO
    time_sum: Decimal = ZERO
    before_sum: Decimal = ZERO
    value_max: Decimal = ZERO
    latest: Decimal | None = None
    latest_text: str | None = None
    unique_count: int = 0

    @property
    def level(self) -> Decimal:
        """Σ v of all that counts."""
        return EXACT.add(self.before_sum, self.value_sum)


@dataclass(frozen=True, slots=True)
class Quantity:
    """How much was used: `numerator / denominator`, kept apart so that comparisons are exact.

    A null quantity (AVG, MAX, LATEST of no events, LATEST of a text) has no numerator.
    """

    numerator: Decimal | None
    denominator: int = 1
    text: str | None = None

    @property
    def value(self) -> Decimal | None:
        """The quotient, divided once; null stays None."""
        if self.numerator is None or self.denominator == 1:
            return self.numerator
        return DIVISION.divide(self.numerator, Decimal(self.denominator))

    @property
    def shown(self) -> Decimal | None:
        """The value without trailing zeros; a quotient with at most 18 places, half up."""
        value = self.value
        if value is not None and self.denominator != 1:
            value = _SHOWN.quantize(value, _QUANTUM)
        if value is None:
            return None
        return value.normalize(_SHOWN) if value else ZERO

    @classmethod
    def of(cls, number: Decimal | int) -> Self:
        """A quantity that is no quotient."""
        return cls(Decimal(number))


NULL = Quantity(None)


def plain(number: Decimal) -> str:
    """A shown quantity as text: plain decimal, which is a JSON number as well."""
    return f"{number:f}"


def quantity(
    feature: Feature, state: State, start: int, end: int, length: int | None = None
) -> Quantity:
    """The quantity of a feature over `[start, end)` from the state of its events there.

    `length` is what a WEIGHTED_SUM divides by where that isn't `end - start`: the whole billing
    period, of which a subscription may have held a part.
    """
    match feature.aggregation:
        case Aggregation.COUNT:
            return Quantity.of(state.count)
        case Aggregation.SUM:
            return Quantity.of(state.level)
        case Aggregation.COUNT_UNIQUE:
            return Quantity.of(state.unique_count)
        case Aggregation.AVG:
            return Quantity(state.level, state.count) if state.count else NULL
        case Aggregation.SUM_WITH_MULTIPLIER:
            if feature.multiplier is None:
                raise ValueError(f"{feature.id}: SUM_WITH_MULTIPLIER without a multiplier")
            return Quantity.of(EXACT.multiply(feature.multiplier, state.level))
        case Aggregation.LATEST:
            return Quantity(state.latest, text=state.latest_text) if state.count else NULL
        case Aggregation.MAX if feature.bucket_size is not None:
            return Quantity.of(state.value_sum)
        case Aggregation.MAX:
            return Quantity.of(state.value_max) if state.count else NULL
        case Aggregation.WEIGHTED_SUM:
            # Σ v·(end − t) = end·Σ v − Σ v·t; what came before weighs end − start.
            within = EXACT.subtract(EXACT.multiply(state.value_sum, Decimal(end)), state.time_sum)
            before = EXACT.multiply(state.before_sum, Decimal(end - start))
            return Quantity(EXACT.add(within, before), length or end - start)
