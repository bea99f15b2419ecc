"""Disks: RocksDB folders of simulated workers. A batch is in whole or not at all; a folder can be
lost, or be an older copy of itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.fibers import current, effect

Entry = tuple[str, bytes, bytes]  # column family, key, value


@dataclass
class Folder:
    """What was written to a folder, in order; its content is what that comes to."""

    changes: list[Callable[["Content"], None]] = field(default_factory=list)

    def content(self) -> "Content":
        """The families and their entries."""
        content: Content = {"default": {}}
        for change in self.changes:
            change(content)
        return content


Content = dict[str, dict[bytes, bytes]]


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


class Batch:
    """A WriteBatch."""

    def __init__(self, raw_mode: bool = True) -> None:
        self.entries: list[Entry] = []

    def put(self, key: bytes, value: bytes, family: str = "default") -> None:
        self.entries.append((family, key, value))


class Database:
    """An Rdict: the calls that the claim store makes of it."""

    def __init__(self, path: str, **options: Any) -> None:
        disks: Disks = current().process.world.disks
        if not (Path(path) / "CURRENT").exists():
            disks.folders[path] = Folder()
            (Path(path) / "CURRENT").touch()
        self._folder = disks.folders[path]
        self.content = self._folder.content()

    @staticmethod
    def list_cf(path: str, options: Any) -> list[str]:
        disks: Disks = current().process.world.disks
        return list(disks.folders[path].content()) if path in disks.folders else []

    def _change(self, name: str, change: Callable[[Content], None]) -> None:
        effect(f"claims: {name}")
        change(self.content)
        self._folder.changes.append(change)

    def get(self, key: bytes) -> bytes | None:
        return self.content["default"].get(key)

    def put(self, key: bytes, value: bytes) -> None:
        if self.get(key) != value:
            self._change(f"put {key.decode()}", lambda all_: all_["default"].update({key: value}))

    def write(self, batch: Batch, options: Any = None) -> None:
        def change(content: Content) -> None:
            for family, key, value in batch.entries:
                content[family][key] = value

        self._change(f"batch of {len(batch.entries)}", change)

    def create_column_family(self, name: str, options: Any) -> None:
        self._change(f"generation {name}", lambda content: content.update({name: {}}))

    def drop_column_family(self, name: str) -> None:
        def change(content: Content) -> None:
            del content[name]

        self._change(f"drop generation {name}", change)

    def get_column_family(self, name: str) -> "_Family":
        return _Family(self, name)

    def get_column_family_handle(self, name: str) -> str:
        return name

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class _Family:
    database: Database
    name: str

    def __getitem__(self, keys: list[bytes]) -> Sequence[bytes | None]:
        return [self.database.content[self.name].get(key) for key in keys]

    def close(self) -> None:
        """Nothing is held."""
