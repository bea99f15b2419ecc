"""Claims on disk."""

import contextlib
import gc
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from threading import Event
from time import sleep
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from stream_workers import claim_runs, claim_store
from stream_workers.claim_files import Bytes, Files, FolderInUse
from stream_workers.claim_store import ClaimStore, _Name
from stream_workers.claims import Claim, Claims, Keys
from tests.stream_workers.worlds import claim, found_in

DAY = 24 * 3_600_000
HORIZON = 35 * DAY
KEYS = [bytes([number]) * 16 for number in range(4)]
A, B, C, D = KEYS


def opened(folder: Path, identity: str = "store/0") -> ClaimStore:
    return ClaimStore(folder / "claims", identity=identity, horizon_ms=HORIZON)


def written(*pairs: tuple[bytes, Claim]) -> Claims:
    return Claims.of(pairs).firsts()


def seen(store: ClaimStore, keys: list[bytes], time: int = DAY) -> list[Claim | None]:
    """What the store says of keys, in any order."""
    return found_in(store.look_up(Keys.of(b"".join(keys)), time))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_claims_and_the_offset_reached_survive_a_restart(folder: Path) -> None:
    store = opened(folder)
    assert (store.reached, seen(store, [A, B], DAY)) == (-1, [None, None])
    store.write(0, DAY, written((A, claim(0))))
    store.write(1, DAY, written())
    store.close()
    store = opened(folder)
    assert store.reached == 1
    assert seen(store, [B, A], DAY) == [None, claim(0)]
    store.close()


def test_a_block_without_claims_moves_the_offset(folder: Path) -> None:
    store = opened(folder)
    store.write(0, DAY, written())
    assert store.reached == 0
    assert seen(store, [A], DAY) == [None]
    store.close()


def test_a_claim_is_found_until_its_horizon_and_the_newer_one_wins(folder: Path) -> None:
    store = opened(folder)
    time = 10 * HORIZON + DAY
    store.write(1, time, written((A, claim(1)), (B, claim(1, 1))))
    store.write(2, time + HORIZON - DAY, written((C, claim(2))))
    later = time + HORIZON - 1
    store.write(3, later, written((B, claim(3))))
    assert seen(store, KEYS, later) == [claim(1), claim(3), claim(2), None]
    store.close()


def test_generations_beyond_the_horizon_are_dropped_and_stay_dropped(folder: Path) -> None:
    store = opened(folder)
    for number, key in enumerate(KEYS):
        store.write(number, number * HORIZON + 1, written((key, claim(number))))
    assert seen(store, KEYS, 3 * HORIZON + 1) == [None, None, claim(2), claim(3)]
    store.close()
    store = opened(folder)
    assert seen(store, KEYS, 3 * HORIZON + 1) == [None, None, claim(2), claim(3)]
    store.write(4, 3 * HORIZON + 2, written())
    assert seen(store, KEYS, 1) == [None] * 4
    store.close()


def test_a_block_from_before_the_turn_of_a_generation_sees_what_came_after(folder: Path) -> None:
    """The broker's clock may step back a little."""
    store = opened(folder)
    store.write(1, 2 * HORIZON + 1, written((A, claim(1))))
    assert seen(store, [A], 2 * HORIZON - 1) == [claim(1)]
    store.close()


def test_blocks_from_long_before_the_last_one_find_each_others_claims(folder: Path) -> None:
    """The broker's clock may be set back for good."""
    store = opened(folder)
    store.write(1, 9 * HORIZON, written((A, claim(1))))
    store.write(2, 2 * HORIZON, written((B, claim(2))))
    older = claim(0, time=2 * HORIZON)
    store.add(Claims.of([(C, older)]))
    for _ in range(3):
        assert seen(store, [A, B, C], 2 * HORIZON + 1) == [None, claim(2), older]
        store.close()
        store = opened(folder)
    store.close()


def test_a_block_of_no_known_time_is_of_the_first_generation(folder: Path) -> None:
    store = opened(folder)
    store.write(0, -1, written((A, claim(0))))
    for _ in range(3):
        assert seen(store, [A], -1) == [claim(0)]
        store.close()
        store = opened(folder)
    store.close()


