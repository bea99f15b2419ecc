"""What counts as hit: a storm that hurt nobody must not look like one that did."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from tests.storm import specials
from tests.storm.faults import MISSED, Blow, Disks, Faults
from tests.storm.parts import Guest, Parts
from tests.storm.plan import Fault
from tests.storm.probe import Recovery
from tests.storm.report import document
from tests.storm.storm import Options, Outcome, Struck, enough

TAKES = "INFO stream_workers.counter: block partition {} from offset 7\n"
ZOMBIE = Fault("zombie", "counter", 0.1, 0.01)


@contextmanager
def sleeper(seconds: float = 60) -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Stage:
    """In place of Parts and of a Tallylog: a counter that sleeps, and a guest that says things."""

    def __init__(self, folder: Path, says: str, taken_meanwhile: set[int]) -> None:
        self._log = folder / "guest.log"
        self._log.write_text(says)
        self._taken_meanwhile = taken_meanwhile
        self._looks = 0
        self.guest_lives_s = 60.0
        self.counter: psutil.Process | None = None

    @contextmanager
    def guest(self, part: str) -> Iterator[Guest]:
        with sleeper(self.guest_lives_s) as process:
            yield Guest(part, process, self._log, 0)

    def find(self, part: str) -> psutil.Process:
        assert self.counter is not None
        return self.counter

    def rows(self, sql: str) -> list[tuple[int, int]]:
        """Owners: those taken meanwhile have another number at the second look."""
        self._looks += 1
        return [(slot, 2 if self._looks > 1 and slot in self._taken_meanwhile else 1)
                for slot in range(4)]  # fmt: skip


def strike(stage: Stage, fault: Fault, folder: Path) -> Blow:
    with sleeper() as counter:
        stage.counter = psutil.Process(counter.pid)
        parts = cast(Parts, stage)
        return Faults(cast(Any, stage), parts, Disks(folder), folder).strike(fault)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.storm.faults.JOINS_S", 0.5)
    monkeypatch.setattr("tests.storm.faults.ZOMBIE_S", 0.0)
    monkeypatch.setattr("tests.storm.parts.STEADY_S", 0.1)


def test_a_zombie_is_one_whose_partition_another_has_taken(tmp_path: Path) -> None:
    stage = Stage(tmp_path, TAKES.format(0) + TAKES.format(1), {2})
    assert strike(stage, ZOMBIE, tmp_path) == Blow(True)


@pytest.mark.parametrize("taken", [set[int](), {0, 1}])
def test_a_counter_that_kept_its_partitions_was_merely_paused(
    tmp_path: Path, taken: set[int]
) -> None:
    """The guest may take over again what it had."""
    stage = Stage(tmp_path, TAKES.format(0) + TAKES.format(1), taken)
    assert not strike(stage, ZOMBIE, tmp_path).hit


@pytest.mark.parametrize("fault", [ZOMBIE, Fault("rebalance", "counter", 0.1, 0.01)])
def test_a_guest_that_joins_nobody_hits_nobody(tmp_path: Path, fault: Fault) -> None:
    assert strike(Stage(tmp_path, "INFO ready\n", {2}), fault, tmp_path) == MISSED


def test_a_guest_that_ends_makes_a_rebalance_and_no_zombie(tmp_path: Path) -> None:
    for kind, hit in (("rebalance", True), ("zombie", False)):
        stage = Stage(tmp_path, TAKES.format(0), {2})
        stage.guest_lives_s = 0.3
        assert strike(stage, Fault(kind, "counter", 0.1, 0.5), tmp_path).hit == hit


def test_who_has_ended_by_itself_was_not_killed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "", set())
    with sleeper() as ended:
        stage.counter = psutil.Process(ended.pid)
        ended.kill()
        ended.wait()
        faults = Faults(cast(Any, stage), cast(Parts, stage), Disks(tmp_path), tmp_path)
        assert faults.strike(Fault("kill", "counter", 0.1)) == Blow(False)


def outcome(*struck: Struck, fenced: int = 0) -> Outcome:
    kinds = sorted({each.fault.kind for each in struck})
    return Outcome(Options(1, 0, 20, kinds, 2.0), list(struck), fenced=fenced)


def of(kind: str, *killed: str, hit: bool = True, beside: str = "") -> Struck:
    fault = Fault(kind, "counter", 0.1, beside=beside)
    return Struck(fault, hit, Recovery(0.1, 0.2), killed)


def test_kills_are_those_that_were_carried_out() -> None:
    found = document(
        outcome(
            of("kill", "counter", "kafka", beside="kafka"),
            of("kill", "kafka", beside="kafka"),
            of("kill", hit=False),
            of("failpoint", "engine", hit=False, beside="engine"),
            of("forget", "counter"),
        )
    )
    assert {part: count for part, count in found["kills"].items() if count} == {
        "counter": 2, "kafka": 2, "engine": 1,
    }  # fmt: skip
    assert {part: kinds for part, kinds in found["faults"].items() if kinds} == {
        "counter": {"kill": 1, "forget": 1}, "kafka": {"kill": 2}, "engine": {"kill": 1},
    }  # fmt: skip


def test_faults_that_missed_are_made_up_for() -> None:
    hits = [of("stop")] * 19
    assert not enough(outcome(*hits, of("failpoint", hit=False)))
    assert enough(outcome(*hits, of("failpoint", hit=False), of("stop")))
    assert enough(outcome(*[of("failpoint", hit=False)] * 40))


def test_zombies_count_when_some_were_refused() -> None:
    twenty = [of("zombie")] * 20
    assert specials.zombies(outcome(*twenty, fenced=1)).met
    assert not specials.zombies(outcome(*twenty)).met
    assert not specials.zombies(outcome(*twenty[1:], of("zombie", hit=False), fenced=9)).met


def test_a_state_that_was_never_lost_is_no_figure() -> None:
    forget, older = specials.lost_state(outcome(*[of("forget", "counter")] * 20))
    assert forget.met
    assert not older.met
