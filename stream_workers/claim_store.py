"""The claims of one block partition on disk, which ClickHouse can always refill.

What a block claims is appended to a log, and kept in memory until it is enough for a run of its own
on disk; runs of about one size become one (docs/decisions/0032). A claim lives in the generation of
its block time, `time // horizon`; a look-up reads the block's own generation and the one before,
and older ones are dropped whole: expiry follows the log.
"""

import contextlib
import logging
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Self

import numpy as np

from stream_workers.claim_files import Bytes, Files
from stream_workers.claim_runs import (
    Run,
    Unreadable,
    due,
    lay_out,
    look_up,
    merged,
    one_of,
    size_of,
)
from stream_workers.claims import CLAIM, KEY_BYTES, Claims, Keys, Table, later, no_claims

RECENT_MAX = 1 << 18
"""Claims that are kept in memory: 11 MiB."""
LOG_BYTES_MAX = 16 << 20
"""Of a log, which is mostly heads of frames when blocks are small."""
_FRAME = struct.Struct("<IIqq")  # checksum of what follows; claims, generation, reached
_START = struct.Struct("<II")
"""In place of a generation, in the first frame of a log: the log before it, and its bytes."""
_IDENTITY = "identity"
_NEW = "new-"
log = logging.getLogger(__name__)


class _Name(NamedTuple):
    """Of a run on disk: its generation, and the first and last log whose claims are in."""

    generation: int
    first: int
    last: int

    @classmethod
    def of(cls, text: str) -> Self | None:
        kind, *numbers = text.split("-")
        return cls(*map(int, numbers)) if kind == "run" else None

    def __str__(self) -> str:
        return "run-" + "-".join(f"{number:012d}" for number in self)

    def holds(self, other: "_Name") -> bool:
        """Whether the other was merged into it."""
        same = self.generation == other.generation
        return self != other and same and self.first <= other.first and other.last <= self.last


class _Closing(Exception):
    """Merging was left off."""


