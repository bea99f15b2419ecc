"""Silence: blocks wait in the log of a partition, and none comes. Pure."""

from collections.abc import Mapping

PATIENCE = 10
"""How much longer a partition may wait while blocks of others come: they stand before its own."""


class Silence:
    """Tells when the consumer has died, from how long blocks have waited unread.

    `limit_s` is how long nothing at all may come while blocks wait.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: dict[int, tuple[int, float]] = {}
        self._progress: tuple[int, float] = (-1, 0.0)

    def look(self, now: float, waiting: Mapping[int, int], counted: int) -> int | None:
        """The partition that has waited too long, if any.

        `waiting` has, of each partition that is idle while its log goes on, the offset that it
        waits for; `counted` grows with every block counted, whichever partition's it is.
        """
        if counted != self._progress[0]:
            self._progress = (counted, now)
        self._since = {
            partition: before
            if (before := self._since.get(partition, (-1, now)))[0] == offset
            else (offset, now)
            for partition, offset in waiting.items()
        }
        quiet = now - self._progress[1] > self._limit_s
        for partition, (_, since) in self._since.items():
            if now - since > self._limit_s * (1 if quiet else PATIENCE):
                return partition
        return None
