"""How far the log is counted: watermarks from samples of positions. Pure.

A sample is taken at a moment t: where each source topic ends, then how far the packer has
committed, then where the blocks end, then which are counted. What was received before t lies below
those ends; once the packer's commits are beyond them, it lies in blocks below where blocks end
then; once those are counted, so is everything received before t. No clock of a producer is asked.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from schemas.bookmark import Bookmark
from schemas.position import Log

T = TypeVar("T")
WAITING_MAX = 512
"""Samples that wait; beyond that every other one is forgotten, and the watermark moves in steps."""

Ends = Mapping[int, int]
"""By partition, the offset that comes next."""


class Sample(NamedTuple):
    """Positions, read in the order of these fields, the first after `at` (ms since 1970).

    sources    By topic and partition, where the log ends.
    packed     The same, where the packer reads on after a restart.
    blocks     By partition, where the blocks end; `counted`, the block to be counted next.
    bookmarks  By source log, what the packer's commit says beside its offset.
    """

    at: int
    sources: Mapping[str, Ends]
    packed: Mapping[str, Ends]
    blocks: Ends
    counted: Ends
    bookmarks: Mapping[Log, Bookmark] = MappingProxyType({})

    def records_waiting(self, topic: str) -> int:
        """Records of a topic that the packer has not packed."""
        packed = self.packed.get(topic, {})
        return sum(max(0, end - packed.get(p, 0)) for p, end in self.sources[topic].items())

    def blocks_waiting(self) -> int:
        """Blocks that are not counted."""
        return sum(max(0, end - self.counted.get(p, 0)) for p, end in self.blocks.items())

    def has_counted(self, blocks: Ends) -> bool:
        """Whether all blocks below these ends are counted."""
        return _reached(blocks, self.counted)


class Mark(NamedTuple):
    """Everything received before a moment (ms), which all lies below these ends."""

    at: int
    ends: Ends


@dataclass(slots=True)
class _Topic:
    """The samples of one topic that wait to be packed, and those that wait to be counted."""

    unpacked: deque[Mark] = field(default_factory=deque)
    uncounted: deque[tuple[Mark, Ends]] = field(default_factory=deque)
    packed: Mark | None = None
    counted: Mark | None = None

    def take_in(self, sample: Sample, topic: str) -> None:
        self.unpacked.append(Mark(sample.at, sample.sources[topic]))
        packed = sample.packed.get(topic, {})
        while self.unpacked and _reached(self.unpacked[0].ends, packed):
            self.packed = self.unpacked.popleft()
        if self.packed is not None:
            self.uncounted.append((self.packed, sample.blocks))
        while self.uncounted and _reached(self.uncounted[0][1], sample.counted):
            self.counted = self.uncounted.popleft()[0]
        _thin(self.unpacked)
        _thin(self.uncounted)


def _thin(waiting: "deque[T]") -> None:
    """Forget every other one of too many that wait; the first stays."""
    if len(waiting) > WAITING_MAX:
        kept = [each for place, each in enumerate(waiting) if place % 2 == 0]
        waiting.clear()
        waiting.extend(kept)


def _reached(wanted: Ends, position: Ends) -> bool:
    return all(position.get(partition, 0) >= end for partition, end in wanted.items())


@dataclass(slots=True)
class Watermarks:
    """For each source topic, the moment before which everything received is packed, and counted."""

    _topics: dict[str, _Topic] = field(default_factory=dict)

    def take_in(self, sample: Sample) -> None:
        """Take in the next sample; topics that are gone are forgotten."""
        for topic in [topic for topic in self._topics if topic not in sample.sources]:
            del self._topics[topic]
        for topic in sample.sources:
            if topic not in self._topics:
                self._topics[topic] = _Topic()
            self._topics[topic].take_in(sample, topic)

    def packed(self, topic: str) -> Mark | None:
        """Up to where everything in the topic is packed; None: unknown."""
        known = self._topics.get(topic)
        return None if known is None else known.packed

    def counted(self, topic: str) -> Mark | None:
        """Up to where everything in the topic is counted; None: unknown."""
        known = self._topics.get(topic)
        return None if known is None else known.counted
