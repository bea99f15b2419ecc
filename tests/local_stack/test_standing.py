"""Sessions that stand back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack.standing import AUTOGROUP

pytestmark = pytest.mark.skipif(not AUTOGROUP.exists(), reason="tasks aren't grouped here")
BACK = """
import ctypes, os, sys
from local_stack.standing import AUTOGROUP, stand_back
if sys.argv[1:]:
    os.setuid(int(sys.argv[1]))
    ctypes.CDLL(None).prctl(4, 1)  # its files in /proc are its own again
seen, own = [], os.nice(0)
for nice in (3, 4):
    stand_back(nice)
    seen.append(AUTOGROUP.read_text().split()[-1])
print(*seen, os.nice(0) - own)
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


def test_a_session_stands_back_and_its_process_as_well() -> None:
    assert said(BACK) == "3 4 7"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_that_takes_no_privilege() -> None:
    """Linux refuses a change right after another then: it is asked again."""
    assert said(BACK, NOBODY) == "3 4 7"


def test_a_session_of_others_is_left_alone() -> None:
    """As that of the terminal in which somebody starts a part."""
    code = """
import subprocess, sys
inner = "from local_stack.standing import stand_back; stand_back(5)"
subprocess.run([sys.executable, "-c", inner], check=True)
print(open("/proc/self/autogroup").read().split()[-1])
"""
    assert said(code) == "0"
