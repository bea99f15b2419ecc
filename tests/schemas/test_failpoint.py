"""An armed failpoint hits the process that comes by, once; without a folder there are none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = "from schemas.failpoint import failpoint; failpoint('here'); print('went by')"


def start(folder: str) -> subprocess.Popen[str]:
    env = {**os.environ, "TALLYLOG_FAILPOINTS": folder}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=env, stdout=subprocess.PIPE, text=True
    )


def test_an_armed_failpoint_kills_once(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    first = start(str(tmp_path))
    assert first.communicate(timeout=30)[0] == ""
    assert first.returncode == -signal.SIGKILL
    assert start(str(tmp_path)).communicate(timeout=30)[0] == "went by\n"


def test_it_stops_instead_where_the_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("stop\n")
    stopped = start(str(tmp_path))
    assert os.WIFSTOPPED(os.waitpid(stopped.pid, os.WUNTRACED)[1])
    assert not (tmp_path / "here").exists()
    stopped.send_signal(signal.SIGCONT)
    assert stopped.communicate(timeout=30)[0] == "went by\n"


def test_without_a_folder_and_by_another_name_nothing_happens(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert start(str(tmp_path)).communicate(timeout=30)[0] == "went by\n"
    assert start("").communicate(timeout=30)[0] == "went by\n"
    assert (tmp_path / "there").exists()
