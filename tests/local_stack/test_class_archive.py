"""The broker's class archive: which one, who writes it, and when it is taken."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from local_stack.children import Child, Children
from local_stack.kafka import ClassArchive


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    jar = tmp_path / "a.jar"
    jar.write_text("classes")
    return jar


def test_what_a_broker_wrote_to_the_end_is_read_from_then_on(tmp_path: Path, jar: Path) -> None:
    archive = ClassArchive.of(tmp_path, [jar])
    assert archive.option == f"-XX:AOTCacheOutput={archive.draft}"
    archive.draft.write_bytes(b"\x01head and the rest")
    archive.adopt()
    assert ClassArchive.of(tmp_path, [jar]).option == f"-XX:AOTCache={archive.file}"
    assert not archive.draft.exists()


def test_a_draft_without_its_head_is_thrown_away(tmp_path: Path, jar: Path) -> None:
    archive = ClassArchive.of(tmp_path, [jar])
    archive.draft.write_bytes(bytes(100))
    archive.adopt()
    assert not archive.file.exists() and not archive.draft.exists()
    archive.adopt()  # nothing was written


def test_other_jars_have_another_archive_and_the_old_one_goes(tmp_path: Path, jar: Path) -> None:
    before = ClassArchive.of(tmp_path, [jar])
    before.file.write_bytes(b"\x01")
    other = tmp_path / "b.jar"
    other.touch()
    after = ClassArchive.of(tmp_path, [jar, other])
    assert after.file != before.file
    assert after.option.startswith("-XX:AOTCacheOutput")
    assert not before.file.exists()


SLEEPER = "import time; print('up', flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("code", "killed", "told"),
    [(SLEEPER, False, 1), (SLEEPER, True, 0), ("raise SystemExit(3)", False, 0)],
)
async def test_only_a_child_that_was_asked_to_end_is_said_to_have_stopped(
    tmp_path: Path, code: str, killed: bool, told: int
) -> None:
    stops: list[int] = []
    child = Child(
        "sleeper",
        [sys.executable, "-c", code],
        restart=False,
        stopped=lambda: stops.append(1),
    )
    async with Children(tmp_path) as children:
        await children.start(child)
        while "up" not in (tmp_path / "sleeper.log").read_text() and children.pids():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if killed:
            [running] = children._running
            running.process.send_signal(signal.SIGKILL)
            await running.process.wait()
    assert len(stops) == told
