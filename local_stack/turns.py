"""Places that accounts take in turns, so that none waits for all that another asks."""

import asyncio
from collections import Counter, deque


class NoPlace(Exception):
    """There is no place, and too many wait already."""


class Turns:
    """A few places. The next one is of the account that has waited longest since its last.

    An account may have `of_one_max` that it holds or waits for, and all together `waiting_max`
    beside the places. When so many wait, who has the most waiting gives way to one who has less.
    """

    def __init__(self, places: int, waiting_max: int, of_one_max: int) -> None:
        self._places = places
        self._all_max = places + waiting_max
        self._of_one_max = of_one_max
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._holding: Counter[str] = Counter()
        self._given: dict[str, int] = {}  # the last turn of accounts that are here
        self._turn = 0

    @property
    def _held(self) -> int:
        """How many places are taken."""
        return self._holding.total()

    def ask(self, account: str) -> asyncio.Future[None]:
        """Done when it has a place; `end` has to be called of it, whatever becomes of it.

        Raises NoPlace, as the future may do: it can lose its place in the queue to another account.
        """
        waiting = self._waiting.get(account, ())
        if len(waiting) + self._holding[account] >= self._of_one_max:
            raise NoPlace
        if self._held + sum(map(len, self._waiting.values())) >= self._all_max:
            self._displace_for(len(waiting) + 1)
        self._given.setdefault(account, self._turn - 1)  # before who has just had a place
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(turn)
        self._give()
        return turn

    def end(self, account: str, turn: asyncio.Future[None]) -> None:
        """Give back the place, or wait no longer."""
        if not turn.done():
            self._leave(account, turn)
        elif turn.exception() is None:
            self._holding[account] -= 1
        self._give()

    def _give(self) -> None:
        """Give free places to those who are next."""
        while self._waiting and self._held < self._places:
            account = min(self._waiting, key=lambda each: self._given[each])
            turn = self._waiting[account][0]
            self._leave(account, turn)
            self._turn += 1
            self._given[account] = self._turn
            self._holding[account] += 1
            turn.set_result(None)
        self._given = {
            account: turn
            for account, turn in self._given.items()
            if self._holding[account] or account in self._waiting
        }

    def _displace_for(self, waiting: int) -> None:
        """Send the last of the longest queue away, if it is longer than this. Raises NoPlace."""
        longest = max(self._waiting, key=lambda each: len(self._waiting[each]))
        if len(self._waiting[longest]) <= waiting:
            raise NoPlace
        last = self._waiting[longest][-1]
        self._leave(longest, last)
        last.set_exception(NoPlace())

    def _leave(self, account: str, turn: asyncio.Future[None]) -> None:
        self._waiting[account].remove(turn)
        if not self._waiting[account]:
            del self._waiting[account]
