"""How a process stands among others that want a core: in front, or back (decision 0034).

Linux shares cores out among sessions first where it groups tasks by them. A session has a niceness
of its own then, which that of its processes doesn't change (sched(7)).
"""

import contextlib
import os
import time
from pathlib import Path

BEHIND = 10
"""How far back what counts, stores and reads stands, as of nice(1): answering 202 goes first."""
AUTOGROUP = Path("/proc/self/autogroup")
TRIES, AGAIN_S = 20, 0.1
"""Without privileges Linux takes ten changes a second, of all sessions together."""


def stand_back(nice: int) -> None:
    """Let this process leave cores to others, for good, and the session that it leads as well.

    A session that it doesn't lead, such as a terminal's, is none of its business.
    """
    os.nice(nice)
    if os.getsid(0) != os.getpid():
        return
    # It is missing where tasks aren't grouped, and refused by the rules of some containers.
    with contextlib.suppress(FileNotFoundError, PermissionError):
        for _ in range(TRIES):
            try:
                AUTOGROUP.write_text(str(nice))
                break
            except BlockingIOError:
                time.sleep(AGAIN_S)