class ClaimStore:
    """Claims of one block partition, and the offset up to which they are complete.

    `reached` is an offset up to which every block's claims are in (-1: none). Blocks beyond it may
    be written while older claims are still read back: it moves over them when nothing is missing
    before them. One thread at a time; what `background` does is seen by nobody.
    """

    def __init__(
        self,
        folder: Path,
        *,
        identity: str,
        horizon_ms: int,
        background: Executor | None = None,
    ) -> None:
        """Open or create the folder; one that belongs to another log or store is emptied first.

        Runs are merged in the one thread of `background`, or, without, by whoever writes. Raises
        FolderInUse, OSError.
        """
        self._horizon_ms = horizon_ms
        self._identity = f"{identity}/{horizon_ms}".encode()  # generations are counted by it
        self._background = background
        self._lock = Lock()  # of `_stored`: the background changes it too
        self._jobs: list[Future[None]] = []
        self._closing = False
        self._forget()
        self._files = Files(folder)
        try:
            self._open()
        except BaseException:
            self._files.close()
            raise

    def _forget(self) -> None:
        self.reached = -1
        self._written = range(0)  # the blocks written since, without a gap
        self._oldest = -(1 << 62)  # of the generations that are kept
        self._recent: dict[int, list[Run]] = {}  # from the youngest to the oldest
        self._recent_count = 0
        self._stored: dict[int, list[tuple[_Name, Run]]] = {}  # from the youngest to the oldest
        self._log_number = self._log_bytes = 0

    def _open(self) -> None:
        names = self._files.names()
        ours = _IDENTITY in names and self._files.read(_IDENTITY).tobytes() == self._identity
        if not ours:
            self._empty()
            return
        runs = [name for name in map(_Name.of, names) if name is not None]
        whole = [name for name in runs if not any(other.holds(name) for other in runs)]
        try:
            for name in sorted(whole, key=lambda name: -name.last):
                run = Run.read(self._files.read(str(name)))
                self._stored.setdefault(name.generation, []).append((name, run))
        except Unreadable as error:
            log.error("claims are read back from the store: %s: %s", name, error)
            self._empty()
            return
        logs = [name for name in names if name.startswith("log-")]
        for each in set(names) - {_IDENTITY, *logs, *map(str, whole)}:
            self._files.remove(each)
        numbers = [name.last for name in whole] + [_log_number(each) for each in logs]
        if logs:  # the last may lack its end: nothing must come behind that
            start = self._replay(logs)
            self._flush(logs, number=max(numbers) + 1, start=start)
        else:
            self._log_number = max(numbers, default=0)

    def _replay(self, logs: list[str]) -> int:
        """Take in the claims of logs, as far as they are whole; where the next one starts.

        A log counts only if the one before it has all that it had when this one was begun: after a
        power failure a younger file may be there and the end of an older one not.
        """
        found: dict[int, list[Claims]] = {}
        before: int | None = None
        for name in logs:
            size = 0
            for number, frame in enumerate(_frames(self._files.read(name))):
                if number == 0 and before not in (None, frame.generation):
                    break
                if len(frame.claims):
                    found.setdefault(frame.generation, []).append(frame.claims)
                self.reached = frame.reached
                size += frame.size
            if before is None or size:
                before = _start(_log_number(name), size)
        for generation, claims in found.items():
            self._keep(generation, Claims.joined(claims[::-1]).firsts())
        assert before is not None
        return before

    def clear(self) -> None:
        """Forget everything: these claims are of no use."""
        self._end_jobs()
        self._empty()

    def _empty(self) -> None:
        self._forget()
        for name in self._files.names():
            self._files.remove(name)
        self._files.append(_IDENTITY, self._identity)

    def look_up(self, keys: Keys, time: int) -> Table:
        """The claims of keys for a block appended at `time` (ms), the latest of each key.

        Faster for keys in their order.
        """
        own = self._generation(time)
        return look_up((run for each in (own + 1, own, own - 1) for run in self._runs(each)), keys)

    def _generation(self, time: int) -> int:
        return max(0, time // self._horizon_ms)  # -1 is a time that Kafka doesn't know

    def _runs(self, generation: int) -> list[Run]:
        with self._lock:
            stored = [run for _, run in self._stored.get(generation, ())]
        return [*self._recent.get(generation, ()), *stored]

    def write(self, offset: int, time: int, claims: Claims) -> None:
        """Add the claims of the block at `offset`, appended at `time`; blocks come in order.

        They are in the order of their keys, one of each. `reached` moves there, at once with them,
        when it stood right before.
        """
        generation = self._generation(time)
        self._drop_before(generation - 1)
        self._append(generation, offset if offset == self.reached + 1 else self.reached, claims)
        self._written = range(self._written.start if self._written else offset, offset + 1)

    def add(self, claims: Claims) -> None:
        """Add claims read back from the store, in any order.

        Of several claims of an id the later position stays, also when `write` brought it.
        `reached` stays until `complete` says otherwise.
        """
        generations = np.maximum(claims.table["time"] // self._horizon_ms, 0)
        for generation in np.unique(generations).tolist():
            coming = claims.take(generations == generation).latest()
            held = look_up(self._runs(generation), coming.keys)
            self._append(generation, self.reached, coming.take(later(held, coming.table) != held))

    def complete(self, offset: int) -> None:
        """Say that every claim up to `offset` is in; `reached` takes what was written after it."""
        if offset + 1 in self._written:
            offset = self._written.stop - 1
        self._append(0, offset, no_claims())

    def _append(self, generation: int, reached: int, claims: Claims) -> None:
        if self._recent_count >= RECENT_MAX or self._log_bytes >= LOG_BYTES_MAX:
            self._flush(
                [_log_name(self._log_number)],
                number=self._log_number + 1,
                start=_start(self._log_number, self._log_bytes),
            )
        frame = _frame(generation, reached, claims)
        self._files.append(_log_name(self._log_number), frame)
        self._log_bytes += len(frame)
        self._keep(generation, claims)
        self.reached = reached

    def _keep(self, generation: int, claims: Claims) -> None:
        if not len(claims):
            return
        runs = self._recent.setdefault(generation, [])
        runs.insert(0, Run.of(claims))
        self._recent_count += len(claims)
        while count := due([len(run) for run in runs]):
            runs[:count] = [one_of(runs[:count])]

    def _flush(self, logs: list[str], *, number: int, start: int) -> None:
        """Write what is in memory as runs, and go on with log `number` in place of `logs`."""
        self._raise_faults()
        runs: list[tuple[_Name, Run]] = []
        for generation, recent in self._recent.items():
            name = _Name(generation, number, number)
            self._write(name, sum(map(len, recent)), merged(recent))
            runs.append((name, Run.read(self._files.read(f"{_NEW}{name}"))))
        frame = _frame(start, self.reached, no_claims())
        self._files.append(_log_name(number), frame)
        self._log_number, self._log_bytes = number, len(frame)
        with self._lock:
            for name, run in runs:
                self._stored.setdefault(name.generation, []).insert(0, (name, run))
        self._recent, self._recent_count = {}, 0
        self._in_background(lambda: self._settle([name for name, _ in runs], number, logs))

    def _write(self, name: _Name, room: int, pieces: Iterable[Claims]) -> None:
        self._files.write(
            f"{_NEW}{name}", size_of(room), lambda content: lay_out(pieces, room, content)
        )

    def _settle(self, names: list[_Name], number: int, logs: list[str]) -> None:
        """Make runs last, and the log behind them; remove the logs that they hold; merge."""
        for name in names:
            self._files.settle(f"{_NEW}{name}", str(name))
        self._files.sync(_log_name(number))
        for each in logs:
            self._files.remove(each)
        for name in names:
            while self._merge(name):
                pass

    def _merge(self, youngest: _Name) -> bool:
        """Merge runs that are due, of which none is younger than this one; whether any were."""
        with self._lock:
            known = self._stored.get(youngest.generation, [])
            stored = [each for each in known if each[0].last <= youngest.last]
        count = due([len(run) for _, run in stored])
        if not count:
            return False
        names = [name for name, _ in stored[:count]]
        runs = [Run.read(self._files.read(str(name))) for name in names]  # not to stay in memory
        name = _Name(youngest.generation, names[-1].first, names[0].last)
        self._write(name, sum(map(len, runs)), self._unless_closing(merged(runs)))
        self._files.settle(f"{_NEW}{name}", str(name))
        run = Run.read(self._files.read(str(name)))
        with self._lock:
            at = known.index(stored[0])
            known[at : at + count] = [(name, run)]
        for each in names:
            self._files.remove(str(each))
        return True

    def _unless_closing(self, pieces: Iterator[Claims]) -> Iterator[Claims]:
        for piece in pieces:
            if self._closing:
                raise _Closing
            yield piece

    def _drop_before(self, generation: int) -> None:
        """Drop generations whose claims have all expired."""
        if generation <= self._oldest:
            return
        self._oldest = generation
        for old in [each for each in self._recent if each < generation]:
            self._recent_count -= sum(map(len, self._recent.pop(old)))
        with self._lock:
            gone = [each for each in self._stored if each < generation]
            for old in gone:
                del self._stored[old]
        if gone:
            self._in_background(lambda: self._remove_before(generation))

    def _remove_before(self, generation: int) -> None:
        for name in map(_Name.of, self._files.names()):
            if name is not None and name.generation < generation:
                self._files.remove(str(name))

    def _in_background(self, work: Callable[[], None]) -> None:
        if self._background is None:
            work()
        else:
            self._jobs.append(self._background.submit(work))

    def _raise_faults(self) -> None:
        """Raise what a job in the background has raised."""
        done = [job for job in self._jobs if job.done()]
        self._jobs = [job for job in self._jobs if not job.done()]
        for job in done:
            job.result()

    def _end_jobs(self) -> None:
        """Let the background do nothing more: what it hasn't done is done at the next start.

        Raises what it has raised.
        """
        self._closing = True
        youngest_first = self._jobs[::-1]  # none is begun whose forerunner is not
        self._jobs = [job for job in youngest_first if not job.cancel()][::-1]
        wait(self._jobs)
        self._closing = False
        with contextlib.suppress(_Closing):
            self._raise_faults()

    def close(self) -> None:
        """Let go of the folder; another worker may open it afterwards."""
        try:
            self._end_jobs()
        finally:
            self._files.close()


def _log_name(number: int) -> str:
    return f"log-{number:012d}"


def _log_number(name: str) -> int:
    return int(name.removeprefix("log-"))


def _start(number: int, size: int) -> int:
    """What the first frame of a log says of the log before it."""
    return int.from_bytes(_START.pack(size, number), "little")


class _Frame(NamedTuple):
    """A frame of a log: the claims of one block, and what is `reached` with them."""

    generation: int
    reached: int
    claims: Claims
    size: int


def _frame(generation: int, reached: int, claims: Claims) -> bytes:
    """A frame as a log has it."""
    body = b"".join(
        (claims.keys.heads.tobytes(), claims.keys.tails.tobytes(), claims.table.tobytes())
    )
    head = _FRAME.pack(0, len(claims), generation, reached)[4:]
    return zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little") + head + body


def _frames(content: Bytes) -> Iterator[_Frame]:
    """The frames of a log, up to one that isn't whole."""
    at, text = 0, content.data
    while at + _FRAME.size <= len(text):
        checksum, count, generation, reached = _FRAME.unpack(text[at : at + _FRAME.size])
        body = at + _FRAME.size
        end = body + count * (KEY_BYTES + CLAIM.itemsize)
        if end > len(text) or zlib.crc32(text[at + 4 : end]) != checksum:
            return
        halves = np.frombuffer(bytes(text[body : body + count * KEY_BYTES]), np.uint64)
        table = np.frombuffer(bytes(text[body + count * KEY_BYTES : end]), CLAIM)
        claims = Claims(Keys(halves[:count], halves[count:]), table)
        yield _Frame(generation, reached, claims, end - at)
        at = end
