"""Fibers: threads of simulated processes, one of which runs at a time, from effect to effect.

A fiber stops right before each effect on the world outside of its process, and goes on when the
world says so. So the order of all effects is the world's choice, and a process can die at each.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, cast


class Crash(SystemExit):
    """The process is dead: whatever it still tries is not done. No `except Exception` sees it."""


class Fiber:
    """One thread of a process.

    effect   What it does next, when that is seen outside; None while it waits or computes.
    ready    Whether it can go on.
    """

    def __init__(self, process: "Process", work: Callable[[], object]) -> None:
        self.process = process
        self.effect: str | None = None
        self.ready: Callable[[], bool] = lambda: True
        self.finished = False
        self.failure: BaseException | None = None
        self._work = work
        self._fault: str | None = None
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        process.fibers.append(self)

    def resume(self, fault: str | None = None) -> None:
        """Do the effect at hand, in which `fault` happens, and go on to before the next."""
        self._fault = fault
        self._go.release()
        self._back.acquire()
        if self.finished:
            self._thread.join()

    def _run(self) -> None:
        _local.fiber = self
        self._go.acquire()
        try:
            if not self.process.dead:
                self._work()
        except Crash:
            self.process.dead = True
        except BaseException as error:
            self.failure = error
        self.finished = True
        self._back.release()

    def stop(self, effect: str | None, ready: Callable[[], bool]) -> str | None:
        """Wait until the world lets this fiber go on; the fault that it meets with."""
        if self.process.dead:
            raise Crash
        self.effect, self.ready = effect, ready
        self._back.release()
        self._go.acquire()
        self.effect, self.ready = None, lambda: True
        if self.process.dead:
            raise Crash
        return self._fault


@dataclass
class Process:
    """What dies at once: its fibers. `paused` stops them without their knowledge."""

    name: str
    role: str
    world: Any
    fibers: list[Fiber] = field(default_factory=list)
    dead: bool = False
    paused: bool = False

    def kill(self) -> None:
        """Let no fiber do anything any more."""
        self.dead = True
        while fibers := [fiber for fiber in self.fibers if not fiber.finished]:
            fibers[0].resume()


_local = threading.local()


def current() -> Fiber:
    """The fiber that this code runs in."""
    return cast(Fiber, _local.fiber)


def effect(name: str) -> str | None:
    """Announce an effect and wait for one's turn; the fault that it meets with, None for none."""
    return current().stop(name, lambda: True)


def wait(ready: Callable[[], bool]) -> None:
    """Wait for something in the world."""
    current().stop(None, ready)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose threads are calls: a process is one fiber, and its tasks take turns."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        """Done at once; the task that waits goes on behind those that could go on before it."""
        future = self.create_future()
        try:
            self.call_soon(future.set_result, func(*args))
        except Crash:
            raise
        except BaseException as error:
            self.call_soon(future.set_exception, error)
        return future

    async def idle(self) -> None:
        """Let the other tasks go on until all of them wait."""
        while self._ready:  # type: ignore[attr-defined]  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0)


async def idle() -> None:
    """Let the other tasks of this process go on until all of them wait."""
    await cast(Loop, asyncio.get_running_loop()).idle()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine as a process' main thread; when the process dies its tasks are let go."""
    loop = Loop()
    loop.set_exception_handler(lambda *_: None)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main())
    finally:
        while tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            try:
                loop.run_until_complete(asyncio.wait(tasks))
            except Crash:
                continue
        asyncio.set_event_loop(None)
        loop.close()


class Calls(Executor):
    """A thread as calls: what is submitted is done at once."""

    def submit(self, fn: Any, /, *args: Any, **named: Any) -> Any:
        future: Future[Any] = Future()
        _fill(future, fn, *args, **named)
        return future


class Thread(Executor):
    """One more thread of a process, which does what is submitted, in order."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._last: Fiber | None = None

    def submit(self, fn: Any, /, *args: Any, **named: Any) -> Any:
        future: Future[Any] = Future()
        before = self._last

        def work() -> None:
            if future.set_running_or_notify_cancel():
                _fill(future, fn, *args, **named)

        self._last = Fiber(self._process, work)
        self._last.ready = lambda: before is None or before.finished
        return future


def _fill(future: "Future[Any]", fn: Any, *args: Any, **named: Any) -> None:
    try:
        future.set_result(fn(*args, **named))
    except Crash:
        raise
    except BaseException as error:
        future.set_exception(error)
