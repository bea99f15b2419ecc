"""The wire behaviour that ClickHouse's clients rely on; the same against a ClickHouse server."""

import gzip
import io
import json
import shutil
import socket
import subprocess
import threading
import time
import zlib
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import httpx
import lz4.frame
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from tests.local_stack.conftest import Http

pytestmark = pytest.mark.clickhouse


def test_health(http: Http) -> None:
    for path in ("/ping", "/", "/replicas_status"):
        assert http.client.get(path).text == "Ok.\n"
    assert http.client.head("/").status_code == 200
    assert http.client.get("/nope").status_code == 404


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_curl_asks_by_url_and_by_body(http: Http) -> None:
    ask = ["curl", "-s", "--noproxy", "*", "-u", ":".join(("default", ""))]
    by_body = subprocess.run(
        [*ask, http.base, "-d", "SELECT 1 + 1"], capture_output=True, check=True
    )
    by_url = subprocess.run(
        [*ask, http.base + "?query=SELECT%20'a%20b'"], capture_output=True, check=True
    )
    assert (by_body.stdout, by_url.stdout) == (b"2\n", b"a b\n")


def test_the_query_decides_the_format_and_headers_tell_it(http: Http) -> None:
    answer = http.ask("SELECT 1 AS a FORMAT JSONEachRow", query_id="format-1")
    assert answer.text == '{"a":1}\n'
    assert answer.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert answer.headers["X-ClickHouse-Query-Id"] == "format-1"
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    assert answer.headers["X-ClickHouse-Timezone"]
    assert answer.headers["X-ClickHouse-Server-Display-Name"]
    assert int(json.loads(answer.headers["X-ClickHouse-Summary"])["read_rows"]) == 1
    assert http.ask("SELECT 1 AS a", default_format="CSVWithNames").text == '"a"\n1\n'
    by_header = http.ask("SELECT 1", headers={"X-ClickHouse-Format": "JSONCompactEachRow"})
    assert by_header.text == "[1]\n"


@pytest.mark.parametrize(
    ("sql", "code", "status"),
    [
        ("SELEC 1", 62, 400),
        ("SELECT * FROM nope", 60, 404),
        ("SELECT nope", 47, 404),
        ("SELECT nope()", 46, 404),
        ("SELECT 1 SETTINGS nope = 1", 115, 404),
        ("SELECT 1 FORMAT Nope", 73, 404),
        ("INSERT INTO nope FORMAT CSV\n1", 60, 404),
        ("SELECT throwIf(1)", 395, 500),
        ("SELECT {a:UInt8}", 456, 400),
        ("SELECT 1; SELECT 2", 62, 400),
    ],
)
def test_errors_carry_code_status_and_text(http: Http, sql: str, code: int, status: int) -> None:
    answer = http.ask(sql)
    assert answer.headers["X-ClickHouse-Exception-Code"] == str(code)
    assert answer.status_code == status
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert answer.text.count("DB::Exception") == 1


def test_a_setting_holds_for_its_request_alone(http: Http) -> None:
    sql = "SELECT getSetting('max_block_size')"
    assert http.rows(sql, max_block_size=77) == "77"
    assert http.rows(sql) != "77"
    assert http.rows(sql, max_block_size=77, session_id="settings") == "77"
    assert http.rows(sql, session_id="settings") != "77"
    assert http.ask(sql, no_such_setting=1).headers["X-ClickHouse-Exception-Code"] == "115"
    odd: dict[str, Any] = {"not a name": 1}
    assert http.ask(sql, **odd).headers["X-ClickHouse-Exception-Code"] == "115"
    assert http.ask("CREATE TABLE ro (a UInt8) ENGINE = Memory", readonly=1).status_code == 500
    by_get = http.client.get("/", params={"query": "CREATE TABLE ro (a UInt8) ENGINE = Memory"})
    assert by_get.headers["X-ClickHouse-Exception-Code"] == "164"


