"""The processes of a Tallylog in a storm: found, hurt, and joined by guests."""

import os
import re
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
TAKES = {
    "counter": re.compile(r"block partition (\d+) from offset"),
    "packer": re.compile(r"TopicPartition\(topic='\S+', partition=(\d+)\)"),
}
"""What a worker's log says of the partitions that it is given."""
STEADY_S = 1.0
"""Partitions that are given one after the other are all there after so long without another."""


class Guest:
    """A worker beside the supervisor's. Its log, from `start` on, tells what it was given."""

    def __init__(
        self, part: str, process: "subprocess.Popen[bytes]", log: Path, start: int
    ) -> None:
        self._takes = TAKES[part]
        self._process = process
        self._log = log
        self._start = start

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def taken(self) -> set[int]:
        """The partitions that it was given so far."""
        with self._log.open("rb") as log:
            log.seek(self._start)
            said = log.read().decode(errors="replace")
        return {int(number) for number in self._takes.findall(said)}

    def joins(self, within_s: float) -> bool:
        """Wait until it has partitions, all that it gets at first; False when it gets none."""
        until = time.monotonic() + within_s
        taken, since = self.taken, time.monotonic()
        while self.lives and time.monotonic() < until:
            if taken and time.monotonic() - since > STEADY_S:
                return True
            time.sleep(0.05)
            if (now := self.taken) != taken:
                taken, since = now, time.monotonic()
        return False


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

    def log(self, part: str) -> str:
        """A part's log."""
        log = Path(self._tallylog.data_dir) / "logs" / f"{part}.log"
        return log.read_text(errors="replace")

    @contextmanager
    def guest(self, part: str) -> Iterator[Guest]:
        """Another packer or counter beside the supervisor's; told to end on leaving."""
        env = {
            **os.environ,
            "TALLYLOG_DATA_DIR": self._tallylog.data_dir,
            "TALLYLOG_KAFKA": self._tallylog.kafka,
            "TALLYLOG_CLICKHOUSE_URL": self._tallylog.clickhouse_url,
            "TALLYLOG_SESSION_TIMEOUT_S": str(self._session_s),
            "TALLYLOG_INSERT_TIMEOUT_S": str(self._session_s),
            "TALLYLOG_WORKER": "guest",
            "TALLYLOG_FAILPOINTS": "",
        }
        log = Path(self._tallylog.data_dir) / "logs" / f"{part}-guest.log"
        with log.open("ab") as output:
            command = [sys.executable, "-m", "cli.parts", part]
            start = log.stat().st_size
            guest = subprocess.Popen(command, env=env, stdout=output, stderr=output)
        try:
            yield Guest(part, guest, log, start)
        finally:
            guest.send_signal(signal.SIGTERM)
            try:
                guest.wait(60)
            except subprocess.TimeoutExpired:
                guest.kill()
                guest.wait()
                raise
