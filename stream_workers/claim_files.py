"""The files of one block partition's claims: a folder that one process has to itself."""

import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

LOCK = "lock"
Bytes = npt.NDArray[np.uint8]


class FolderInUse(OSError):
    """Another process has the folder."""


class Files:
    """A folder of files that are appended to, or written once and then only read.

    Raises OSError when the disk is full, or fails.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder if need be, and take it. Raises FolderInUse."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        self._appended: dict[str, int] = {}
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise FolderInUse(f"{folder} is in use by another process") from error

    def names(self) -> list[str]:
        """Of all files, in order."""
        return sorted(name for name in os.listdir(self._folder) if name != LOCK)

    def read(self, name: str) -> Bytes:
        """The bytes of a file, which are read from the disk as they are looked at."""
        with open(self._folder / name, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return np.zeros(0, dtype=np.uint8)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def append(self, name: str, text: bytes) -> None:
        """Add to a file. Who dies meanwhile leaves a part of it."""
        handle = self._appended.get(name)
        if handle is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            handle = self._appended[name] = os.open(self._folder / name, flags, 0o644)
        view = memoryview(text)
        while view:
            view = view[os.write(handle, view) :]

    def write(self, name: str, size: int, fill: Callable[[Bytes], None]) -> None:
        """Make a file of so many bytes; `fill` gets them as zeros."""
        with open(self._folder / name, "w+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # or a full disk would kill the process
            fill(np.frombuffer(mmap.mmap(file.fileno(), size), dtype=np.uint8))

    def sync(self, name: str) -> None:
        """Make sure that what is in a file survives a power failure."""
        with open(self._folder / name, "rb") as file:
            os.fsync(file.fileno())

    def settle(self, name: str, final: str) -> None:
        """Make sure that a file survives a power failure, and give it another name then."""
        self.sync(name)
        os.rename(self._folder / name, self._folder / final)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self, name: str) -> None:
        """Remove a file; who has read it still can."""
        handle = self._appended.pop(name, None)
        if handle is not None:
            os.close(handle)
        (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the folder."""
        for handle in self._appended.values():
            os.close(handle)
        self._appended.clear()
        os.close(self._lock)
