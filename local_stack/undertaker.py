"""Kills what is left of the children when their supervisor was killed with -9.

Linux kills a child with its parent (PR_SET_PDEATHSIG), but not what the child had started, such as
the workers of an HTTP server; other systems kill neither.
"""

import contextlib
import subprocess

SCRIPT = 'while read -r line; do groups=$line; done; [ -z "$groups" ] || kill -s KILL -- $groups'


class Undertaker:
    """A shell that reads which process groups there are, until nobody is left to tell it.

    It knows what it was told last: a group that ended, whose number another may get, is removed.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._shell: subprocess.Popen[bytes] | None = None

    def add(self, group: int) -> None:
        """Have a process group killed when the supervisor is gone."""
        self._groups.add(group)
        self._tell()

    def remove(self, group: int) -> None:
        """Forget a process group that has ended."""
        self._groups.discard(group)
        self._tell()

    def dismiss(self) -> None:
        """The supervisor stopped its children itself."""
        if self._shell is not None:
            self._shell.kill()
            with contextlib.suppress(BrokenPipeError):
                self._shell.communicate()
            self._shell = None

    def _tell(self) -> None:
        if self._shell is None:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody killed it
            self._shell.stdin.write(
                " ".join(f"-{group}" for group in self._groups).encode() + b"\n"
            )
            self._shell.stdin.flush()
