"""What was measured under faults: a line of docs/RELIABILITY.md."""

from typing import NamedTuple


class Figure(NamedTuple):
    """One measurement beside what it has to reach."""

    section: str
    """Which part of the page shows it: "Storm", "Zombies", "Outages", …"""
    what: str
    target: str
    measured: str
    met: bool
