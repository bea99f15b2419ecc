"""Being told to stop: what streams for ever has to end before its server can."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def told_to_stop() -> Iterator[asyncio.Event]:
    """An event that is set when SIGTERM or SIGINT tells this process to stop.

    A server waits for its connections before it ends what the application runs on, so the signals
    themselves are listened to; whoever listens to them already is told as before.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def tell(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.set)
        before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, tell)
    try:
        yield stopping
    finally:
        stopping.set()
        for listened, handler in before.items():
            if signal.getsignal(listened) is tell:
                signal.signal(listened, handler)
