"""kill -9 in the middle of inserts, and more SELECTs than there is memory for."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from local_stack.clickhouse import clickhouse_child
from local_stack.ports import HOST
from local_stack.settings import StackSettings
from tests.local_stack.conftest import Http
from tests.stack import running, stack_settings

pytestmark = pytest.mark.clickhouse

KILLS = int(os.environ.get("TALLYLOG_TEST_KILLS", "12"))
ROWS = 500
TABLES = (
    "CREATE TABLE source (block UInt32, row UInt32, text String) ENGINE = MergeTree "
    "ORDER BY (block, row) SETTINGS non_replicated_deduplication_window = 1000",
    "CREATE TABLE target (block UInt32, n UInt64) ENGINE = SummingMergeTree "
    "ORDER BY block SETTINGS non_replicated_deduplication_window = 1000",
    "CREATE MATERIALIZED VIEW target_mv TO target AS "
    "SELECT block, count() AS n FROM source GROUP BY block",
)


@contextlib.contextmanager
def engine(settings: StackSettings, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], Http]]:
    """An engine for the length of a block, which ends it without mercy."""
    env = {
        **os.environ,
        "TALLYLOG_DATA_DIR": str(settings.data_dir),
        "TALLYLOG_CLICKHOUSE_PORT": str(settings.clickhouse_port),
    }
    http = Http(f"http://{HOST}:{settings.clickhouse_port}/tallylog")
    with log.open("ab") as out:
        argv = [sys.executable, "-m", "local_stack.clickhouse"]
        process = subprocess.Popen(argv, env=env, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 20
        while True:
            said = f"status {process.poll()}\n{log.read_text()}"
            assert process.poll() is None and time.monotonic() < deadline, said
            with contextlib.suppress(httpx.TransportError):
                if http.client.get("/ping").status_code == 200:
                    break
            time.sleep(0.02)
        yield process, http
    finally:
        process.kill()
        process.wait()
        http.client.close()


def test_an_insert_is_there_whole_or_not_at_all_after_kill_9(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    settings = stack_settings(tmp_path)
    answered: set[int] = set()
    doubtful: list[int] = []
    block = 0
    rng = random.Random(7)
    for kill in range(KILLS + 1):
        with engine(settings, tmp_path / "log") as (process, http):
            if kill == 0:
                for sql in TABLES:
                    http.rows(sql)
            else:
                check(http, answered)
            if kill == KILLS:
                seen = found(http)
                break
            threading.Timer(rng.uniform(0.02, 0.25), process.send_signal, [signal.SIGKILL]).start()
            with contextlib.suppress(httpx.TransportError):
                while True:
                    block += 1
                    body = b"".join(b"%d\t%d\ttext %d\n" % (block, n, n) for n in range(ROWS))
                    answer = http.ask("INSERT INTO source FORMAT TSV", body=body, async_insert=0)
                    assert answer.status_code == 200, answer.text
                    answered.add(block)
            doubtful.append(block)
    assert len(answered) > KILLS
    for block in doubtful:
        record_property(f"unanswered {block}", seen.get(block, "nowhere"))


def found(http: Http) -> dict[int, str]:
    """Where the rows of each block are."""
    rows = http.rows(
        "SELECT block, sum(s), sum(t) FROM (SELECT block, count() AS s, 0 AS t FROM source "
        "GROUP BY block UNION ALL SELECT block, 0, sum(n) FROM target GROUP BY block) GROUP BY 1"
    )
    states = {f"{ROWS}\t0": "source", f"{ROWS}\t{ROWS}": "both"}
    pairs = (line.split("\t", 1) for line in rows.splitlines())
    return {int(block): states.get(counts, counts) for block, counts in pairs}


def check(http: Http, answered: set[int]) -> None:
    """What was answered is there; nothing is there in part, in several parts, or twice."""
    seen = found(http)
    assert {block for block, state in seen.items() if state == "both"} >= answered
    assert set(seen.values()) <= {"source", "both"}
    torn = (
        "SELECT block FROM source GROUP BY block HAVING uniqExact(_part) > 1 OR uniqExact(row) != "
    )
    assert http.rows(f"{torn}{ROWS}") == ""


SELECTS = 50


def refused(answer: httpx.Response) -> bool:
    """Whether the engine had no memory for a query; no other failure is allowed."""
    if answer.status_code == 200:
        return False
    code = answer.headers.get("X-ClickHouse-Exception-Code")
    assert (answer.status_code, code) == (500, "241"), answer.text
    assert answer.text.startswith("Code: 241. DB::Exception: "), answer.text
    assert "(MEMORY_LIMIT_EXCEEDED)" in answer.text
    return True


def told(http: Http, sql: str) -> str:
    """The answer to a SELECT, asked until there is memory for it."""
    while refused(answer := http.ask(sql)):
        time.sleep(0.1)
    return answer.text.strip()


def test_inserts_go_on_while_selects_want_more_memory_than_there_is(tmp_path: Path) -> None:
    settings = stack_settings(tmp_path).model_copy(update={"clickhouse_mb": 512})
    heavy = (
        "SELECT number % 30000000 AS k, groupArray(toString(number)) FROM numbers(30000000) "
        "GROUP BY k FORMAT Null SETTINGS max_execution_time = 4"
    )
    codes: Counter[str | None] = Counter()
    with running(clickhouse_child(settings), tmp_path / "logs"):
        http = Http(f"http://{HOST}:{settings.clickhouse_port}/tallylog")
        for sql in TABLES:
            http.rows(sql)

        def select() -> None:
            answer = http.ask(heavy)
            codes[answer.headers.get("X-ClickHouse-Exception-Code")] += 1

        threads = [threading.Thread(target=select) for _ in range(SELECTS)]
        for thread in threads:
            thread.start()
        slowest, inserts = 0.0, 0
        while any(thread.is_alive() for thread in threads):
            inserts += 1
            body = b"".join(b"%d\t%d\tx\n" % (inserts, n) for n in range(ROWS))
            started = time.monotonic()
            # A server refuses an insert too when the SELECTs hold all the memory it may have. Like
            # the counter, look whether it is in, and send it again.
            count = f"SELECT count() FROM source WHERE block = {inserts}"  # noqa: S608
            while refused(http.ask("INSERT INTO source FORMAT TSV", body=body, async_insert=0)):
                time.sleep(0.1)
                if told(http, count) == str(ROWS):
                    break
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.05)
        counts = told(http, "SELECT count(), uniqExact(block) FROM source")
        assert counts == f"{inserts * ROWS}\t{inserts}"
        http.client.close()
    assert sum(codes.values()) == SELECTS and codes.keys() <= {"241", "159"}, codes
    assert slowest < 10 and inserts > 3
