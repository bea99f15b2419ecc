"""A full disk: what the watch does about it, and what the engine has afterwards."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from clickhouse.client import connect
from local_stack.children import Children
from local_stack.clickhouse import clickhouse_child, clickhouse_url
from local_stack.disk import LOOK_EVERY_S, DiskWatch, Room, room
from local_stack.settings import StackSettings
from tests.e2e.running import until
from tests.stack import stack_settings

MIB = 1 << 20
DISK_BYTES = 1024 * MIB
PARTS, PART_ROWS, TEXT_BYTES = 8, 1000, 99


@pytest.mark.parametrize(
    ("total", "left", "called"),
    [
        (1 << 40, 300 * MIB, Room.ENOUGH),
        (1 << 40, 255 * MIB, Room.LOW),
        (1 << 40, 15 * MIB, Room.FULL),
        (1 << 30, 52 * MIB, Room.ENOUGH),
        (1 << 30, 51 * MIB, Room.LOW),
        (0, 0, Room.ENOUGH),
    ],
)
def test_a_disk_is_low_before_it_is_full(total: int, left: int, called: Room) -> None:
    assert room(total, left) is called


class Watched:
    """A watch, and what it did; `says` is what it sees next."""

    def __init__(self) -> None:
        self.says = Room.ENOUGH
        self.deaf = False
        self.deeds: list[str] = []
        self.watch = DiskWatch(lambda: self.says, self.merge, lambda: self.deeds.append("over"))

    def merge(self, wanted: bool) -> bool:
        if not self.deaf:
            self.deeds.append("merge" if wanted else "stop")
        return not self.deaf

    def sees(self, *rooms: Room) -> list[str]:
        """What it does on seeing these, one after the other."""
        self.deeds.clear()
        for self.says in rooms:
            self.watch.look()
        return list(self.deeds)


def test_merges_stop_while_room_is_low() -> None:
    watched = Watched()
    assert watched.sees(Room.ENOUGH, Room.ENOUGH) == []
    assert watched.sees(Room.LOW, Room.LOW) == ["stop"]
    assert watched.sees(Room.ENOUGH, Room.ENOUGH) == ["merge"]


def test_who_could_not_stop_merges_tries_again() -> None:
    watched = Watched()
    watched.deaf = True
    assert watched.sees(Room.LOW) == []
    watched.deaf = False
    assert watched.sees(Room.LOW) == ["stop"]


def test_after_a_full_disk_the_engine_starts_over_once_there_is_room() -> None:
    watched = Watched()
    assert watched.sees(Room.FULL, Room.LOW, Room.FULL) == ["stop"]
    assert watched.sees(Room.ENOUGH) == ["over"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that can be filled; needs root, and mounts that are allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.e2e
async def test_what_was_merged_on_a_full_disk_is_there_again(small_disk: Path) -> None:
    """Without the start over it is gone: its part is published without content."""
    settings: StackSettings = stack_settings(small_disk)
    said: list[str] = []
    children = Children(small_disk.parent / "logs", said.append)
    await children.start(clickhouse_child(settings))
    try:
        client = await asyncio.to_thread(connect, clickhouse_url(settings))
        await asyncio.to_thread(_merge_on_a_full_disk, client, small_disk)
        await asyncio.to_thread(until, lambda: "clickhouse runs again" in said, True, 60)
        rows = PARTS * PART_ROWS
        assert await asyncio.to_thread(_content, client) == (rows, rows * TEXT_BYTES)
    finally:
        await children.stop()
    assert "clickhouse ended with status 70" in said[0]


def _merge_on_a_full_disk(client: Client, disk: Path) -> None:
    client.command("CREATE TABLE merged (n UInt64, text String) ENGINE = MergeTree ORDER BY n")
    client.command("SYSTEM STOP MERGES merged")
    for part in range(PARTS):
        client.command(
            "INSERT INTO merged SELECT number, randomString({bytes:UInt64})"
            " FROM numbers({first:UInt64}, {rows:UInt64})",
            {"bytes": TEXT_BYTES, "first": part * PART_ROWS, "rows": PART_ROWS},
        )
    client.command("SYSTEM START MERGES merged")
    merging = Thread(target=_optimize, args=[client])
    merging.start()
    _fill(disk)
    merging.join()
    time.sleep(5 * LOOK_EVERY_S)
    _resize(disk, DISK_BYTES)


def _optimize(client: Client) -> None:
    with contextlib.suppress(ClickHouseError):
        client.command("OPTIMIZE TABLE merged FINAL")


def _content(client: Client) -> tuple[int, int]:
    [row] = client.query("SELECT count(text), sum(length(text)) FROM merged").result_rows
    return int(row[0]), int(row[1])


def _fill(disk: Path) -> None:
    """Leave no room; anew when something was written before that came into force."""
    for _ in range(20):
        with contextlib.suppress(subprocess.CalledProcessError):
            return _resize(disk, _used(disk))
    raise TimeoutError("the disk grows faster than it can be filled")


def _used(disk: Path) -> int:
    room = os.statvfs(disk)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


def _resize(disk: Path, size: int) -> None:
    command = ["mount", "-o", f"remount,size={size}", str(disk)]
    subprocess.run(command, check=True, capture_output=True)
