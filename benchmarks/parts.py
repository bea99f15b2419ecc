"""The processes of a stack, by the part that each is."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

MARKS = {
    "gateway and console": "serve",
    "packer": "packer",
    "counter": "counter",
    "Kafka": "kafka.Kafka",
    "engine": "local_stack.clickhouse",
}


def processes() -> dict[str, list[psutil.Process]]:
    """The processes below this one."""
    found: dict[str, list[psutil.Process]] = {part: [] for part in MARKS}
    for process in psutil.Process().children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        for part, mark in MARKS.items():
            if mark in command:
                found[part].append(process)
    return found


def cpu_s() -> dict[str, float]:
    """CPU seconds that each part has taken."""
    return {
        part: sum(sum(process.cpu_times()[:2]) for process in own)
        for part, own in processes().items()
    }


def resident_mib() -> dict[str, int]:
    """Memory of each part."""
    return {
        part: sum(process.memory_info().rss for process in own) >> 20
        for part, own in processes().items()
    }


@contextmanager
def stopped(part: str) -> Iterator[None]:
    """A part stands still meanwhile."""
    own = processes()[part]
    for process in own:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in own:
            process.send_signal(signal.SIGCONT)