def test_parameters_are_bound_not_pasted(http: Http) -> None:
    sql = (
        "SELECT {s:String}, {l:Array(String)}, {t:DateTime64(3, 'UTC')}, {d:Decimal(38, 18)}, "
        "{f:FixedString(3)}, {n:Nullable(String)}, {m:Map(String, UInt8)}, {i:Identifier} "
        "FROM system.databases WHERE name = 'system' FORMAT JSONCompact"
    )
    answer = http.ask(
        sql,
        param_s="it's\\ta \\\\ b\\nü'; DROP TABLE t; --",
        param_l="['a','b\\'c']",
        param_t="2026-01-01 00:00:00.123",
        param_d="1.200000000000000001",
        param_f="abc",
        param_n="\\N",
        param_m="{'k':1}",
        param_i="name",
        output_format_json_quote_decimals=1,
    )
    assert answer.json()["data"] == [
        [
            "it's\ta \\ b\nü'; DROP TABLE t; --",
            ["a", "b'c"],
            "2026-01-01 00:00:00.123",
            "1.200000000000000001",
            "abc",
            None,
            {"k": 1},
            "system",
        ]
    ]
    bad = http.ask("SELECT {a:UInt8}", param_a="zz")
    assert bad.headers["X-ClickHouse-Exception-Code"] == "457"


def test_sessions_keep_temporary_tables_and_are_one_client_s_at_a_time(http: Http) -> None:
    http.rows("CREATE TEMPORARY TABLE mine (a UInt8)", session_id="s1")
    http.rows("INSERT INTO mine VALUES (7)", session_id="s1")
    assert http.rows("SELECT * FROM mine", session_id="s1") == "7"
    assert http.ask("SELECT * FROM mine").status_code == 404
    assert http.ask("SELECT 1", session_id="s2", session_check=1).status_code == 404
    slow = threading.Thread(target=lambda: http.rows("SELECT sleep(1)", session_id="s1"))
    slow.start()
    time.sleep(0.3)
    locked = http.ask("SELECT 1", session_id="s1")
    assert locked.headers["X-ClickHouse-Exception-Code"] == "373"
    slow.join()
    assert http.rows("SELECT 1", session_id="s1") == "1"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4", ""])
def test_answers_are_compressed_as_asked(http: Http, encoding: str) -> None:
    decode = {
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
        "lz4": lz4.frame.decompress,
        "": bytes,
    }[encoding]
    for rows in (0, 10, 300_000):
        headers = {"Accept-Encoding": encoding or "identity"}
        args = {"database": "system", "enable_http_compression": "1"}
        sql = f"SELECT number FROM numbers({rows})"  # noqa: S608
        request = http.client.build_request("POST", "/", params=args, content=sql, headers=headers)
        answer = http.client.send(request, stream=True)
        body = b"".join(answer.iter_raw())
        answer.close()
        assert answer.headers.get("Content-Encoding", "") == encoding
        assert decode(body) == b"".join(b"%d\n" % each for each in range(rows))


def test_a_large_answer_streams(http: Http) -> None:
    sql = "SELECT number, toString(number) FROM numbers(5000000)"
    with http.client.stream("POST", "/", content=sql) as answer:
        assert sum(map(len, answer.iter_raw())) == 77_777_780


@pytest.mark.parametrize("name", ["JSON", "CSVWithNames", "JSONCompact", "Arrow", "Parquet"])
def test_a_large_answer_is_one_document(http: Http, name: str) -> None:
    sql = f"SELECT number AS a FROM numbers(300000) -- ;\n FORMAT {name}"  # noqa: S608
    body = http.ask(sql).content
    if name in {"Arrow", "Parquet"}:
        read = pa.ipc.open_file if name == "Arrow" else pa.parquet.ParquetFile
        found = read(io.BytesIO(body))
        assert (found.read_all() if name == "Arrow" else found.read()).num_rows == 300_000
    elif name == "CSVWithNames":
        assert body.count(b'"a"') == 1 and body.count(b"\n") == 300_001
    else:
        assert len(json.loads(body)["data"]) == 300_000
    small = http.ask("SELECT 1 AS a;", default_format=name)
    assert small.status_code == 200 and small.headers["X-ClickHouse-Format"] == name


