"""What a full disk does to the engine, and how it gets over it.

A merge that finds no room for what it writes (ENOSPC) is published all the same, its files empty
or cut short, and the parts that it was made of are dropped; seen in engine 26.9, whatever the
parts' storage and with fsync. INSERTs report it. So

- no merge is under way when the disk becomes full: where little room is left they are stopped;
- the parts that were merged stay for `old_parts_lifetime` (clickhouse_config.xml);
- after a full disk the engine starts over: at a start it sees which parts are damaged, sets those
  aside, and has the ones back that they were made of.
"""

import os
import sys
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path

LOOK_EVERY_S = 0.2
LOW_BYTES = 256 << 20
LOW_SHARE = 20
"""A small disk is low when a twentieth of it is left."""
FULL_BYTES = 16 << 20
"""More than is written between two looks by what is small: with less there may have been none."""
EXIT_FAULT = 70


class Room(Enum):
    """What there is to write on."""

    ENOUGH = "enough"
    LOW = "low"
    FULL = "full"


def room(total: int, left: int) -> Room:
    """How a disk of so many bytes is called when so many are left; some file systems don't say."""
    if not total:
        return Room.ENOUGH
    if left < FULL_BYTES:
        return Room.FULL
    return Room.LOW if left < min(LOW_BYTES, total // LOW_SHARE) else Room.ENOUGH


def room_on(folder: Path) -> Room:
    """What there is on the disk of a folder."""
    disk = os.statvfs(folder)
    return room(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)


def start_over() -> None:
    """End this process at once; its supervisor starts it again."""
    sys.stderr.write("the disk was full: starting over, for what was merged meanwhile is lost\n")
    sys.stderr.flush()
    os._exit(EXIT_FAULT)


class DiskWatch:
    """Stops merges while room is low, and starts over once a full disk has room again.

    merge  Lets merges run, or stops those that do and lets none begin. False: it could not, and
           is asked again at the next look.
    """

    def __init__(
        self,
        look: Callable[[], Room],
        merge: Callable[[bool], bool],
        start_over: Callable[[], None] = start_over,
    ) -> None:
        self._look_at_room = look
        self._merge = merge
        self._start_over = start_over
        self._was_full = False
        self._merging = True

    def look(self) -> None:
        """Look once, and do what is to be done."""
        now = self._look_at_room()
        self._was_full |= now is Room.FULL
        if now is Room.ENOUGH and self._was_full:
            self._start_over()
        elif self._merging != (now is Room.ENOUGH) and self._merge(now is Room.ENOUGH):
            self._merging = now is Room.ENOUGH

    def run(self, closing: threading.Event) -> None:
        """Look until the engine closes."""
        while not closing.wait(LOOK_EVERY_S):
            self.look()
