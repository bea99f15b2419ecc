"""An answer on its way from the engine's thread to the client."""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

from local_stack.bodies import Disconnected
from local_stack.encodings import Encoder
from local_stack.engine import Summary

HELD_BYTES = 1024 * 1024  # an answer up to this size is sent once it is known to be good


class Outbox:
    """Carries an answer from the engine's thread to the event loop, holding back its first bytes.

    Until HELD_BYTES the answer is held, so that an error still gets its status. Then it flows, a
    few pieces ahead of the client at most. With `wait` it never flows: it is kept, on disk if
    large, and sent when it is whole.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, encoder: Encoder, wait: bool) -> None:
        self.encoder = encoder
        self.size = 0
        self.flowing = False
        self.leaving = False  # the client has been told that it succeeded
        self._loop = loop
        self._wait = wait
        self._closed = threading.Event()
        self._held: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(2)
        self._flows = asyncio.Event()

    def write(self, piece: bytes) -> None:
        """On the engine's thread: take a piece of the answer. Raises Disconnected."""
        self._put(self.encoder.feed(piece))

    def finish(self) -> None:
        """On the engine's thread: the answer is whole."""
        self._put(self.encoder.finish())

    def _put(self, data: bytes) -> None:
        if self._closed.is_set():
            raise Disconnected
        if not data:
            return
        self.size += len(data)
        if self.flowing:
            self._pass_on(data)
            return
        if self._file is not None:
            self._file.write(data)
            return
        self._held.append(data)
        if self.size > HELD_BYTES:
            held, self._held = b"".join(self._held), []
            if self._wait:
                self._file = tempfile.TemporaryFile()
                self._file.write(held)
            else:
                self.flowing = True
                self._loop.call_soon_threadsafe(self._flows.set)
                self._pass_on(held)

    def _pass_on(self, data: bytes) -> None:
        asyncio.run_coroutine_threadsafe(self._queue.put(data), self._loop).result()

    async def until_flowing(self, work: "asyncio.Future[Summary]") -> None:
        """Return when the answer begins to flow, or the work is done."""
        flows = asyncio.ensure_future(self._flows.wait())
        both: set[asyncio.Future[Any]] = {flows, work}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        flows.cancel()

    async def pieces(self, work: "asyncio.Future[Summary]") -> AsyncIterator[bytes]:
        """The flowing answer, piece by piece, until the work is done."""
        while not (work.done() and self._queue.empty()):
            piece = asyncio.ensure_future(self._queue.get())
            both: set[asyncio.Future[Any]] = {piece, work}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if piece.done():
                yield piece.result()
            else:
                piece.cancel()

    def whole(self) -> Iterator[bytes]:
        """The kept answer."""
        yield from self._held
        if self._file is not None:
            self._file.seek(0)
            while piece := self._file.read(HELD_BYTES):
                yield piece

    @property
    def closed(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self._closed.is_set()

    def close(self) -> None:
        """Take nothing more: the next piece ends the query. Lets a waiting engine go on."""
        self._closed.set()
        while not self._queue.empty():
            self._queue.get_nowait()

    def discard(self) -> None:
        """Free what was kept."""
        if self._file is not None:
            self._file.close()
