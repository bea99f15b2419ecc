"""Faults carried out on real processes."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.e2e.running import Tallylog
from tests.storm.parts import Parts
from tests.storm.plan import FOLDERS, Fault

HIT_S = 30.0
JOINS_S = 30.0
"""How long a guest has to join."""
ZOMBIE_S = 2.0
"""How long it stays when the zombie is back."""
SLOW_STOPPED_S, SLOW_RUNS_S = 0.15, 0.05
"""A slow part runs a quarter of the time."""
FOLDER_BYTES = 4 << 30
FILLS_MAX = 20


class Blow(NamedTuple):
    """What a fault did: whether it hit, and the parts that were killed with SIGKILL."""

    hit: bool
    killed: tuple[str, ...] = ()


MISSED = Blow(False)


class Disks:
    """Folders of parts on small file systems of their own, which can be filled.

    A tmpfs for each; that needs root, and mounts that are allowed. `why_not` says what is missing.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folders = {
            "kafka": data_dir / "kafka",
            "engine": data_dir / "clickhouse",
            "counter": data_dir / "claims",
        }
        assert set(self._folders) == set(FOLDERS)
        self._mounted: list[Path] = []
        self.why_not = ""

    def __enter__(self) -> "Disks":
        for folder in self._folders.values():
            folder.mkdir(parents=True, exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={FOLDER_BYTES}", "tmpfs", str(folder)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError as error:
                self.why_not = str(error)
                break
            if done.returncode:
                self.why_not = done.stderr.strip()
                break
            self._mounted.append(folder)
        return self

    def __exit__(self, *_: object) -> None:
        for folder in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(folder)], check=True)

    def fill(self, part: str) -> None:
        """Leave no byte on a part's disk: it becomes as small as what is on it."""
        folder = self._folders[part]
        for _ in range(FILLS_MAX):
            room = os.statvfs(folder)
            if self._resize(folder, (room.f_blocks - room.f_bfree) * room.f_frsize):
                return
        raise RuntimeError(f"{folder} grows too fast to be filled")

    def free(self, part: str) -> None:
        """Give the room back."""
        if not self._resize(self._folders[part], FOLDER_BYTES):
            raise RuntimeError(f"{self._folders[part]} could not be made larger again")

    def _resize(self, folder: Path, size: int) -> bool:
        """False: more lies there by now."""
        command = ["mount", "-o", f"remount,size={size}", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Faults:
    """Carries faults out; `failpoints` is the folder that the parts look into."""

    def __init__(self, tallylog: Tallylog, parts: Parts, disks: Disks, failpoints: Path) -> None:
        self._tallylog = tallylog
        self._parts = parts
        self._disks = disks
        self._failpoints = failpoints

    def strike(self, fault: Fault) -> Blow:
        """Carry one out, to its end, and say what it did.

        It missed where nobody came by a failpoint, where what it was aimed at had ended by itself,
        or where a guest that was to take partitions took none.
        """
        deeds: dict[str, Callable[[Fault], Blow]] = {
            "kill": self._kill,
            "stop": self._stop,
            "restart": self._restart,
            "failpoint": self._failpoint,
            "rebalance": self._rebalance,
            "slow": self._slow,
            "full": self._full,
            "zombie": self._zombie,
            "forget": self._forget,
            "older": self._older,
        }
        try:
            return deeds[fault.kind](fault)
        except psutil.NoSuchProcess:  # it ended by itself meanwhile, and is started again
            return MISSED

    def _kill(self, fault: Fault) -> Blow:
        return self._killed(fault.killed)

    def _killed(self, parts: Sequence[str]) -> Blow:
        """Kill some parts at the same moment; those that had ended already don't count."""
        victims = [(part, self._parts.find(part)) for part in parts]
        killed = []
        for part, victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                killed.append(part)
        return Blow(bool(killed), tuple(killed))

    def _restart(self, fault: Fault) -> Blow:
        victim = self._parts.find(fault.part)
        victim.terminate()
        psutil.wait_procs([victim], 60)
        return Blow(True)

    def _stop(self, fault: Fault) -> Blow:
        victim = self._parts.find(fault.part)
        victim.suspend()
        time.sleep(fault.lasts_s)
        victim.resume()
        return Blow(True)

    def _slow(self, fault: Fault) -> Blow:
        victim = self._parts.find(fault.part)
        until = time.monotonic() + fault.lasts_s
        while time.monotonic() < until:
            victim.suspend()
            time.sleep(SLOW_STOPPED_S)
            victim.resume()
            time.sleep(SLOW_RUNS_S)
        return Blow(True)

    def _full(self, fault: Fault) -> Blow:
        self._disks.fill(fault.part)
        try:
            time.sleep(fault.lasts_s)
        finally:
            self._disks.free(fault.part)
        return Blow(True)

    def _rebalance(self, fault: Fault) -> Blow:
        with self._parts.guest(fault.part) as guest:
            if guest.joins(JOINS_S):
                time.sleep(fault.lasts_s)
            return Blow(bool(guest.taken))  # it may have ended: then there were two

    def _zombie(self, fault: Fault) -> Blow:
        """Stop a counter until a guest has at least one of its partitions, by the store's word."""
        with self._parts.guest("counter") as guest:
            if not guest.joins(JOINS_S):
                return MISSED
            if fault.name:
                self._arm(fault)
                if not self._come_by(fault):
                    return MISSED
            victim = self._parts.find("counter")
            victim.suspend()
            try:
                before, guests = self._owners(), guest.taken
                time.sleep(fault.lasts_s)
                after = self._owners()
            finally:
                victim.resume()
            time.sleep(ZOMBIE_S)
            return Blow(guest.lives and bool(taken_over(before, after) - guests))

    def _owners(self) -> dict[int, int]:
        """By block partition, the number of who owns it."""
        return dict(self._tallylog.rows("SELECT slot % 65536, toUInt64(owner) FROM owners"))

    def _forget(self, fault: Fault) -> Blow:
        claims = self._claims
        blow = self._killed(fault.killed)
        claims.rename(claims.with_suffix(".gone"))  # before it is started again
        shutil.rmtree(claims.with_suffix(".gone"))
        return blow

    def _older(self, fault: Fault) -> Blow:
        claims, older = self._claims, self._claims.with_suffix(".older")
        victim = self._parts.find("counter")
        victim.suspend()
        shutil.copytree(claims, older)
        victim.resume()
        time.sleep(fault.lasts_s)
        blow = self._killed(fault.killed)
        claims.rename(claims.with_suffix(".gone"))
        older.rename(claims)
        shutil.rmtree(claims.with_suffix(".gone"))
        return blow

    @property
    def _claims(self) -> Path:
        return Path(self._tallylog.data_dir) / "claims"

    def _failpoint(self, fault: Fault) -> Blow:
        self._arm(fault)
        beside = self._killed([fault.beside]).killed if fault.beside else ()
        if not self._come_by(fault):
            return Blow(False, beside)
        if fault.stops:
            time.sleep(fault.lasts_s)
            self._parts.find(fault.part).resume()
            return Blow(True, beside)
        return Blow(True, (fault.part, *beside))

    def _arm(self, fault: Fault) -> None:
        file = self._failpoints / fault.name
        making = file.with_suffix(".new")
        making.write_text("stop" if fault.stops else "kill")
        making.rename(file)

    def _come_by(self, fault: Fault) -> bool:
        """Wait until somebody comes by an armed failpoint; False where nobody does."""
        file = self._failpoints / fault.name
        until = time.monotonic() + HIT_S
        while file.exists():
            if time.monotonic() > until:
                file.unlink(missing_ok=True)
                return False
            time.sleep(0.02)
        return True


def taken_over(before: Mapping[int, int], after: Mapping[int, int]) -> set[int]:
    """The partitions that have another owner number than before."""
    return {slot for slot, owner in after.items() if before.get(slot) != owner}
