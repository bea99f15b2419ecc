"""The processes of a Tallylog in a storm: found, hurt, and joined by guests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.e2e.running import Tallylog

WORDS = {
    "gateway": "serve",
    "packer": "packer",
    "counter": "counter",
    "kafka": "kafka.Kafka",
    "engine": "local_stack.clickhouse",
}
"""By part, a word of its command. The gateway's process is the console's as well."""
PARTS = tuple(WORDS)
APPEARS_S = 60.0


class Parts:
    """The parts that `tallylog up` has started."""

    def __init__(self, tallylog: Tallylog, session_s: float) -> None:
        self._tallylog = tallylog
        self._session_s = session_s
        folder = tallylog.data_dir
        self._supervisor = next(
            child
            for child in psutil.Process().children(recursive=True)
            if "up" in child.cmdline() and folder in child.cmdline()
        )

    def find(self, part: str) -> psutil.Process:
        """The process of a part, once there is one. Raises TimeoutError."""
        deadline = time.monotonic() + APPEARS_S
        while time.monotonic() < deadline:
            for child in self._supervisor.children():
                try:
                    if WORDS[part] in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                        return child
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.05)
        raise TimeoutError(f"there is no {part}")

    def logged(self, part: str, words: str) -> int:
        """How many lines of a part's log have some words."""
        log = Path(self._tallylog.data_dir) / "logs" / f"{part}.log"
        with log.open(errors="replace") as lines:
            return sum(words in line for line in lines)

    @contextmanager
    def guest(self, part: str) -> Iterator[subprocess.Popen[bytes]]:
        """Another packer or counter beside the supervisor's; told to end on leaving."""
        env = {
            **os.environ,
            "TALLYLOG_DATA_DIR": self._tallylog.data_dir,
            "TALLYLOG_KAFKA": self._tallylog.kafka,
            "TALLYLOG_CLICKHOUSE_URL": self._tallylog.clickhouse_url,
            "TALLYLOG_SESSION_TIMEOUT_S": str(self._session_s),
            "TALLYLOG_WORKER": "guest",
            "TALLYLOG_FAILPOINTS": "",
        }
        log = Path(self._tallylog.data_dir) / "logs" / f"{part}-guest.log"
        with log.open("ab") as output:
            command = [sys.executable, "-m", "cli.parts", part]
            guest = subprocess.Popen(command, env=env, stdout=output, stderr=output)
        try:
            yield guest
        finally:
            guest.send_signal(signal.SIGTERM)
            try:
                guest.wait(60)
            except subprocess.TimeoutExpired:
                guest.kill()
                guest.wait()
                raise
