"""Pace: when the packer may write its next small blocks."""

import time
from collections.abc import Callable

BURST_S = 0.4
BUSY_ROWS = 20_000


class Pace:
    """Lets blocks go at once after a quiet spell, and no more than so many a second after that.

    An INSERT of three rows costs the engine as much as one of a thousand: so a few small events are
    answered in milliseconds, while a steady trickle shares its blocks, waiting `linger_s` at most.
    A token bucket: each block takes a token, `per_s` come back each second.
    """

    def __init__(
        self, per_s: float, linger_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._linger_s = linger_s
        self._clock = clock
        self._capacity = per_s * BURST_S
        self._tokens = self._capacity
        self._filled_at = clock()
        self._first_at: float | None = None

    def may_go(self, rows: int, still_coming: bool) -> bool:
        """Whether what is gathered should be written now.

        While records keep coming with tokens left, one more look at the log costs nothing; when
        the tokens are used up, the first row waits `linger_s` at the most.
        """
        now = self._clock()
        self._fill(now)
        if self._first_at is None:
            self._first_at = now
        if rows >= BUSY_ROWS:
            return True
        if self._tokens >= 1:
            return not still_coming or now - self._first_at >= 0.005
        return now - self._first_at >= self._linger_s

    def wait_ms(self) -> int:
        """How long to wait for more records before asking again."""
        now = self._clock()
        self._fill(now)
        if self._tokens >= 1:
            return 0
        needed = (1 - self._tokens) / self._per_s
        left = self._linger_s - (now - (self._first_at or now))
        return max(1, int(min(needed, left) * 1000))

    def went(self, blocks: int) -> None:
        """Note that blocks were written."""
        self._fill(self._clock())
        self._tokens = max(self._tokens - blocks, -self._capacity)
        self._first_at = None

    def _fill(self, now: float) -> None:
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._per_s)
        self._filled_at = now
