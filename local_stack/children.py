"""Child processes of one supervisor: started in order, kept running, stopped in reverse order.

A child's output goes straight to `<logs>/<name>.log`. Children run in sessions of their own, so
Ctrl-C in a terminal reaches the supervisor alone, which then stops them in order. If the
supervisor itself is killed with -9, Linux kills the children with it (PR_SET_PDEATHSIG), and the
undertaker kills what they had started.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from local_stack.errors import ChildFailed, Interrupted
from local_stack.standing import stand_back
from local_stack.undertaker import Undertaker

PR_SET_PDEATHSIG = 1
READY_POLL_S = 0.05
LOOK_S = 10.0
"""How long one look at whether a child answers may take: a child that ends meanwhile is noticed."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 5.0
STEADY_S = 5.0  # a child that ran this long starts its back-off afresh
LOG_BYTES_MAX = 16 * 1024 * 1024
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Child:
    """A process to run.

    name             What people call it; its log is `<name>.log`.
    argv             The command; argv[0] is a path.
    env              Variables on top of the supervisor's own.
    ready            Says whether it answers; None: it counts as ready once started.
    ready_timeout_s  How long it may take until then.
    stop_grace_s     How long it may take to end after SIGTERM, before SIGKILL.
    nice             How far it stands back when cores are short, as of nice(1).
    restart          Whether it is started again when it ends by itself.
    stopped          Called when it was ready and has ended because it was asked to.
    """

    name: str
    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], Awaitable[bool]] | None = None
    ready_timeout_s: float = 30.0
    stop_grace_s: float = 10.0
    nice: int = 0
    restart: bool = True
    stopped: Callable[[], None] | None = None


CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT)


