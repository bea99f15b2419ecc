"""A file that is written whole: whoever reads it sees all of it or none."""

from pathlib import Path


def write_whole(file: Path, text: str, mode: int = 0o644) -> None:
    """Write a text to a file of this mode."""
    draft = file.with_name(file.name + ".new")
    draft.touch(mode)
    draft.write_text(text)
    draft.replace(file)
