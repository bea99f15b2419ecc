"""How a process stands among others that want a core: in front, or back (decision 0031).

Linux shares cores out among sessions first where it groups tasks by them. A session has a niceness
of its own then, which that of its processes doesn't change (sched(7)).
"""

import contextlib
import os
from pathlib import Path

BEHIND = 10
"""How far back what counts and what analysts ask stand, as of nice(1): answering 202 goes first."""
AUTOGROUP = Path("/proc/self/autogroup")


def stand_back(nice: int) -> None:
    """Let this process, in a session of its own, leave cores to others, for good."""
    os.nice(nice)
    with contextlib.suppress(OSError):  # not grouped
        AUTOGROUP.write_text(str(nice))


class Standing:
    """The niceness of this process's session. Made before a confinement, it works after it too."""

    def __init__(self) -> None:
        self.nice = 0
        try:
            self._file = os.open(AUTOGROUP, os.O_WRONLY)
        except OSError:  # tasks are not grouped here
            self._file = -1

    def change(self, nice: int) -> bool:
        """Stand so far back; False when it has to be asked again, as Linux allows ten a second."""
        if nice == self.nice or self._file < 0:
            return True
        try:
            os.write(self._file, b"%d" % nice)
        except BlockingIOError:
            return False
        self.nice = nice
        return True