def test_claims_of_another_horizon_are_of_no_use(folder: Path) -> None:
    opened(folder).close()
    store = ClaimStore(folder / "claims", identity="store/0", horizon_ms=HORIZON)
    store.write(0, 9 * HORIZON, written((A, claim(0))))
    store.close()
    store = ClaimStore(folder / "claims", identity="store/0", horizon_ms=2 * HORIZON)
    assert store.reached == -1
    store.close()


def test_claims_read_back_count_once_they_are_complete(folder: Path) -> None:
    store = opened(folder)
    older, latest, other = (
        claim(1, time=DAY), claim(3, time=HORIZON + DAY), claim(2, time=HORIZON + DAY),
    )  # fmt: skip
    store.add(Claims.of([(A, older), (B, other), (A, latest)]))
    assert store.reached == -1
    store.complete(3)
    store.close()
    store = opened(folder)
    assert store.reached == 3
    assert seen(store, [A, B], HORIZON + DAY) == [latest, other]
    store.close()


def test_blocks_counted_before_all_older_claims_are_in_do_not_hide_that_some_lack(
    folder: Path,
) -> None:
    """Whoever dies in the middle of reading claims back has to go on reading."""
    store = opened(folder)
    store.write(7, DAY, written((A, claim(7))))
    store.complete(3)
    store.write(8, DAY, written((B, claim(8))))
    assert store.reached == 3
    store.close()
    store = opened(folder)
    assert store.reached == 3
    assert seen(store, [A, B], DAY) == [claim(7), claim(8)]
    store.write(9, DAY, written())
    store.complete(8)
    assert store.reached == 9
    store.write(10, DAY, written())
    assert store.reached == 10
    store.close()
    store = opened(folder)
    assert store.reached == 10
    store.close()


def test_of_claims_read_back_and_written_the_later_position_stays(folder: Path) -> None:
    store = opened(folder)
    at = partial(claim, time=DAY)
    store.write(7, DAY, written((A, at(7)), (B, at(7, 1))))
    store.add(Claims.of([(A, at(3)), (B, at(8)), (C, at(4)), (C, at(2))]))
    store.add(Claims.of([(D, at(5, 1)), (D, at(5, 2))]))
    assert seen(store, KEYS, DAY) == [at(7), at(8), at(4), at(5, 2)]
    store.close()


def test_the_claims_of_another_store_are_of_no_use(folder: Path) -> None:
    store = opened(folder)
    store.write(7, DAY, written((A, claim(7))))
    store.close()
    store = opened(folder, "another/0")
    assert (store.reached, seen(store, [A], DAY)) == (-1, [None])
    store.close()
    store = opened(folder, "store/0")
    assert store.reached == -1
    store.close()


def test_thousands_of_claims_at_once(folder: Path) -> None:
    store = opened(folder)
    keys = [number.to_bytes(16, "big") for number in range(20_000)]
    store.write(1, DAY, written(*((key, claim(1, number)) for number, key in enumerate(keys))))
    assert seen(store, keys[::-1], DAY) == [claim(1, n) for n in range(20_000)][::-1]
    store.close()


# Files


class Died(BaseException):
    """The process is killed here."""


