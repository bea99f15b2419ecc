"""Coverage against a set of integers."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.position import Log
from stream_workers.coverage import Spans, add, covers, extended, from_text, holds, to_text

LOG = Log("events.acme", 1, 3)
RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12)


def covered(ranges: list[tuple[int, int]]) -> Spans:
    spans: Spans = ()
    for start, stop in ranges:
        spans = add(spans, start, stop)
    return spans


@given(RANGES)
def test_spans_hold_what_was_added_and_nothing_else(ranges: list[tuple[int, int]]) -> None:
    spans = covered(ranges)
    model = {place for start, stop in ranges for place in range(start, stop)}
    assert {place for place in range(35) if holds(spans, place)} == model
    every = np.arange(35, dtype=np.uint64)
    assert set(every[covers(spans, every)].tolist()) == model


@given(RANGES)
def test_spans_are_sorted_and_never_touch(ranges: list[tuple[int, int]]) -> None:
    spans = covered(ranges)
    assert all(start < stop for start, stop in spans)
    assert all(a[1] < b[0] for a, b in pairwise(spans))


@given(RANGES)
def test_a_coverage_survives_its_text(ranges: list[tuple[int, int]]) -> None:
    coverage = extended({}, ((LOG, start, stop) for start, stop in ranges))
    assert from_text(to_text(coverage)) == coverage


def test_places_beyond_63_bits_are_compared_exactly() -> None:
    high = (1 << 63) + 5
    spans: Spans = ((high, high + 2),)
    places = np.array([high - 1, high, high + 1, high + 2], dtype=np.uint64)
    assert covers(spans, places).tolist() == [False, True, True, False]
    assert [holds(spans, int(place)) for place in places] == [False, True, True, False]


def test_adding_leaves_the_coverage_before_it_alone() -> None:
    before = extended({}, [(LOG, 0, 5)])
    extended(before, [(LOG, 5, 9)])
    assert before == {LOG: ((0, 5),)}
