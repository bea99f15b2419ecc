"""Pace: when the packer may write what it has gathered."""

import time
from collections.abc import Callable

BURST_S = 0.4
FULL_ROWS = 64_000
"""So many rows never wait: larger blocks cost hardly less a row."""
BUSY_ROWS_PER_S = 10_000
BUSY_LINGER_S = 0.5
LOOK_BACK_S = 0.5
LAG_FREE_S = 3.0
"""What looks like lag while the counter keeps up: it commits, and is asked, once a second."""
LAG_SHARE = 0.25
LAG_LINGER_MAX_S = 5.0
LAG_LOOK_S = 1.0
"""How long it is waited before the lag is looked at again."""


class Pace:
    """Lets blocks go at once after a quiet spell, fewer of them in a trickle, large ones when busy.

    An INSERT of three rows costs the engine as much as one of a thousand: so a few small events are
    answered in milliseconds, while a steady trickle shares its blocks, waiting `linger_s` at most.
    A token bucket: each block takes a token, `per_s` come back each second. And a row costs half in
    a block of ten thousand of what it does in one of five (inserted, aggregated and merged), so
    from BUSY_ROWS_PER_S on blocks wait for FULL_ROWS, BUSY_LINGER_S at most.

    Behind blocks that wait to be counted (`lag_s` tells for how long they have) a new one is no use
    to anybody yet: it waits a quarter as long, LAG_LINGER_MAX_S at most. So what gathers while the
    store is away is counted at the speed of large blocks afterwards.
    """

    def __init__(
        self,
        per_s: float,
        linger_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        lag_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._per_s = per_s
        self._linger_s = linger_s
        self._clock = clock
        self._lag_s = lag_s
        self._capacity = per_s * BURST_S
        self._tokens = self._capacity
        self._filled_at = clock()
        self._first_at: float | None = None
        self._rows = 0
        self._counted_from = self._went_at = float("-inf")

    def may_go(self, rows: int, still_coming: bool) -> bool:
        """Whether what is gathered should be written now.

        While records keep coming with tokens left, one more look at the log costs nothing; when
        the tokens are used up, the first row waits `linger_s` at the most.
        """
        now = self._clock()
        self._fill(now)
        if self._first_at is None:
            self._first_at = now
        if rows >= FULL_ROWS:
            return True
        waited = now - self._first_at
        if (linger_s := self._long_linger_s(rows, now)) > 0:
            return waited >= linger_s
        if self._tokens >= 1:
            return not still_coming or waited >= 0.005
        return waited >= self._linger_s

    def wait_ms(self, rows: int) -> int:
        """How long to wait for more records before asking again."""
        now = self._clock()
        self._fill(now)
        waited = now - (self._first_at or now)
        if (linger_s := self._long_linger_s(rows, now)) > 0:
            return max(1, int(min(linger_s - waited, LAG_LOOK_S) * 1000))
        if self._tokens >= 1:
            return 0
        needed = (1 - self._tokens) / self._per_s
        return max(1, int(min(needed, self._linger_s - waited) * 1000))

    def went(self, blocks: int, rows: int) -> None:
        """Note that blocks were written, of so many rows."""
        now = self._clock()
        self._fill(now)
        self._tokens = max(self._tokens - blocks, -self._capacity)
        self._first_at = None
        self._rows, self._counted_from, self._went_at = rows, self._went_at, now

    def _long_linger_s(self, rows: int, now: float) -> float:
        """How long blocks wait to be large; 0 when they needn't be."""
        behind_s = min((self._lag_s() - LAG_FREE_S) * LAG_SHARE, LAG_LINGER_MAX_S)
        return max(behind_s, BUSY_LINGER_S if self._is_busy(rows, now) else 0.0)

    def _is_busy(self, rows: int, now: float) -> bool:
        """Whether rows come fast: those gathered and those of the last blocks, by their time."""
        seconds = max(now - self._counted_from, LOOK_BACK_S)
        return (self._rows + rows) / seconds >= BUSY_ROWS_PER_S

    def _fill(self, now: float) -> None:
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._per_s)
        self._filled_at = now
