"""What Kafka's producers compress: read within bounds, by packer and console alike.

All of it waits in one partition while the packer stands still, and is fetched at once.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import psutil
import pytest

from tests.batches import CODECS, batch, write
from tests.e2e.running import Tallylog, until
from tests.hostile import BATCHES, GOOD, NAME, TEN_MEBIBYTES, Batch

MIB = 1 << 20
FLOOD = 17
"""Batches of 30 MiB each, in 1.5 KB."""
PACKER_BYTES = 384 * MIB
SERVE_BYTES = 192 * MIB
"""What packer and console may take more at their peak than they had before."""
BEHIND = GOOD[:-1] + b',"event_id":"behind"}'


class Sent(NamedTuple):
    """Rows of the log's records by batch, answers of monitoring meanwhile, and memory."""

    found: dict[str, list[tuple[Any, ...]]]
    answers: list[tuple[int, dict[str, Any]]]
    packer: int
    serve: int


class Peak:
    """The most memory that a process has had from now on."""

    def __init__(self, tallylog: Tallylog, part: str) -> None:
        [self.process] = [
            each
            for each in psutil.process_iter(["cmdline", "environ"])
            if part in (each.info["cmdline"] or [])[1:4]
            and (each.info["environ"] or {}).get("TALLYLOG_DATA_DIR") == tallylog.data_dir
        ]
        self._folder = Path("/proc") / str(self.process.pid)
        (self._folder / "clear_refs").write_text("5")
        self._before = self.process.memory_info().rss

    def growth(self) -> int:
        """How many bytes more it had."""
        lines = (self._folder / "status").read_text().splitlines()
        [peak] = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
        return int(peak - self._before)


@contextlib.contextmanager
def standing_still(process: psutil.Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def sent(tallylog: Tallylog) -> Iterator[Sent]:
    """Every batch of the table, many large ones, and a good event behind them."""
    flood = [batch(CODECS["zstd"], [TEN_MEBIBYTES] * 3, at=None)] * FLOOD
    rows = [row.make() for row in BATCHES]
    last = [batch(0, [BEHIND], at=None)]
    with tallylog.as_account(f"batches-{uuid4().hex[:6]}") as own:
        own.create_feature(NAME, "SUM", "v")
        topic = f"events.{own.account}"
        asyncio.run(write(own.kafka, topic, 0, [batch(0, [GOOD], at=None)]))
        until(lambda: own.verdicts(NAME), {"counted": 1})
        packer, serve = Peak(own, "packer"), Peak(own, "serve")

        def monitoring(_: int) -> tuple[int, dict[str, Any]]:
            answer = own.http.get("/v1/events/monitoring", timeout=60)
            return answer.status_code, answer.json()

        with standing_still(packer.process):
            ends = asyncio.run(write(own.kafka, topic, 0, [*flood, *rows, *last]))
            waiting = ends[-1]
            until(lambda: monitoring(0)[1]["stages"][0]["lag_offsets"], waiting)
            with ThreadPoolExecutor(4) as threads:
                answers = list(threads.map(monitoring, range(4)))
            console = serve.growth()
        every = "SELECT log_offset, verdict, detail FROM events WHERE account = {a:String}"
        counted = f"{every} AND event_id = 'behind'"
        until(lambda: len(own.rows(counted, a=own.account)), 1, 60)
        starts = [1, *(end + 1 for end in ends)]
        names = [*(f"flood {n}" for n in range(FLOOD)), *(row.name for row in BATCHES), "behind"]
        found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in names}
        for row in sorted(own.rows(f"{every} AND log_offset > 0", a=own.account)):
            number = next(n for n, end in enumerate(ends) if row[0] <= end)
            found[names[number]].append((row[0] - starts[number], *row[1:]))
        yield Sent(found, answers, packer.growth(), console)


@pytest.mark.parametrize("row", BATCHES, ids=lambda row: row.name)
def test_a_batch_over_kafka(row: Batch, sent: Sent) -> None:
    found = sent.found[row.name]
    assert [each[1] for each in found].count("counted") == row.counted
    dead = [each for each in found if each[1] == "dead_letter"]
    assert [each[2].split()[0].rstrip(":") for each in dead] == ([row.dead] if row.dead else [])
    assert all("offset" in each[2] for each in dead)


def test_half_a_gigabyte_in_kilobytes_is_counted(sent: Sent) -> None:
    for number in range(FLOOD):
        assert [each[1] for each in sent.found[f"flood {number}"]] == ["counted"] * 6


def test_meanwhile_monitoring_says_that_so_much_waits_at_least(sent: Sent) -> None:
    for status, told in sent.answers:
        assert status == 200, told
        packing = told["stages"][0]
        assert not packing["exact"] and packing["lag_events"] > 0


def test_memory_stays_bounded(sent: Sent) -> None:
    assert sent.packer <= PACKER_BYTES, f"{sent.packer / MIB:.0f} MiB more"
    assert sent.serve <= SERVE_BYTES, f"{sent.serve / MIB:.0f} MiB more"
