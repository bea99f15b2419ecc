"""The SQL port beside clients that hold a connection and don't read, or don't send."""

import contextlib
import socket
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import clickhouse_connect
import psutil
import pytest

from clickhouse.client import connect
from clickhouse.migrator import apply, read_migrations
from local_stack.clickhouse import clickhouse_child, clickhouse_url
from local_stack.http_interface import REFUSED_S
from local_stack.ports import HOST
from local_stack.readers import OF_ONE_MAX, Readers
from local_stack.settings import StackSettings
from tests.local_stack.conftest import Http
from tests.stack import running, stack_settings

pytestmark = pytest.mark.clickhouse
DELIVERY_S = 1.5
HURRIED = f"""
from dataclasses import replace
from local_stack import readers
from local_stack.clickhouse import run_clickhouse
from local_stack.connection import Connection
from local_stack.settings import StackSettings
from sockets import connection

readers.DELIVERY_S = {DELIVERY_S}
connection.LOOK_S, connection.FLUSH_S = 0.1, 0.5
Connection.limits = replace(
    Connection.limits, head_s=1, body_silence_s=1, idle_s=1, unread_s=2, connections_max=200
)
run_clickhouse(StackSettings())
"""
"""An engine whose deadlines are some seconds."""
WIDE = "SELECT repeat('x', 1000) FROM numbers(400000)"
"""What no buffer on the way has room for."""
LONG = "SELECT sum(arraySort(x -> cityHash64(x), range(100 + number % 10))[1]) FROM numbers(1e9)"
RUNNING = (
    "SELECT count() FROM system.processes WHERE endsWith(Settings['log_comment'], ' {account}')"
)
EMPTY_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


@dataclass
class Hurried:
    """An engine, and readers of some accounts."""

    settings: StackSettings
    passwords: dict[str, str]
    process: psutil.Process

    @contextlib.contextmanager
    def as_reader(self, account: str) -> Iterator[Http]:
        """A reader's connection."""
        login = f"reader_{account}:{self.passwords[account]}"
        each = Http(f"http://{login}@{HOST}:{self.settings.clickhouse_port}/readers")
        with each.client:
            yield each

    def ask_without_reading(
        self, user: str, password: str, sql: str, args: str = ""
    ) -> socket.socket:
        """A socket on which an answer comes that nobody takes."""
        slow = self.connect()
        login = b64encode(f"{user}:{password}".encode()).decode()
        head = f"POST /?{args} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {login}\r\n"
        slow.sendall(f"{head}Content-Length: {len(sql)}\r\n\r\n{sql}".encode())
        return slow

    def connect(self) -> socket.socket:
        """A connection that nothing has been sent on yet."""
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(10)
        slow.connect((HOST, self.settings.clickhouse_port))
        return slow

    def closed_after(self, slow: socket.socket) -> float:
        """Seconds until the engine has no such connection any more."""
        started = time.monotonic()
        while self.holds(slow):
            assert time.monotonic() - started < 10
            time.sleep(0.05)
        return time.monotonic() - started

    def holds(self, slow: socket.socket) -> bool:
        """Whether the engine has such a connection."""
        ends = (slow.getpeername(), slow.getsockname())
        return any(
            (each.laddr, each.raddr) == ends for each in self.process.net_connections("tcp4")
        )


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hurried]:
    folder = tmp_path_factory.mktemp("hurried")
    settings = stack_settings(folder)
    child = replace(clickhouse_child(settings), argv=[sys.executable, "-c", HURRIED])
    with running(child, folder / "logs"):
        with connect(clickhouse_url(settings)) as client:
            apply(client, "tallylog", read_migrations())
        known = Readers(Path(settings.data_dir) / "clickhouse")
        [process] = (each for each in psutil.Process().children() if HURRIED in each.cmdline())
        yield Hurried(settings, {name: known.create(name) for name in ("acme", "other")}, process)


@pytest.fixture(scope="module")
def operator(hurried: Hurried) -> Iterator[Http]:
    each = Http(clickhouse_url(hurried.settings))
    with each.client:
        yield each


@pytest.mark.parametrize("form", ["RowBinary", "JSON"], ids=["streamed", "through_a_file"])
def test_a_reader_that_does_not_read_holds_its_place_for_a_while_only(
    hurried: Hurried, operator: Http, form: str
) -> None:
    started = time.monotonic()
    sql = f"{WIDE} FORMAT {form}"
    with hurried.ask_without_reading("reader_acme", hurried.passwords["acme"], sql) as slow:
        time.sleep(0.3)
        with hurried.as_reader("other") as other:
            assert other.rows("SELECT 1") == "1"
        assert DELIVERY_S - 0.5 < time.monotonic() - started < DELIVERY_S + 3
        assert operator.rows(RUNNING.format(account="acme")) == "0"
        hurried.closed_after(slow)
        assert time.monotonic() - started < DELIVERY_S + 5


def test_a_reader_that_gets_no_answer_in_time_is_told_so(hurried: Hurried, operator: Http) -> None:
    with hurried.as_reader("acme") as reader:
        answer = reader.ask(LONG)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "159"
        assert answer.text.startswith("Code: 159. DB::Exception: Timeout exceeded")
        assert reader.rows("SELECT 1") == "1"
    assert operator.rows(RUNNING.format(account="acme")) == "0"


def test_accounts_take_turns(hurried: Hurried) -> None:
    """What one asked before comes after what another asks once."""
    ended: list[str] = []

    def ask(account: str, sql: str) -> None:
        with hurried.as_reader(account) as reader:
            reader.ask(sql)
        ended.append(account)

    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(ask, "acme", LONG) for _ in range(2)]
        time.sleep(0.5)
        asked.append(pool.submit(ask, "other", "SELECT 1"))
    for each in asked:
        each.result()
    assert ended == ["acme", "other", "acme"]


