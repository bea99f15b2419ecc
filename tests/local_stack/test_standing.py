"""Sessions that stand back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack.standing import AUTOGROUP, Standing

pytestmark = pytest.mark.skipif(not AUTOGROUP.exists(), reason="tasks aren't grouped here")
BACK_AND_FORTH = """
import ctypes, os, sys, time
from local_stack.standing import AUTOGROUP, Standing, stand_back
if sys.argv[1:]:
    os.setuid(int(sys.argv[1]))
    ctypes.CDLL(None).prctl(4, 1)  # its files in /proc are its own again
standing, seen = Standing(), []
for nice in (10, 0):
    while not standing.change(nice):
        time.sleep(0.05)
    seen.append(AUTOGROUP.read_text().split()[-1])
stand_back(7)
print(*seen, AUTOGROUP.read_text().split()[-1])
"""
ROOT = Path(__file__).parents[2]
NOBODY = "65534"


def said(code: str, *arguments: str) -> str:
    """What a program says, in a session of its own."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, start_new_session=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_session_stands_back_and_comes_forward() -> None:
    assert said(BACK_AND_FORTH) == "10 0 7"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_that_takes_no_privilege() -> None:
    """Linux refuses a change right after another then: it is asked again."""
    assert said(BACK_AND_FORTH, NOBODY) == "10 0 7"


def test_a_session_of_others_is_left_alone() -> None:
    """As that of the terminal in which somebody starts an engine."""
    code = """
import os, subprocess, sys
inner = "from local_stack.standing import Standing; Standing().change(10)"
subprocess.run([sys.executable, "-c", inner], check=True)
print(open("/proc/self/autogroup").read().split()[-1])
"""
    assert said(code) == "0"
    before = AUTOGROUP.read_text()
    if os.getsid(0) != os.getpid():
        assert Standing().change(19)
        assert AUTOGROUP.read_text() == before