class Mortal(Files):
    """Files of a process that is killed at a change of the disk: right before it, or half done."""

    left = 1 << 30

    def _live(self) -> None:
        Mortal.left -= 1
        if Mortal.left < 0:
            raise Died

    def append(self, name: str, text: bytes) -> None:
        if Mortal.left == 0:
            super().append(name, text[: len(text) // 2])
        self._live()
        super().append(name, text)

    def write(self, name: str, size: int, fill: Callable[[Bytes], None]) -> None:
        if Mortal.left == 0:
            super().write(name, size // 2, lambda _: None)
        self._live()
        super().write(name, size, fill)

    def sync(self, name: str) -> None:
        """The system goes on: what was written stays."""

    def settle(self, name: str, final: str) -> None:
        self._live()
        super().settle(name, final)

    def remove(self, name: str) -> None:
        self._live()
        super().remove(name)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few claims make up several runs on disk, and these are merged."""
    monkeypatch.setattr(claim_store, "RECENT_MAX", 3)
    monkeypatch.setattr(claim_runs, "SMALL", 1)
    monkeypatch.setattr(claim_runs, "FAN", 2)


def key(number: int) -> bytes:
    return sha256(b"%d" % number).digest()[:16]


def block(number: int) -> tuple[int, int, Claims]:
    """Two new ids and one of long ago, whose claim had expired; time goes on."""
    time = DAY + number * HORIZON // 8
    pairs = [(key(n), claim(number, n, time)) for n in (number * 2, number * 2 + 1)]
    if number >= 20:
        pairs.append((key((number - 20) * 2), claim(number, 99, time)))
    return number, time, written(*pairs)


def check(store: ClaimStore, at_least: int) -> None:
    """What the store says it has, it has."""
    assert store.reached >= at_least
    for number in range(max(0, store.reached - 7), store.reached + 1):  # within the horizon
        _, _, claims = block(number)
        time = block(store.reached)[1]
        assert found_in(store.look_up(claims.keys, time)) == [each for _, each in claims.pairs()]


@pytest.mark.usefixtures("small")
def test_whoever_is_killed_at_any_change_of_the_disk_has_lost_nothing_that_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_store, "Files", Mortal)
    changes = 0
    for last in count():
        folder = tmp_path / str(last)
        Mortal.left = last
        done, store = -1, None
        try:
            store = opened(folder)
            for number in range(18):
                store.write(*block(number))
                done = number
        except Died:
            changes += 1
        Mortal.left = 1 << 30
        if store is not None:
            store._files.close()  # as the system does
        gc.collect()
        store = opened(folder)
        check(store, done)
        runs = [_Name.of(path.name) for path in (folder / "claims").iterdir()]
        assert not any(one.holds(other) for one in runs for other in runs if one and other)
        for number in range(store.reached + 1, 24):
            store.write(*block(number))
        check(store, 23)
        store.close()
        if done == 17:
            break
        shutil.rmtree(folder)
    assert changes > 50


@pytest.mark.usefixtures("small")
def test_a_log_that_lacks_its_end_counts_up_to_there(folder: Path) -> None:
    store = opened(folder)
    for number in range(2):
        store.write(*block(number))
    store.close()
    [path] = (folder / "claims").glob("log-*")
    whole = path.read_bytes()
    reached = []
    for length in range(len(whole)):
        again = folder / str(length)
        shutil.copytree(folder / "claims", again / "claims")
        (again / "claims" / path.name).write_bytes(whole[:length])
        store = opened(again)
        check(store, -1)
        reached.append(store.reached)
        for number in range(store.reached + 1, 3):
            store.write(*block(number))
        store.close()
        store = opened(again)
        check(store, 2)
        store.close()
    assert reached == sorted(reached)
    assert set(reached) == {-1, 0}


@pytest.mark.usefixtures("small")
def test_a_log_counts_only_if_the_one_before_it_has_all_that_it_had(folder: Path) -> None:
    """After a power failure the end of a file may be missing and a younger file be there."""
    go_on = Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(go_on.wait)
        store = in_background(folder, thread)
        for number in range(8):
            store.write(*block(number))
        store.close()
        go_on.set()
    logs = sorted((folder / "claims").glob("log-*"))
    assert len(logs) >= 3
    reached = set()
    for path in logs:
        whole = path.read_bytes()
        for length in range(0, len(whole), 7):
            again = folder / f"{path.name}-{length}"
            shutil.copytree(folder / "claims", again / "claims")
            (again / "claims" / path.name).write_bytes(whole[:length])
            store = opened(again, "x")
            check(store, -1)
            reached.add(store.reached)
            for number in range(store.reached + 1, 12):
                store.write(*block(number))
            store._files.close()
            store = opened(again, "x")
            check(store, 11)
            store.close()
    assert {-1, 3} < reached <= set(range(-1, 8))


def test_a_log_with_a_wrong_byte_counts_up_to_there(folder: Path) -> None:
    store = opened(folder)
    for number in range(3):
        store.write(*block(number))
    store.close()
    [path] = (folder / "claims").glob("log-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    store = opened(folder)
    check(store, 0)
    assert store.reached == 0
    store.close()


@pytest.mark.usefixtures("small")
def test_a_run_that_cannot_be_read_makes_all_claims_be_read_back(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(folder)
    for number in range(6):
        store.write(*block(number))
    store.close()
    path = next((folder / "claims").glob("run-*"))
    path.write_bytes(path.read_bytes()[:-1])
    store = opened(folder)
    assert store.reached == -1
    assert seen(store, [key(0)], DAY) == [None]
    assert "claims are read back from the store: run-" in caplog.text
    store.close()


def test_a_folder_of_other_files_is_emptied(folder: Path) -> None:
    (folder / "claims").mkdir()
    for name in ("CURRENT", "LOCK", "000004.log", "000009.sst"):
        (folder / "claims" / name).write_bytes(b"of an earlier version")
    store = opened(folder)
    assert store.reached == -1
    store.write(*block(0))
    store.close()
    assert sorted(path.name for path in (folder / "claims").iterdir()) == [
        "identity", "lock", "log-000000000000",
    ]  # fmt: skip


@pytest.mark.usefixtures("small")
def test_files_of_a_generation_go_with_it_and_few_are_left(folder: Path) -> None:
    store = opened(folder)
    for number in range(200):
        store.write(*block(number))
    store.close()
    names = sorted(path.name for path in (folder / "claims").iterdir())
    generations = {int(name.split("-")[1]) for name in names if name.startswith("run-")}
    newest = block(199)[1] // HORIZON
    assert generations == {newest - 1, newest}
    assert len(names) < 20
    assert not [name for name in names if name.startswith("new-")]


def test_two_processes_cannot_have_a_folder(folder: Path) -> None:
    store = opened(folder)
    with pytest.raises(FolderInUse):
        opened(folder)
    store.close()
    opened(folder).close()


def test_a_full_disk_is_an_error_and_no_death(folder: Path) -> None:
    files = Files(folder / "claims")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            files.write("run", 2 << 20, lambda content: content.fill(1))
        with pytest.raises(OSError, match="too large"):
            files.append("log", bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    files.close()


# The background


def in_background(folder: Path, thread: ThreadPoolExecutor) -> ClaimStore:
    return ClaimStore(folder / "claims", identity="x", horizon_ms=HORIZON, background=thread)


@pytest.mark.usefixtures("small")
def test_claims_are_found_while_runs_are_merged_elsewhere(folder: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        store = in_background(folder, thread)
        for number in range(300):
            store.write(*block(number))
            check(store, number)
        store.close()
        store = in_background(folder, thread)
        check(store, 299)
        store.close()


@pytest.mark.usefixtures("small")
def test_what_the_background_had_no_time_for_is_done_after_the_next_start(folder: Path) -> None:
    go_on = Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(go_on.wait)
        store = in_background(folder, thread)
        for number in range(20):
            store.write(*block(number))
            check(store, number)
        store.close()  # waits for nobody
        assert list((folder / "claims").glob("new-*"))
        store = opened(folder, "x")
        check(store, 19)
        assert not list((folder / "claims").glob("new-*"))
        assert len(list((folder / "claims").glob("log-*"))) == 1
        store.close()
        go_on.set()


@pytest.mark.usefixtures("small")
def test_a_merge_is_left_off_when_the_store_is_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, pieces = Event(), claim_runs.merged

    def slow(runs: Any) -> Iterator[Claims]:
        if threading.current_thread().name.startswith("merges"):
            begun.set()
            for piece in pieces(runs):
                while not store._closing:
                    sleep(0.001)
                yield piece
        else:
            yield from pieces(runs)

    with ThreadPoolExecutor(1, "merges") as thread:
        store = in_background(folder, thread)
        monkeypatch.setattr(claim_store, "merged", slow)
        for number in range(10):
            store.write(*block(number))
        assert begun.wait(5)
        store.close()
        monkeypatch.setattr(claim_store, "merged", pieces)
        store = in_background(folder, thread)
        check(store, 9)
        store.close()


@pytest.mark.usefixtures("small")
def test_a_store_is_closed_once_its_last_job_is_over_whatever_failed_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens the folder next has it alone."""
    failed, running, over, settled = Event(), Event(), Event(), Files.settle

    def first_fails(self: Files, name: str, final: str) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError(5, "Input/output error")
        running.set()
        sleep(0.2)
        over.set()
        settled(self, name, final)

    monkeypatch.setattr(Files, "settle", first_fails)
    with ThreadPoolExecutor(1) as thread:
        store = in_background(folder, thread)
        store._raise_faults = lambda: None  # type: ignore[method-assign]
        for number in range(6):
            store.write(*block(number))
        assert running.wait(5)
        del store._raise_faults
        with pytest.raises(OSError, match="Input/output"):
            store.close()
        assert over.is_set()
        store = in_background(folder, thread)
        check(store, -1)
        store.close()


@pytest.mark.usefixtures("small")
def test_a_fault_in_the_background_is_the_writers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with ThreadPoolExecutor(1) as thread:
        store = in_background(folder, thread)
        monkeypatch.setattr(store._files, "settle", full)
        with pytest.raises(OSError, match="No space left"):
            for number in range(1000):
                store.write(*block(number))
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            store.close()


class Disk(RuleBasedStateMachine):
    """Blocks are written, others read back in between, and workers come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.store = opened(self.folder)
        self.known: dict[int, dict[bytes, Claim]] = {}
        self.offset = 0
        self.time = DAY
        self.reached = -1
        self.missing = False

    @rule(numbers=st.lists(st.integers(0, 15), unique=True), later=st.integers(0, HORIZON // 2))
    def write(self, numbers: list[int], later: int) -> None:
        self.time += later
        pairs = [(key(n), claim(self.offset, n, self.time)) for n in numbers]
        self.store.write(self.offset, self.time, written(*pairs))
        self.known.setdefault(self.time // HORIZON, {}).update(pairs)
        if self.reached == self.offset - 1:
            self.reached = self.offset
        self.offset += 1

    @rule()
    def skip(self) -> None:
        """A block that another worker counts."""
        self.offset += 1

    @rule(numbers=st.lists(st.integers(0, 15)), earlier=st.integers(0, HORIZON))
    def read_back(self, numbers: list[int], earlier: int) -> None:
        time = max(0, self.time - earlier)
        pairs = [(key(n), claim(max(0, self.offset - 2), 50 + n, time)) for n in numbers]
        self.store.add(Claims.of(pairs))
        for name, one in pairs:
            held = self.known.setdefault(time // HORIZON, {}).get(name)
            if held is None or held.point < one.point:
                self.known[time // HORIZON][name] = one

    @rule()
    def complete(self) -> None:
        self.store.complete(self.offset - 1)
        self.reached = self.offset - 1

    @rule(killed=st.booleans())
    def start_again(self, killed: bool) -> None:
        if killed:
            self.store._files.close()
        else:
            self.store.close()
        self.store = opened(self.folder)

    @invariant()
    def all_is_found(self) -> None:
        assert self.store.reached == self.reached
        own = self.time // HORIZON
        wanted = {**self.known.get(own - 1, {}), **self.known.get(own, {})}
        keys = [key(n) for n in range(16)]
        assert seen(self.store, keys, self.time) == [wanted.get(each) for each in keys]

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


def test_any_order_of_blocks_and_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_store, "RECENT_MAX", 6)
    monkeypatch.setattr(claim_runs, "SMALL", 2)
    monkeypatch.setattr(claim_runs, "FAN", 2)
    run_state_machine_as_test(
        Disk, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
