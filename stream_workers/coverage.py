"""Coverage: which positions of the source logs a block partition already holds.

A source log is covered by a set of half-open ranges, normally one. It is a set rather than a
high-water mark because a later send of the packer can land after an earlier one failed.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.position import Log

Spans = tuple[tuple[int, int], ...]
Coverage = Mapping[Log, Spans]
"""Sorted, disjoint, non-touching spans `[start, stop)` of each log."""


def covers(spans: Spans, positions: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Say for each position whether it lies inside one of the spans."""
    if not spans:
        return np.zeros(len(positions), dtype=bool)
    starts = np.array([start for start, _ in spans], dtype=np.uint64)
    stops = np.array([stop for _, stop in spans], dtype=np.uint64)
    at = np.searchsorted(starts, positions, side="right")
    inside: npt.NDArray[np.bool_] = (at > 0) & (positions < stops[np.maximum(at, 1) - 1])
    return inside


def add(spans: Spans, start: int, stop: int) -> Spans:
    """The spans with `[start, stop)` added, touching ones joined."""
    if start >= stop:
        return spans
    before = [span for span in spans if span[1] < start]
    after = [span for span in spans if span[0] > stop]
    touched = spans[len(before) : len(spans) - len(after)]
    if touched:
        start, stop = min(start, touched[0][0]), max(stop, touched[-1][1])
    return (*before, (start, stop), *after)


def extended(coverage: Coverage, ranges: Iterable[tuple[Log, int, int]]) -> Coverage:
    """A new coverage with the ranges of a block added."""
    result = dict(coverage)
    for log, start, stop in ranges:
        result[log] = add(result.get(log, ()), start, stop)
    return result


def holds(spans: Spans, place: int) -> bool:
    """Whether one position lies inside the spans."""
    at = bisect_right(spans, (place, 1 << 64))
    return at > 0 and place < spans[at - 1][1]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[tuple[Log, Spans]])


def to_text(coverage: Coverage) -> str:
    """A coverage as JSON, as a block's marker keeps it."""
    return _encoder.encode(sorted(coverage.items())).decode()


def from_text(text: str) -> Coverage:
    """The coverage of a marker's JSON."""
    return dict(_decoder.decode(text.encode()))
