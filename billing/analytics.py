"""What the usage of a feature cost over some ranges, and in groups. Pure, unrounded.

A range may reach over several periods, of several subscriptions: each bills its part.
"""

from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

from billing.aggregation import Quantity
from billing.charges import Basis, Charge, exact
from billing.costs import cost_measures, costs, shares
from billing.measures import Measure, Measured
from billing.pricing import NOTHING
from billing.windows import Ranges, to_datetime
from schemas.catalog import Feature


class Billed(NamedTuple):
    """A period in which a price bills a feature."""

    basis: Basis
    charge: Charge


def measures_of(billed: Sequence[Billed], ranges: Ranges) -> list[Measure]:
    """What has to be measured for `costs_of`."""
    return [
        measure
        for basis, charge in billed
        for measure in cost_measures(basis, charge, _edges(basis, ranges))
    ]


def costs_of(billed: Sequence[Billed], ranges: Ranges, measured: Measured) -> list[Fraction]:
    """What each range costs, over all periods that it touches."""
    found = [NOTHING] * len(ranges)
    for basis, charge in billed:
        edges = _edges(basis, ranges)
        sums = accumulate(costs(basis, charge, edges, measured), initial=NOTHING)
        upto = dict(zip(edges, sums, strict=True))
        for place, (start, end) in enumerate(ranges):
            found[place] += upto[_within(basis, end)] - upto[_within(basis, start)]
    return found


def group_costs(
    feature: Feature,
    costs: Sequence[Fraction],
    wholes: Sequence[Quantity],
    groups: Sequence[Sequence[Quantity]],
) -> list[list[Fraction | None]]:
    """What each range of each group costs: its share of the range's cost, by usage.

    `costs` and `wholes` are of the ranges, each of `groups` has its quantities over these. What no
    group has (events that a filter leaves out) takes its share as well.
    """
    found: list[list[Fraction | None]] = [[] for _ in groups]
    for place, (cost, whole) in enumerate(zip(costs, wholes, strict=True)):
        usages = [exact(group[place]) for group in groups]
        rest = exact(whole) - sum(usages, NOTHING)
        for each, share in zip(found, shares(feature, cost, [*usages, rest]), strict=False):
            each.append(share)
    return found


def _within(basis: Basis, ms: int) -> datetime:
    """A moment, moved to the nearest one of the period."""
    return min(max(to_datetime(ms), basis.period.start), basis.period.end)


def _edges(basis: Basis, ranges: Ranges) -> list[datetime]:
    return sorted({_within(basis, edge) for each in ranges for edge in each})
