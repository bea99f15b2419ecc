"""The obvious Faust app on a log that was written before: events a second."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import native
from benchmarks.workload import arrays

TOPIC = "obvious-faust"
WAIT_S = 180.0
POLL_S = 0.05


def measure(kafka: str, folder: Path, events: int) -> float:
    """Let the app read so many events; the clock starts with its first."""
    asyncio.run(native.fill(kafka, TOPIC, arrays(1000, 1), events))
    folder.mkdir(parents=True, exist_ok=True)
    env = os.environ | {"TALLYLOG_KAFKA": kafka, "TALLYLOG_DATA_DIR": str(folder)}
    argv = [sys.executable, "-m", "faust", "-A", "benchmarks.references.faust_app", "worker"]
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(
            [*argv, "--without-web", "-l", "warn"], env=env, stdout=log, stderr=log
        )
        try:
            return _watch(folder / TOPIC, worker, events)
        finally:
            worker.terminate()
            worker.wait()


def _watch(report: Path, worker: "subprocess.Popen[bytes]", events: int) -> float:
    deadline = time.perf_counter() + WAIT_S
    first = started = 0.0
    while time.perf_counter() < deadline and worker.poll() is None:
        read = int(report.read_text()) if report.exists() else 0
        if read and not first:
            first, started = read, time.perf_counter()
        if read >= events:
            return (events - first) / (time.perf_counter() - started)
        time.sleep(POLL_S)
    raise RuntimeError("the Faust app did not get through")
