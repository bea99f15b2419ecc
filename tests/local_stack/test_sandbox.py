"""The kernel's confinement alone, without grants or a look at statements."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRY = """
import ctypes, os, socket, subprocess, sys, tempfile
from pathlib import Path
from local_stack.sandbox import confine
folder, outside = Path(sys.argv[1]), Path(sys.argv[2])
if not confine(folder):
    sys.exit(77)
def refused(number, what):
    try:
        what()
    except PermissionError:
        return
    raise AssertionError(number)
(folder / "a").write_text("x")
os.rename(folder / "a", folder / "b")
assert (folder / "b").read_text() == "x"
with tempfile.TemporaryFile() as file:
    file.write(b"x")
memory = os.memfd_create("x")
open(f"/proc/self/fd/{memory}").close()
on_disk = tempfile.TemporaryFile()
open(f"/proc/self/fd/{on_disk.fileno()}").close()
import json.tool  # what Python loads later
Path("/proc/thread-self/schedstat").read_text()
assert Path("/proc/self/auxv").read_bytes()
assert not Path("/proc/thread-self/environ").read_bytes().strip(b"\\0")
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
assert getenv(b"A_SECRET") == b"of mine" == os.environb[b"A_SECRET"]
for number, what in enumerate((
    lambda: outside.read_text(),
    lambda: outside.write_text("x"),
    lambda: outside.unlink(),
    lambda: os.rename(folder / "b", outside.parent / "b"),
    lambda: os.rename(outside, folder / "c"),
    lambda: os.listdir(outside.parent),
    lambda: open("/etc/passwd").close(),
    lambda: Path(f"/proc/{os.getppid()}/environ").read_text(),
    lambda: Path("/proc/self/environ").read_text(),
    lambda: os.listdir("/proc/self/task"),
    lambda: open("/proc/thread-self/comm", "w").close(),
    lambda: open("/proc/thread-self/mem", "r+b").close(),
    lambda: open("/proc/thread-self/root/etc/passwd").close(),
    lambda: subprocess.run(["/bin/true"]),
    lambda: subprocess.run([sys.executable, "-c", ""]),
    lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])), timeout=1),
    lambda: os.kill(os.getppid(), 0),
)):
    refused(number, what)
"""


def test_a_confined_process_has_its_folder_and_nothing_else(tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "out" / "secret"
    folder.mkdir()
    outside.parent.mkdir()
    outside.write_text("secret")
    argv = [sys.executable, "-c", TRY, str(folder), str(outside), "9"]
    environment = os.environ | {"A_SECRET": "of mine"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 77:
        pytest.skip("this kernel has no Landlock")
    assert done.returncode == 0, done.stderr
    assert outside.read_text() == "secret"
