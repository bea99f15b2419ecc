"""How a process stands among others that want a core: in front, or back (decision 0031).

Linux shares cores out among sessions first where it groups tasks by them. A session has a niceness
of its own then, which that of its processes doesn't change (sched(7)).
"""

import os
import time
from pathlib import Path

BEHIND = 10
"""How far back what counts and what analysts ask stand, as of nice(1): answering 202 goes first."""
AUTOGROUP = Path("/proc/self/autogroup")
TRIES, AGAIN_S = 20, 0.1
"""Without privileges Linux takes ten changes a second, of all sessions together."""


def stand_back(nice: int) -> None:
    """Let this process, which leads a session, leave cores to others, for good."""
    os.nice(nice)
    standing = Standing()
    for _ in range(TRIES):
        if standing.change(nice):
            break
        time.sleep(AGAIN_S)


class Standing:
    """The niceness of the session that this process leads: a terminal's is none of its business.

    Made before a confinement, it works after it too. Does nothing where tasks aren't grouped.
    """

    def __init__(self) -> None:
        self.nice = 0
        self._file = -1
        if os.getsid(0) == os.getpid():
            self._file = _opened(AUTOGROUP)

    def change(self, nice: int) -> bool:
        """Stand so far back; False when it has to be asked again a little later."""
        if nice == self.nice or self._file < 0:
            return True
        try:
            os.write(self._file, b"%d" % nice)
        except BlockingIOError:
            return False
        except PermissionError:  # a container's rules
            self._file = -1
            return True
        self.nice = nice
        return True


def _opened(path: Path) -> int:
    """To be written, for a process alone; -1 where it is missing or may not be written."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return -1