class Children:
    """The running children: `async with Children(logs) as children: await children.start(...)`.

    While it is entered, SIGINT, SIGTERM and SIGHUP end `wait()` (and interrupt a `start()`);
    leaving it stops every child, in reverse order; a second signal kills them at once. `report`
    is told in one line what happens to them.
    """

    def __init__(self, logs: Path, report: Callable[[str], None] = lambda line: None) -> None:
        self.logs = logs
        self.report = report
        self._running: list[_Running] = []
        self._undertaker = Undertaker()
        self._stopping = asyncio.Event()
        self._signals = 0
        self._replaced: dict[signal.Signals, _Handler] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is signal.SIG_IGN:  # as nohup asks
                continue
            with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: no signals
                loop.add_signal_handler(number, self._on_signal)
                self._replaced[number] = handler
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        finally:
            loop = asyncio.get_running_loop()
            for number, handler in self._replaced.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    async def start(self, child: Child) -> None:
        """Start a child and return once it is ready.

        Raises ChildFailed, with the end of its log, if it ends or stays silent; Interrupted if a
        signal came.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        running = _Running(child, self.logs / f"{child.name}.log", self.report, self._undertaker)
        self._running.append(running)
        await running.spawn()
        try:
            await self._until_ready(running)
        except ChildFailed as failure:
            if not running.crashed:
                raise
            # The engine's library crashes while it is loaded, once in some hundred times.
            self.report(f"{failure}\nStarting it again.")
            running.bury()
            await running.spawn()
            await self._until_ready(running)
        running.keep()

    async def wait(self) -> None:
        """Return when a signal asked to stop, or `stop()` was called."""
        await self._stopping.wait()

    async def stop(self) -> None:
        """Stop every child, the last started first, each within its grace."""
        self._stopping.set()
        while self._running:
            await self._running[-1].stop()
            self._running.pop()
        self._undertaker.dismiss()

    def pids(self) -> dict[str, int]:
        """Process ids of the children that run, by name."""
        return {each.child.name: each.process.pid for each in self._running if each.alive}

    async def _until_ready(self, running: "_Running") -> None:
        ready = asyncio.ensure_future(running.until_ready())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                raise Interrupted(f"interrupted while {running.child.name} was starting")
            await ready
        finally:
            for task in (ready, stopping):
                task.cancel()
            await asyncio.gather(ready, stopping, return_exceptions=True)

    def _on_signal(self) -> None:
        self._stopping.set()
        self._signals += 1
        if self._signals > 1:
            for each in self._running:
                each.kill()


_Handler = Callable[[int, FrameType | None], object] | int | None


class _Running:
    """A child's current process, and the task that starts it again."""

    process: asyncio.subprocess.Process

    def __init__(
        self, child: Child, log: Path, report: Callable[[str], None], undertaker: Undertaker
    ) -> None:
        self.child = child
        self.log = log
        self.report = report
        self.undertaker = undertaker
        self._keeper: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    @property
    def crashed(self) -> bool:
        """Whether it ended by a fault of the machine's kind, which may not come again."""
        return not self.alive and -(self.process.returncode or 0) in CRASHES

    async def spawn(self) -> None:
        """Start the process; raises ChildFailed if its program can't be run."""
        supervisor = os.getpid()
        with open_log(self.log) as log:
            try:
                self.process = await asyncio.create_subprocess_exec(
                    *self.child.argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.child.env},
                    start_new_session=True,
                    preexec_fn=lambda: _begin(supervisor, self.child.nice),
                )
            except OSError as error:
                raise ChildFailed(f"{self.child.name} could not be started: {error}") from error
        self.undertaker.add(self.process.pid)

    async def until_ready(self) -> None:
        """Return once the child answers; raises ChildFailed if it ends first or takes too long."""
        if self.child.ready is None:
            return
        deadline = time.monotonic() + self.child.ready_timeout_s
        while not await self._answers(self.child.ready):
            if not self.alive:
                raise ChildFailed(self._obituary("ended while starting"))
            if time.monotonic() > deadline:
                seconds = f"{self.child.ready_timeout_s:g} s"
                raise ChildFailed(self._obituary(f"did not answer within {seconds}"))
            await asyncio.sleep(READY_POLL_S)
        if not self.alive:  # somebody else answered
            raise ChildFailed(self._obituary("ended while starting"))

    async def _answers(self, ready: Callable[[], Awaitable[bool]]) -> bool:
        try:
            async with asyncio.timeout(LOOK_S):
                return await ready()
        except TimeoutError:
            return False

    def keep(self) -> None:
        """From now on, start the child again whenever it ends."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.child.name}")

    async def _keep(self) -> None:
        delay_s = BACKOFF_FIRST_S
        while True:
            started = time.monotonic()
            await self.process.wait()
            if not self.child.restart:
                self.report(f"{self.child.name} {self._end()}")
                return
            if time.monotonic() - started > STEADY_S:
                delay_s = BACKOFF_FIRST_S
            self.report(
                f"{self.child.name} {self._end()}; starting it again in {delay_s:g} s ({self.log})"
            )
            self.bury()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, BACKOFF_MAX_S)
            try:
                await self.spawn()
                await self.until_ready()
                self.report(f"{self.child.name} runs again")
            except ChildFailed as error:
                self.report(str(error))
                self.kill()

    async def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL after its grace. Returns when it is gone."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if not hasattr(self, "process"):
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), self.child.stop_grace_s)
        except TimeoutError:
            self.report(
                f"{self.child.name} did not stop within {self.child.stop_grace_s:g} s: killed"
            )
        self.kill()
        await self.process.wait()
        self.bury()
        if self._ended_as_asked and self.child.stopped is not None:
            self.child.stopped()

    @property
    def _ended_as_asked(self) -> bool:
        """Whether it was ready once, and SIGTERM has ended it (128 + 15 is how Java says so)."""
        code = self.process.returncode
        return self._keeper is not None and code in (0, -signal.SIGTERM, 128 + signal.SIGTERM)

    def bury(self) -> None:
        """End what a child that has ended left behind: it would hold on to the child's port."""
        self.kill()
        self.undertaker.remove(self.process.pid)

    def kill(self) -> None:
        """SIGKILL to the child and whatever it left in its process group."""
        if hasattr(self, "process"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def _end(self) -> str:
        code = self.process.returncode
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def _obituary(self, what: str) -> str:
        status = "" if self.alive else f" ({self._end()})"
        return f"{self.child.name} {what}{status}. The end of {self.log}:\n{last_lines(self.log)}"


def _begin(supervisor: int, nice: int) -> None:
    """In the child, before exec."""
    die_with(supervisor)
    if nice:
        stand_back(nice)


def die_with(supervisor: int) -> None:
    """In the child, before exec: have Linux kill it when the supervisor is gone."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it went in between
            os._exit(1)


def open_log(path: Path) -> IO[bytes]:
    """The log to append to; one that has grown large is set aside first as `<name>.log.1`."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")


def last_lines(path: Path, count: int = 12) -> str:
    """The last lines of a log, each cut at 400 characters."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16384))
        lines = file.read().decode(errors="replace").splitlines()[-count:]
    return "\n".join(f"  {line[:400]}" for line in lines) or "  (empty)"
