"""A SQLite catalog that can be taken away."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    """The catalog's files in another place, for the length of a block."""
    place = folder / "away"
    place.mkdir()
    for file in folder.glob("catalog.db*"):
        file.rename(place / file.name)
    try:
        yield
    finally:
        for file in place.iterdir():
            file.rename(folder / file.name)
        place.rmdir()
