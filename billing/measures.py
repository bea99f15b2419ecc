"""What billing asks of usage, and what it gets: values, without a word of how they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from billing.aggregation import Quantity
from schemas.catalog import Feature


@dataclass(frozen=True, slots=True)
class Measure:
    """The usage of a feature by a customer over `[start, end)`, in ms since 1970.

    feature   The definition with the reset that applies.
    customer  External id; None for all customers together.
    zone      IANA zone in which buckets lie.
    length    What a WEIGHTED_SUM divides by, where that isn't `end - start` (ms).
    """

    feature: Feature
    customer: str | None
    start: int
    end: int
    zone: str = "UTC"
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """The answers to some measures, all of one moment.

    quantities  One for each measure.
    parts       Of a bucketed MAX, the greatest value of each bucket and group, in their order; they
                add up to its quantity.
    upto        Which blocks are in: the last offset of each (block epoch, block partition).
    counts      How many events each measure was made of.
    """

    quantities: Mapping[Measure, Quantity]
    parts: Mapping[Measure, tuple[Decimal, ...]] = field(default_factory=dict)
    upto: Mapping[tuple[int, int], int] = field(default_factory=dict)
    counts: Mapping[Measure, int] = field(default_factory=dict)