def test_a_refused_reader_hears_so_after_a_second_and_holds_up_nobody(
    hurried: Hurried, operator: Http
) -> None:
    password, sockets = hurried.passwords["acme"], []
    with contextlib.ExitStack() as stack:
        for number in range(OF_ONE_MAX + 20):
            sql = LONG if number < OF_ONE_MAX else "SELECT 1"
            asking = hurried.ask_without_reading("reader_acme", password, sql)
            sockets.append(stack.enter_context(asking))
        started = time.monotonic()
        assert operator.rows("SELECT 1") == "1"
        assert time.monotonic() - started < REFUSED_S + 4  # it doesn't wait for twenty
        for each in sockets[OF_ONE_MAX:]:
            answer = each.recv(65536)
            assert b"X-ClickHouse-Exception-Code: 202".lower() in answer.lower(), answer
            assert REFUSED_S - 0.2 < time.monotonic() - started < REFUSED_S + 4
    deadline = time.monotonic() + 5
    with hurried.as_reader("acme") as reader:  # those went away, and their places are free
        while reader.ask("SELECT 1").status_code != 200:
            assert time.monotonic() < deadline


def test_a_silent_connection_is_closed(hurried: Hurried) -> None:
    login = b64encode(f"reader_acme:{hurried.passwords['acme']}".encode())
    known = b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic " + login
    heads = {
        b"": b"",
        EMPTY_HEAD: b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain",
        known + b"\r\nContent-Length: 99\r\n\r\nSELECT": b"HTTP/1.1 408 Request Timeout",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nSELECT": b"HTTP/1.1 408 ",
        EMPTY_HEAD + b"\r\n": b"HTTP/1.1 200 OK",
    }
    with contextlib.ExitStack() as stack:
        slow = {sent: stack.enter_context(hurried.connect()) for sent in heads}
        started = time.monotonic()
        for sent, each in slow.items():
            each.sendall(sent)
        for sent, answer in heads.items():
            got = b""
            while piece := slow[sent].recv(65536):
                got += piece
            assert got.startswith(answer) and bool(got) == bool(answer), (sent, got)
        assert 0.5 < time.monotonic() - started < 5


def test_more_sockets_than_there_may_be_leave_files_for_the_tables(
    hurried: Hurried, operator: Http
) -> None:
    """Whoever is connected goes on; who comes then is not let in."""
    assert operator.rows("SELECT 1") == "1"
    stop, asked = threading.Event(), []

    def go_on() -> None:
        while not stop.is_set():
            asked.append(operator.rows("SELECT 1"))
            time.sleep(0.1)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        going = pool.submit(go_on)
        for _ in range(250):
            stack.enter_context(contextlib.closing(hurried.connect()))
        with contextlib.closing(hurried.connect()) as one_more:
            with contextlib.suppress(OSError):
                one_more.sendall(EMPTY_HEAD + b"\r\n")
                assert one_more.recv(1) == b""
        stop.set()
        going.result()
    assert set(asked) == {"1"}
    deadline = time.monotonic() + 5
    while True:  # they are gone: there is room again
        with contextlib.suppress(Exception), hurried.as_reader("other") as other:
            assert other.rows("SELECT 1") == "1"
            break
        assert time.monotonic() < deadline


def test_an_operators_long_insert_query_and_answer_go_on(hurried: Hurried, operator: Http) -> None:
    """Longer than any deadline of a reader or of silence, as long as something comes."""
    operator.rows("CREATE TABLE slow (a UInt64) ENGINE = MergeTree ORDER BY a")

    def lines() -> Iterator[bytes]:
        for number in range(6):
            yield f"{number}\n".encode()
            time.sleep(0.4)

    def watch() -> int:
        seen = 0
        sql = f"{WIDE} LIMIT 30000 FORMAT RowBinary"
        with operator.client.stream("POST", "/", content=sql) as answer:
            for piece in answer.iter_bytes(1 << 20):
                if seen < 3 << 20:
                    time.sleep(0.8)
                seen += len(piece)
        return seen

    with ThreadPoolExecutor(3) as pool:
        inserted = pool.submit(operator.ask, "INSERT INTO slow FORMAT TSV", body=lines())
        watched = pool.submit(watch)
        waited = pool.submit(operator.rows, "SELECT sum(sleepEachRow(0.25)) FROM numbers(10)")
        assert inserted.result().status_code == 200
        assert waited.result() == "0"
        assert watched.result() == 30_000 * 1002
    assert operator.rows("SELECT count() FROM slow") == "6"
    client = clickhouse_connect.get_client(host=HOST, port=hurried.settings.clickhouse_port)
    with client:
        time.sleep(1.2)  # its connections are closed meanwhile
        client.insert("tallylog.slow", [[number] for number in range(1000)], ["a"])
        assert client.query("SELECT count() FROM tallylog.slow").result_rows == [(1006,)]


def test_an_operator_that_does_not_read_is_closed_as_well(hurried: Hurried, operator: Http) -> None:
    args = "query_id=unread"
    with hurried.ask_without_reading("default", "", f"{WIDE} FORMAT RowBinary", args) as slow:
        while not hurried.holds(slow):
            time.sleep(0.05)
        assert hurried.closed_after(slow) > 1
    running = "SELECT count() FROM system.processes WHERE query_id = 'unread'"
    deadline = time.monotonic() + 5
    while operator.rows(running) != "0":
        assert time.monotonic() < deadline
        time.sleep(0.1)
