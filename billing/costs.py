"""What parts of a period's usage cost, for analytics: windows and groups. Pure, unrounded.

The cost of a window is what the period comes to up to its end, less what it comes to up to its
start; so the windows of a period add up to its line before rounding, whatever tiers and limits do.
"""

from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from itertools import pairwise

from billing.charges import Basis, Charge, due, measures
from billing.measures import Measure, Measured
from billing.pricing import NOTHING
from schemas.catalog import ADDITIVE, Aggregation, Feature

SHARED = ADDITIVE | {Aggregation.WEIGHTED_SUM}
"""Aggregations whose groups add up to the whole."""


def cost_measures(basis: Basis, charge: Charge, edges: Sequence[datetime]) -> list[Measure]:
    """What has to be measured to know a charge's `costs` between these edges, each measure once."""
    cuts = [basis.until(edge) for edge in edges if edge > basis.period.start]
    return list(dict.fromkeys(measure for cut in cuts for measure in measures(cut, charge)))


def costs(
    basis: Basis, charge: Charge, edges: Sequence[datetime], measured: Measured
) -> list[Fraction]:
    """What a charge costs between each edge and the next; ascending, within the period.

    A level that came before the period is part of the first window that begins with it.
    """
    upto = [
        due(basis.until(edge), charge, measured).amount if edge > basis.period.start else NOTHING
        for edge in edges
    ]
    return [later - earlier for earlier, later in pairwise(upto)]


def shares(feature: Feature, cost: Fraction, usages: Sequence[Fraction]) -> list[Fraction | None]:
    """What of a cost falls on each group, by its usage; None where that can't be said.

    It can't where groups don't add up to the whole (a distinct value may be in two), nor where they
    come to 0 while something is to be paid.
    """
    total = sum(usages, NOTHING)
    if feature.aggregation not in SHARED or (cost and not total):
        return [None] * len(usages)
    return [cost * usage / total if total else NOTHING for usage in usages]
