"""Disks: folders of claims of simulated workers. What is written to a file is in whole or not at
all; a folder can be lost, or be an older copy of itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stream_workers.claim_files import Bytes
from tests.simulation.fibers import current, effect

RECENT_MAX = 3
SMALL = 1
FAN = 2
"""So that a few claims make up several runs on disk, and these are merged."""

Content = dict[str, bytes]


@dataclass
class Folder:
    """What was done to a folder, in order; its content is what that comes to."""

    changes: list[Callable[[Content], object]] = field(default_factory=list)

    def content(self) -> Content:
        """The files and what is in them."""
        content: Content = {}
        for change in self.changes:
            change(content)
        return content


class Disks:
    """All folders by their path."""

    def __init__(self) -> None:
        self.folders: dict[str, Folder] = {}

    def of(self, worker: str) -> list[Folder]:
        """The folders of a worker."""
        return [each for path, each in self.folders.items() if f"/{worker}/" in path]

    def lose(self, worker: str) -> None:
        """A new disk."""
        for folder in self.of(worker):
            folder.changes.clear()

    def age(self, worker: str) -> None:
        """An older copy of the folders: the last half of what was written is not in it."""
        for folder in self.of(worker):
            del folder.changes[len(folder.changes) // 2 :]


class Files:
    """A folder as the claim store uses it."""

    def __init__(self, path: Path) -> None:
        disks: Disks = current().process.world.disks
        self._folder = disks.folders.setdefault(str(path), Folder())
        self._content = self._folder.content()

    def _change(self, name: str, change: Callable[[Content], object]) -> None:
        effect(f"claims: {name}")
        change(self._content)
        self._folder.changes.append(change)

    def names(self) -> list[str]:
        """Of all files, in order."""
        return sorted(self._content)

    def read(self, name: str) -> Bytes:
        """The bytes of a file."""
        return np.frombuffer(self._content[name], dtype=np.uint8)

    def append(self, name: str, text: bytes) -> None:
        """Add to a file."""
        self._change(
            f"append to {name}", lambda files: files.update({name: files.get(name, b"") + text})
        )

    def write(self, name: str, size: int, fill: Callable[[Bytes], None]) -> None:
        """Make a file."""
        content = np.zeros(size, dtype=np.uint8)
        fill(content)
        self._change(f"write {name}", lambda files: files.update({name: content.tobytes()}))

    def sync(self, name: str) -> None:
        """Whatever is written stays: nobody has a power failure."""

    def settle(self, name: str, final: str) -> None:
        """Give a file its name."""
        self._change(f"settle {final}", lambda files: files.update({final: files.pop(name)}))

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._change(f"remove {name}", lambda files: files.pop(name, None))

    def close(self) -> None:
        """Nothing is held."""
