"""A Tallylog whose broker, engine and catalog are ours to take away and to give back."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from local_stack.children import CRASHES, Child, die_with
from local_stack.clickhouse import clickhouse_child, clickhouse_url
from local_stack.kafka import kafka_child
from local_stack.ports import HOST
from tests.e2e.running import Tallylog, tallylog_up
from tests.stack import stack_settings

START_TIMEOUT_S = 90


@dataclass
class Server:
    """A server that runs only when it is told to: nobody starts it again when it dies."""

    child: Child
    log: Path
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and return once it answers."""
        process = self._spawn()
        deadline = time.monotonic() + START_TIMEOUT_S
        ready = self.child.ready
        assert ready is not None
        while not asyncio.run(_answer(ready)):
            if -(process.poll() or 0) in CRASHES:  # as its supervisor does: it may not come again
                process = self._spawn()
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, f"{self.child.name} did not start: {self.log.read_text()[-2000:]}"
            time.sleep(0.05)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        supervisor = os.getpid()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.child.argv,
                env={**os.environ, **self.child.env},
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: die_with(supervisor),
            )
        return self._process

    def kill(self) -> None:
        """End it with SIGKILL, and whatever it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Without it for the length of a block; it answers again on leaving."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """A black hole for the length of a block: connections stand, and nothing comes back."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)


async def _answer(ready: Callable[[], Awaitable[bool]]) -> bool:
    return await ready()


@dataclass(frozen=True)
class Ground:
    """A running Tallylog, and the servers that it rests on."""

    tallylog: Tallylog
    broker: Server
    engine: Server

    def processes(self, part: str) -> list[psutil.Process]:
        """The processes of one part: `serve`, `packer` or `counter`."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                folder = process.environ().get("TALLYLOG_DATA_DIR")
                if folder == self.tallylog.data_dir and part in process.cmdline()[1:4]:
                    found.append(process)
        return found

    def rss(self, *parts: str) -> int:
        """Bytes in memory of some parts, together."""
        total = 0
        for part in parts:
            for process in self.processes(part):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
        return total


@contextlib.contextmanager
def ground(folder: Path, **env: str) -> Iterator[Ground]:
    """A whole Tallylog on servers of its own, with its data in a folder."""
    settings = stack_settings(folder / "servers")
    broker = Server(kafka_child(settings), folder / "broker.log")
    engine = Server(clickhouse_child(settings), folder / "engine.log")
    places = {
        "TALLYLOG_KAFKA": f"{HOST}:{settings.kafka_port}",
        "TALLYLOG_CLICKHOUSE_URL": clickhouse_url(settings),
    }
    try:
        broker.start()
        engine.start()
        with tallylog_up(folder, env={**places, **env}) as running:
            yield Ground(running, broker, engine)
    finally:
        broker.kill()
        engine.kill()
