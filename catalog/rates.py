"""How often something happened within a minute, and whether it may happen once more.

A window of two counters slides: the minute that runs counts whole, the one before it by the share
of it that lies less than sixty seconds back. So the turn of a minute gives no second helping, for
two numbers a key, and what was idle for two minutes is forgotten.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

WINDOW_S = 60


class Standing(NamedTuple):
    """What was counted: in the window before, in the one that runs, and the seconds left of it."""

    previous: int
    current: int
    left_s: float

    def allows(self, limit: int) -> bool:
        """Whether one more keeps to the limit."""
        return self.current + int(self.previous * self.left_s / WINDOW_S) < limit

    def wait_s(self, limit: int) -> float:
        """After how many seconds without any more one is allowed again; 0 when it is now."""
        if self.allows(limit):
            return 0.0
        room = limit - self.current
        if room > 0:
            return self.left_s - WINDOW_S * room / self.previous
        return self.left_s + WINDOW_S - WINDOW_S * limit / self.current


class Minutes:
    """Counts of this process, on its monotonic clock; for one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = clock() + WINDOW_S
        self._current: dict[str, int] = {}
        self._previous: dict[str, int] = {}

    def hit(self, what: str, limit: int) -> Standing | None:
        """Count one, and None; or the standing that has no room for it, which counts nothing."""
        standing = self.standing(what)
        if not standing.allows(limit):
            return standing
        self._current[what] = standing.current + 1
        return None

    def standing(self, what: str) -> Standing:
        """What was counted of this."""
        left_s = self._ends - self._clock()
        if left_s <= 0:
            left_s = self._turn(-left_s)
        return Standing(self._previous.get(what, 0), self._current.get(what, 0), left_s)

    def __len__(self) -> int:
        """How many different things the running window has counted."""
        return len(self._current)

    def _turn(self, late_s: float) -> float:
        """Begin the window that runs now; the seconds left of it."""
        self._previous = self._current if late_s < WINDOW_S else {}
        self._current = {}
        left_s = WINDOW_S - late_s % WINDOW_S
        self._ends = self._clock() + left_s
        return left_s
