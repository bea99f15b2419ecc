"""Broker and engine as processes: they come back after kill -9, and leave nothing behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from local_stack.children import Child, Children
from local_stack.clickhouse import DRAIN_S, clickhouse_child, clickhouse_url, run_clickhouse
from local_stack.errors import ChildFailed, FolderTaken, PortTaken
from local_stack.kafka import kafka_child
from local_stack.ports import HOST
from local_stack.standing import AUTOGROUP, BEHIND
from tests.stack import stack_settings

SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def sleeper(name: str, code: str = SLEEPER, **more: object) -> Child:
    """A child that does nothing."""
    return Child(name=name, argv=[sys.executable, "-c", code], **more)  # type: ignore[arg-type]


async def gone(pid: int) -> bool:
    """Whether a process has ended within five seconds."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.clickhouse
async def test_the_engine_comes_back_after_kill_9_with_its_data(tmp_path: Path) -> None:
    settings = stack_settings(tmp_path)
    told: list[str] = []
    url = clickhouse_url(settings).rpartition("/")[0]
    async with (
        Children(tmp_path / "logs", told.append) as children,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        await children.start(clickhouse_child(settings))
        for sql in (
            "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a",
            "CREATE TABLE owners (p UInt16, owner UInt64) ENGINE = Join(ANY, LEFT, p)",
            "INSERT INTO owners VALUES (3, 9)",
            "CREATE TABLE fenced (p UInt16, owner UInt64, CONSTRAINT fence CHECK "
            "owner >= joinGet('tallylog.owners', 'owner', p)) ENGINE = MergeTree ORDER BY p",
            "INSERT INTO t SELECT number FROM numbers(1000)",
        ):
            assert (await http.post("/", content=sql)).status_code == 200
        first = children.pids()["clickhouse"]
        os.kill(first, signal.SIGKILL)
        await until(lambda: any("runs again" in line for line in told))
        assert "clickhouse was ended by SIGKILL" in told[0]
        assert children.pids()["clickhouse"] != first
        assert (await http.post("/", content="SELECT count() FROM t")).text == "1000\n"
        refused = await http.post("/", content="INSERT INTO fenced VALUES (3, 8)")
        assert refused.headers["X-ClickHouse-Exception-Code"] == "469"
        with pytest.raises(FolderTaken, match="TALLYLOG_DATA_DIR"):
            run_clickhouse(settings.model_copy(update={"clickhouse_port": 0}))
        last = children.pids()["clickhouse"]
    assert await gone(last)


@pytest.mark.clickhouse
async def test_a_crash_of_the_engine_ends_it_at_once_and_says_where(tmp_path: Path) -> None:
    told: list[str] = []
    async with Children(tmp_path / "logs", told.append) as children:
        await children.start(clickhouse_child(stack_settings(tmp_path)))
        os.kill(children.pids()["clickhouse"], signal.SIGSEGV)
        await until(lambda: any("runs again" in line for line in told))
    assert told[0].startswith("clickhouse was ended by SIGSEGV")
    said = (tmp_path / "logs" / "clickhouse.log").read_text()
    assert "Segmentation fault" in said and "local_stack/clickhouse.py" in said


@pytest.mark.parametrize("crashes", [1, 2])
async def test_what_crashes_while_starting_is_started_once_more(
    tmp_path: Path, crashes: int
) -> None:
    starts = tmp_path / "starts"
    script = (
        "import os, pathlib, signal, sys, time\n"
        f"starts = pathlib.Path({str(starts)!r})\n"
        "with starts.open('a') as log: log.write('x')\n"
        f"if starts.stat().st_size <= {crashes}: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "time.sleep(60)\n"
    )

    async def ready() -> bool:
        return starts.exists() and starts.stat().st_size == crashes + 1

    told: list[str] = []
    child = sleeper("fragile", script, ready=ready)
    async with Children(tmp_path / "logs", told.append) as children:
        if crashes == 1:
            await children.start(child)
            assert "was ended by SIGSEGV" in told[0] and "again" in told[0]
        else:
            with pytest.raises(ChildFailed, match="SIGSEGV"):
                await children.start(child)


@pytest.mark.clickhouse
async def test_sigterm_lets_a_running_insert_end_and_kills_what_takes_longer(
    tmp_path: Path,
) -> None:
    settings = stack_settings(tmp_path)
    url = clickhouse_url(settings).rpartition("/")[0]
    told: list[str] = []
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
        async with Children(tmp_path / "logs", told.append) as children:
            await children.start(clickhouse_child(settings))
            await http.post("/", content="CREATE TABLE t (a UInt64) ENGINE = Log")
            sql = "INSERT INTO t SELECT number + sleepEachRow(0.2) FROM numbers(8)"
            short = asyncio.create_task(http.post("/", content=sql))
            sql = "SELECT sleepEachRow(1) FROM numbers(600) SETTINGS max_block_size = 1 FORMAT Null"
            endless = asyncio.create_task(http.post("/", content=sql))
            await asyncio.sleep(0.5)
            started = time.monotonic()
        assert time.monotonic() - started < DRAIN_S + 3
        assert (await short).status_code == 200
        (answer,) = await asyncio.gather(endless, return_exceptions=True)
        broken_off = isinstance(answer, httpx.TransportError)
        assert broken_off or (isinstance(answer, httpx.Response) and answer.status_code == 500)
        assert told == []


@pytest.mark.kafka
async def test_the_broker_comes_back_after_kill_9_with_its_records(tmp_path: Path) -> None:
    settings = stack_settings(tmp_path)
    bootstrap = f"{HOST}:{settings.kafka_port}"
    told: list[str] = []
    async with Children(tmp_path / "logs", told.append) as children:
        await children.start(kafka_child(settings))
        large = bytes(12 * 1024 * 1024)
        async with AIOKafkaProducer(
            bootstrap_servers=bootstrap, max_request_size=16777216, acks="all"
        ) as producer:
            sent = await producer.send_and_wait("events.acme", large, partition=2)
        assert sent.offset == 0
        with pytest.raises(FolderTaken, match="TALLYLOG_DATA_DIR"):
            kafka_child(
                settings.model_copy(update={"kafka_port": stack_settings(tmp_path).kafka_port})
            )
        os.kill(children.pids()["kafka"], signal.SIGKILL)
        await until(lambda: any("runs again" in line for line in told))
        async with AIOKafkaConsumer(
            bootstrap_servers=bootstrap, max_partition_fetch_bytes=16777216
        ) as consumer:
            consumer.assign([TopicPartition("events.acme", 2)])
            await consumer.seek_to_beginning()
            record = await asyncio.wait_for(consumer.getone(), 10)
            assert record.value == large
            assert consumer.partitions_for_topic("events.acme") == {0, 1, 2, 3}
        pid = children.pids()["kafka"]
    assert await gone(pid)


@pytest.mark.kafka
async def test_the_broker_takes_records_as_large_as_the_design_says(kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
    finally:
        await admin.close()
    values = {entry[0]: entry[1] for entry in answers[0].resources[0][4]}
    assert values["message.max.bytes"] == values["replica.fetch.max.bytes"] == "16777216"
    assert values["auto.create.topics.enable"] == "true"
    assert values["num.partitions"] == "4"


def test_a_taken_port_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        settings = stack_settings(tmp_path).model_copy(
            update={"kafka_port": port, "clickhouse_port": port}
        )
        with pytest.raises(PortTaken, match=rf"port {port} .*TALLYLOG_KAFKA_PORT"):
            kafka_child(settings)
        for start in (clickhouse_child, run_clickhouse):
            with pytest.raises(PortTaken, match=rf"port {port} .*TALLYLOG_CLICKHOUSE_PORT"):
                start(settings)


async def until(said: object, seconds: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not said():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_children_stop_in_reverse_order_and_by_force_if_they_must(tmp_path: Path) -> None:
    told: list[str] = []
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
    up = tmp_path / "logs" / "deaf.log"

    async def listening() -> bool:
        return up.exists() and "up" in up.read_text()

    async with Children(tmp_path / "logs", told.append) as children:
        await children.start(sleeper("first"))
        await children.start(sleeper("deaf", deaf, stop_grace_s=0.2, ready=listening))
        pids = children.pids()
    assert list(pids) == ["first", "deaf"]
    assert told == ["deaf did not stop within 0.2 s: killed"]
    assert [await gone(pid) for pid in pids.values()] == [True, True]


async def test_a_look_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_stack.children.LOOK_S", 0.1)
    looks = 0

    async def answers() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            await asyncio.Event().wait()
        return True

    async with Children(tmp_path / "logs") as children, asyncio.timeout(10):
        await children.start(sleeper("slow", ready=answers))
    assert looks == 2


async def test_a_child_that_fails_to_start_says_why(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    async with Children(tmp_path / "logs") as children:
        code = "raise SystemExit('no such table')"
        with pytest.raises(ChildFailed, match=r"ended with status 1(?s:.*)no such table"):
            await children.start(sleeper("broken", code, ready=never))
        with pytest.raises(ChildFailed, match=r"did not answer within 0\.2 s"):
            await children.start(sleeper("silent", ready=never, ready_timeout_s=0.2))
        with pytest.raises(ChildFailed, match="could not be started"):
            await children.start(Child(name="absent", argv=["/no/such/program"]))


SUPERVISOR = """
import asyncio, signal, sys
from pathlib import Path
from local_stack.children import Child, Children
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit SIG_IGN
async def main():
    async with Children(Path(sys.argv[1]), print) as children:
        for name in ("one", "two"):
            await children.start(Child(name, ["/bin/sh", "-c", "sleep 600 & wait"]))
        print(*children.pids().values(), flush=True)
        await children.wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_nothing_outlives_the_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    supervisor = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    with supervisor.stdout as out:
        pids = [int(pid) for pid in out.readline().split()]
        assert len(pids) == 2
        await until(lambda: all(psutil.Process(pid).children() for pid in pids))
        everybody = psutil.Process(supervisor.pid).children(recursive=True)
        assert len(everybody) == 5  # two children, what they started, and the undertaker
        supervisor.send_signal(number)
        status = supervisor.wait(timeout=10)
    assert status == (-number if number == signal.SIGKILL else 0)
    assert [await gone(each.pid) for each in everybody] == [True] * 5


async def test_what_a_child_left_behind_ends_before_it_is_started_again(tmp_path: Path) -> None:
    told: list[str] = []
    async with Children(tmp_path / "logs", told.append) as children:
        await children.start(Child("short", ["/bin/sh", "-c", "sleep 600 & echo $!; sleep 1"]))
        await until(lambda: len(told) == 2)
        first = (tmp_path / "logs" / "short.log").read_text().split()[0]
        assert told[1] == "short runs again"
        assert await gone(int(first))


@pytest.mark.skipif(sys.platform != "linux", reason="sessions have a niceness on Linux")
async def test_a_child_that_stands_back_does_so_among_sessions_too(tmp_path: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with Children(tmp_path / "logs") as children:
        await children.start(sleeper("front"))
        await children.start(sleeper("back", nice=7))
        pids = children.pids().values()
        found = [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids]
        assert found == [own, min(own + 7, 19)]
        if AUTOGROUP.exists():
            assert [standing(pid) for pid in pids] == [["nice", "0"], ["nice", "7"]]


@pytest.mark.clickhouse
@pytest.mark.skipif(sys.platform != "linux", reason="threads have names and priorities on Linux")
async def test_the_engine_stands_back_and_merges_behind_its_other_threads(tmp_path: Path) -> None:
    settings = stack_settings(tmp_path)
    async with (
        Children(tmp_path / "logs") as children,
        httpx.AsyncClient(base_url=clickhouse_url(settings).rpartition("/")[0]) as http,
    ):
        await children.start(clickhouse_child(settings))
        await http.post("/", content="CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
        for _ in range(20):  # so many parts are merged in the background
            insert = "INSERT INTO t SELECT number FROM numbers(10)"
            assert (await http.post("/", content=insert)).status_code == 200
        pid = children.pids()["clickhouse"]
        await until(
            lambda: {nice for name, nice in priorities(pid) if name == "MergeMutate"} == {19}
        )
        others = {nice for name, nice in priorities(pid) if name != "MergeMutate"}
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert max(others) == min(own + BEHIND, 19)  # some take more, as root
        if AUTOGROUP.exists():
            assert standing(pid) == ["nice", str(BEHIND)]


def standing(pid: int) -> list[str]:
    """How a process's session stands among others."""
    return Path(f"/proc/{pid}/autogroup").read_text().split()[1:]


def priorities(pid: int) -> list[tuple[str, int]]:
    """The names of a process's threads, and how far they give way."""
    return [
        ((task / "comm").read_text().strip(), os.getpriority(os.PRIO_PROCESS, int(task.name)))
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]
