"""Whatever dies in the middle: every event answered 202 is counted once, right after recovery."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.running import Tallylog, tallylog_up, until

RECOVERY_S = 60


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tallylog]:
    """A Tallylog of its own, to be hurt."""
    with tallylog_up(tmp_path_factory.mktemp("victim")) as running:
        yield running


class Load:
    """Two producers that send bulks of 50 with one in ten ids repeated, and note what was acked."""

    def __init__(self, tallylog: Tallylog, event_name: str) -> None:
        self.ids: set[str] = set()
        self.sent = 0
        self._tallylog = tallylog
        self._name = event_name
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._produce, args=(n,)) for n in range(2)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _produce(self, number: int) -> None:
        chance = random.Random(number)
        made = 0
        headers = {"x-api-key": self._tallylog.api_key}
        with httpx.Client(base_url=self._tallylog.base_url, headers=headers, timeout=30) as client:
            while not self._stopping.is_set():
                fresh = [f"{self._name}-{number}-{made + n}" for n in range(50)]
                made += 50
                ids = [
                    one
                    if chance.random() > 0.1
                    else f"{self._name}-{number}-{chance.randrange(made)}"
                    for one in fresh
                ]
                events: list[dict[str, object]] = [
                    {
                        "event_id": one,
                        "event_name": self._name,
                        "external_customer_id": f"cust_{len(one)}",
                        "properties": {"credits": 2},
                    }
                    for one in ids
                ]
                while not self._accepted(client, events):
                    time.sleep(0.2)
                self.ids.update(ids)
                self.sent += len(ids)
                time.sleep(0.03)

    def _accepted(self, client: httpx.Client, events: list[dict[str, object]]) -> bool:
        """Send until 202: a refusal or no answer says nothing, the ids make a repeat harmless."""
        try:
            return client.post("/v1/events/bulk", json={"events": events}).status_code == 202
        except httpx.HTTPError:
            return False


def processes(tallylog: Tallylog, part: str) -> list[psutil.Process]:
    """The processes of one part of this Tallylog."""
    found = []
    for process in psutil.process_iter():
        try:
            command, folder = process.cmdline(), process.environ().get("TALLYLOG_DATA_DIR")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if folder == tallylog.data_dir and part in command[-1:] + command[2:4]:
            found.append(process)
    return found


def counted(tallylog: Tallylog, event_name: str) -> tuple[int, ...]:
    """Counted rows, their distinct ids, and what the states say: events and sum."""
    rows = tallylog.rows(
        "SELECT count(), uniqExact(event_id) FROM events WHERE account = {a:String}"
        " AND event_name = {n:String} AND verdict = 'counted'",
        a=tallylog.account,
        n=event_name,
    )
    states = tallylog.rows(
        "SELECT sum(event_count), toInt64(sum(value_sum)) FROM usage_states"
        " WHERE feature_id IN (SELECT feature_id FROM events WHERE account = {a:String}"
        " AND event_name = {n:String} AND verdict = 'counted')",
        a=tallylog.account,
        n=event_name,
    )
    return (*rows[0], *states[0])


def check(tallylog: Tallylog, event_name: str, load: Load) -> None:
    """Each acked id is counted once in the events and in the states; repeats are duplicates."""
    once = len(load.ids)
    wanted: tuple[int, ...] = (once, once, once, 2 * once)
    until(lambda: _seen(tallylog, event_name), wanted, RECOVERY_S)
    verdicts = tallylog.verdicts(event_name)
    assert verdicts["counted"] == once
    assert verdicts.get("duplicate", 0) >= load.sent - once


def _seen(tallylog: Tallylog, event_name: str) -> tuple[int, ...]:
    try:
        return counted(tallylog, event_name)
    except Exception:  # the engine may still be on its way back
        return ()


@pytest.mark.parametrize("part", ["packer", "counter", "local_stack.clickhouse"])
def test_killing_a_part_in_the_middle_changes_nothing(victim: Tallylog, part: str) -> None:
    name = f"kill.{part}"
    victim.create_feature(name, "SUM", "credits")
    with Load(victim, name) as load:
        for _ in range(2):
            time.sleep(1.5)
            killed = processes(victim, part)
            assert killed, part
            for process in killed:
                process.kill()
        time.sleep(1.5)
    check(victim, name, load)


def test_losing_all_claims_on_disk_changes_nothing(victim: Tallylog) -> None:
    name = "lost.claims"
    victim.create_feature(name, "SUM", "credits")
    with Load(victim, name) as load:
        time.sleep(1.5)
        for process in processes(victim, "counter"):
            process.kill()
        shutil.rmtree(Path(victim.data_dir) / "claims")
        time.sleep(1.5)
    check(victim, name, load)


def test_workers_that_join_and_leave_change_nothing(victim: Tallylog) -> None:
    name = "join.and.leave"
    victim.create_feature(name, "SUM", "credits")
    env = os.environ | {
        "TALLYLOG_DATA_DIR": victim.data_dir,
        "TALLYLOG_KAFKA": victim.kafka,
        "TALLYLOG_CLICKHOUSE_URL": victim.clickhouse_url,
        "TALLYLOG_WORKER": "guest",
    }
    with Load(victim, name) as load:
        for _ in range(2):
            guests = [
                subprocess.Popen(
                    [sys.executable, "-m", "cli.main", part],
                    env=env,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                for part in ("packer", "counter")
            ]
            time.sleep(5)
            for guest in guests:
                guest.send_signal(signal.SIGTERM)
            for guest in guests:
                guest.wait(30)
    check(victim, name, load)


def test_after_all_of_it_nothing_is_missing(victim: Tallylog) -> None:
    """What the log held, what was taken from it, and what is stored: of this whole module."""

    def gaps() -> tuple[int | None, int | None] | None:
        found = victim.http.get("/v1/events/monitoring").json()["conservation"]
        looked = found["until"] is not None and datetime.fromisoformat(found["until"]) > begun
        return (found["gap_events"], found["gap_rows"]) if looked else None

    begun = datetime.now(UTC)
    nothing: tuple[int | None, int | None] | None = (0, 0)
    until(gaps, nothing, RECOVERY_S)