def test_an_error_on_the_way_breaks_the_answer_off(http: Http) -> None:
    sql = "SELECT number, throwIf(number = 3000000, 'on the way') FROM numbers(5000000)"
    body = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        http.client.stream("POST", "/", content=sql, params={"max_threads": 1}) as answer,
    ):
        assert answer.status_code == 200
        for piece in answer.iter_raw():
            body = (body + piece)[-2000:]
    tag = answer.headers["X-ClickHouse-Exception-Tag"].encode()
    assert b"__exception__\r\n" + tag in body and b"on the way" in body
    waited = http.ask(sql, wait_end_of_query=1)
    assert (waited.status_code, waited.headers["X-ClickHouse-Exception-Code"]) == (500, "395")


def test_clickhouse_connect_reads_and_writes(clickhouse_url: str, table: str) -> None:
    rows = [[n, f"é{n}"] for n in range(50_000)]
    for compress in (True, "zstd", "gzip", False):
        with clickhouse_connect.get_client(dsn=clickhouse_url, compress=compress) as client:
            done = client.insert(table, rows, column_names=["a", "b"])
            assert done.written_rows == len(rows)
            got = client.query("SELECT a, b FROM t ORDER BY a")
            assert got.result_rows == [tuple(row) for row in rows]
            bound = client.query("SELECT {x:String}", parameters={"x": "a\tb'\\"})
            assert bound.result_rows == [("a\tb'\\",)]
            with client.query_rows_stream("SELECT number FROM numbers(1000000)") as stream:
                assert sum(1 for _ in stream) == 1_000_000
            with pytest.raises(
                clickhouse_connect.driver.exceptions.DatabaseError, match="Code: 60"
            ):
                client.query("SELECT * FROM nope")
            client.command("TRUNCATE TABLE t")


def test_a_query_id_is_seen_killed_and_used_once_at_a_time(http: Http) -> None:
    answers: list[httpx.Response] = []
    sql = "SELECT sleepEachRow(0.1) FROM numbers(100) SETTINGS max_block_size = 1 FORMAT Null"
    thread = threading.Thread(target=lambda: answers.append(http.ask(sql, query_id="slow-1")))
    thread.start()
    live = "SELECT count() FROM system.processes WHERE query_id = 'slow-1'"
    deadline = time.monotonic() + 5
    while http.rows(live) != "1":
        assert time.monotonic() < deadline
    again = http.ask("SELECT 1", query_id="slow-1")
    assert again.headers["X-ClickHouse-Exception-Code"] == "216"
    killed = http.rows("KILL QUERY WHERE query_id = 'slow-1' SYNC")
    assert "finished" in killed
    assert http.rows(live) == "0"
    thread.join(timeout=5)
    assert answers[0].headers["X-ClickHouse-Exception-Code"] == "394"


def test_files_and_other_servers_are_out_of_reach(http: Http) -> None:
    for sql in (
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1', 'system.one')",
        "SELECT 1 INTO OUTFILE '/tmp/stolen'",
        "INSERT INTO FUNCTION file('/tmp/stolen', 'CSV') SELECT 1",
        "INSERT INTO t FROM INFILE '/etc/passwd' FORMAT LineAsString",
    ):
        assert http.ask(sql).status_code >= 400, sql


def test_a_client_that_leaves_does_not_hold_up_others(http: Http) -> None:
    parts = urlsplit(http.base)
    for _ in range(30):
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.sendall(
                b"GET /?query=SELECT+number+FROM+numbers(1000000000) HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            client.recv(1000)
    started = time.monotonic()
    assert http.rows("SELECT 1") == "1"
    assert time.monotonic() - started < 3
    deadline = time.monotonic() + 5
    while http.rows("SELECT count() FROM system.processes") != "1":
        assert time.monotonic() < deadline
