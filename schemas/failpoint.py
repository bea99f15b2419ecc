"""Named moments at which a process can be made to die, for tests: nothing anywhere else.

`TALLYLOG_FAILPOINTS` names a folder. A file there of a failpoint's name arms it, once: the process
that comes by removes the file and kills itself, or, where the file says `stop`, stops itself
until somebody sends SIGCONT.
"""

import os
import signal
from functools import cache
from pathlib import Path

from schemas.settings import Places


def failpoint(name: str) -> None:
    """Die or stop here if the failpoint is armed. Call it once a batch, between two effects."""
    folder = _folder()
    if folder is not None:
        _come_by(folder / name)


@cache
def _folder() -> Path | None:
    named = Places().failpoints
    return Path(named) if named else None


def _come_by(file: Path) -> None:
    try:
        wish = file.read_text().strip()
        file.unlink()  # who removes it is hit
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP if wish == "stop" else signal.SIGKILL)
