"""Faults carried out on real processes."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.e2e.running import Tallylog
from tests.storm.parts import Parts
from tests.storm.plan import FOLDERS, Fault

HIT_S = 30.0
JOINS_S = 3.0
"""How long a guest has to join."""
ZOMBIE_S = 2.0
"""How long it stays when the zombie is back."""
SLOW_STOPPED_S, SLOW_RUNS_S = 0.15, 0.05
"""A slow part runs a quarter of the time."""
FOLDER_BYTES = 4 << 30
FILLS_MAX = 20


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

    def strike(self, fault: Fault) -> bool:
        """Carry one out, to its end. False where it hit nobody: a failpoint nobody came by."""
        deeds: dict[str, Callable[[Fault], bool]] = {
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
            return True

    def _kill(self, fault: Fault) -> bool:
        victims = [self._parts.find(part) for part in fault.killed]
        for victim in victims:
            victim.kill()
        return True

    def _restart(self, fault: Fault) -> bool:
        victim = self._parts.find(fault.part)
        victim.terminate()
        psutil.wait_procs([victim], 60)
        return True

    def _stop(self, fault: Fault) -> bool:
        victim = self._parts.find(fault.part)
        victim.suspend()
        time.sleep(fault.lasts_s)
        victim.resume()
        return True

    def _slow(self, fault: Fault) -> bool:
        victim = self._parts.find(fault.part)
        until = time.monotonic() + fault.lasts_s
        while time.monotonic() < until:
            victim.suspend()
            time.sleep(SLOW_STOPPED_S)
            victim.resume()
            time.sleep(SLOW_RUNS_S)
        return True

    def _full(self, fault: Fault) -> bool:
        self._disks.fill(fault.part)
        try:
            time.sleep(fault.lasts_s)
        finally:
            self._disks.free(fault.part)
        return True

    def _rebalance(self, fault: Fault) -> bool:
        with self._parts.guest(fault.part):
            time.sleep(fault.lasts_s)
        return True

    def _zombie(self, fault: Fault) -> bool:
        with self._parts.guest("counter"):
            time.sleep(JOINS_S)
            hit = self._failpoint(fault) if fault.name else self._stop(fault)
            time.sleep(ZOMBIE_S)
        return hit

    def _forget(self, fault: Fault) -> bool:
        claims = self._claims
        self._parts.find("counter").kill()
        claims.rename(claims.with_suffix(".gone"))  # before it is started again
        shutil.rmtree(claims.with_suffix(".gone"))
        return True

    def _older(self, fault: Fault) -> bool:
        claims, older = self._claims, self._claims.with_suffix(".older")
        victim = self._parts.find("counter")
        victim.suspend()
        shutil.copytree(claims, older)
        victim.resume()
        time.sleep(fault.lasts_s)
        self._parts.find("counter").kill()
        claims.rename(claims.with_suffix(".gone"))
        older.rename(claims)
        shutil.rmtree(claims.with_suffix(".gone"))
        return True

    @property
    def _claims(self) -> Path:
        return Path(self._tallylog.data_dir) / "claims"

    def _failpoint(self, fault: Fault) -> bool:
        file = self._failpoints / fault.name
        victim = self._parts.find(fault.part)
        making = file.with_suffix(".new")
        making.write_text("stop" if fault.stops else "kill")
        making.rename(file)
        if fault.beside:
            self._parts.find(fault.beside).kill()
        until = time.monotonic() + HIT_S
        while file.exists():
            if time.monotonic() > until:
                file.unlink(missing_ok=True)
                return False
            time.sleep(0.02)
        if fault.stops:
            time.sleep(fault.lasts_s)
            victim.send_signal(signal.SIGCONT)
        return True
