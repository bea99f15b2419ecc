"""Inserts over HTTP: every format and encoding, all or nothing, one part each."""

import gzip
import io
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import cramjam
import lz4.block
import lz4.frame
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from tests.local_stack.conftest import Http

pytestmark = pytest.mark.clickhouse

ROWS = 1000
WHOLE = f"{ROWS}\t{sum(range(ROWS))}"
STATE = "SELECT count(), sum(a) FROM t"


def lines(count: int = ROWS, start: int = 0) -> bytes:
    """Rows of `t` as tab separated text."""
    return b"".join(b"%d\tx%d\n" % (n, n) for n in range(start, start + count))


def many_frames(encode: Callable[[bytes], bytes]) -> bytes:
    """Rows of `t`, every 100 of them a frame of their own."""
    return b"".join(encode(lines(100, start)) for start in range(0, ROWS, 100))


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", ENCODERS)
def test_every_frame_of_a_body_counts(http: Http, table: str, encoding: str) -> None:
    body = many_frames(ENCODERS[encoding])
    headers = {"Content-Encoding": encoding}
    answer = http.ask("INSERT INTO t FORMAT TSV", body=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == str(ROWS)
    assert http.rows(STATE) == WHOLE


def test_brotli_and_bare_deflate(http: Http, table: str) -> None:
    bare = zlib.compressobj(wbits=-15)
    for encoding, body in (
        ("br", bytes(cramjam.brotli.compress(lines()))),
        ("deflate", bare.compress(lines()) + bare.flush()),
    ):
        headers = {"Content-Encoding": encoding}
        assert http.ask("INSERT INTO t FORMAT TSV", body=body, headers=headers).status_code == 200
        assert http.rows(STATE) == WHOLE
        http.rows("TRUNCATE TABLE t")


@pytest.mark.parametrize("encoding", [*ENCODERS, "br"])
def test_a_body_cut_short_inserts_nothing(http: Http, table: str, encoding: str) -> None:
    if encoding == "br":
        body = bytes(cramjam.brotli.compress(lines()))
    else:
        body = many_frames(ENCODERS[encoding])
    for cut in (body[:-3], body[: len(body) // 2], b"rubbish" + body):
        answer = http.ask(
            "INSERT INTO t FORMAT TSV", body=cut, headers={"Content-Encoding": encoding}
        )
        assert answer.status_code == 400, answer.text
        assert http.rows(STATE) == "0\t0"


def test_a_body_larger_than_memory_may_hold_waits_on_disk(http: Http, table: str) -> None:
    line = b"7\t" + b"x" * 1_000_000 + b"\n"
    answer = http.ask("INSERT INTO t FORMAT TSV", body=iter([line] * 70))
    assert answer.status_code == 200, answer.text
    assert http.rows("SELECT count(), sum(length(b)) FROM t") == "70\t70000000"


def test_an_unknown_encoding_is_refused(http: Http, table: str) -> None:
    headers = {"Content-Encoding": "rot13"}
    assert http.ask("INSERT INTO t FORMAT TSV", body=lines(), headers=headers).status_code == 400


def arrow(stream: bool) -> bytes:
    """Rows of `t` in Arrow's stream or file format."""
    found = pa.table({"a": list(range(ROWS)), "b": [f"x{n}" for n in range(ROWS)]})
    sink = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, found.schema) as writer:
        writer.write_table(found)
    return sink.getvalue()


def parquet() -> bytes:
    """Rows of `t` in Parquet."""
    sink = io.BytesIO()
    found = pa.table({"a": list(range(ROWS)), "b": [f"x{n}" for n in range(ROWS)]})
    pa.parquet.write_table(found, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "name",
    "Native RowBinary ArrowStream Arrow Parquet JSONEachRow CSV TSV Values".split(),
)
def test_every_format_goes_in_whole(http: Http, table: str, name: str) -> None:
    if name in {"Arrow", "ArrowStream"}:
        body = arrow(stream=name == "ArrowStream")
    elif name == "Parquet":
        body = parquet()
    else:
        sql = f"SELECT number AS a, concat('x', toString(number)) AS b FROM numbers({ROWS})"  # noqa: S608
        body = http.ask(f"{sql} FORMAT {name}").content
    in_url = http.ask(f"INSERT INTO t (a, b) FORMAT {name}", body=body)
    assert in_url.status_code == 200, in_url.text
    assert http.rows(STATE) == WHOLE
    http.rows("TRUNCATE TABLE t")
    statement = f"INSERT INTO t (a, b) /* FORMAT X */ FORMAT {name}\n".encode()
    in_body = http.ask("", body=statement + body)
    assert in_body.status_code == 200, in_body.text
    assert http.rows(STATE) == WHOLE


def test_values_settings_and_selects(http: Http, table: str) -> None:
    http.rows("INSERT INTO t VALUES (1, 'a'), (2, concat('b', 'c'));")
    http.rows("INSERT INTO t (a, b) SETTINGS async_insert = 0 VALUES (3, 'it''s; FORMAT TSV')")
    http.rows("INSERT INTO t SELECT a + 10, b FROM t")
    http.ask("INSERT INTO t (a, b) VALUES", body=b"(4, 'x')")
    assert http.rows("SELECT a, b FROM t ORDER BY a") == (
        "1\ta\n2\tbc\n3\tit\\'s; FORMAT TSV\n4\tx\n11\ta\n12\tbc\n13\tit\\'s; FORMAT TSV"
    )


@pytest.mark.parametrize("name", ["Native", "ArrowStream", "JSONEachRow", "TSV"])
def test_one_insert_is_one_part_and_fires_a_view_once(http: Http, table: str, name: str) -> None:
    http.rows("CREATE TABLE fired (n UInt64) ENGINE = MergeTree ORDER BY tuple()")
    http.rows("CREATE MATERIALIZED VIEW fired_mv TO fired AS SELECT count() AS n FROM t")
    source = "SELECT number AS a, toString(number) AS b FROM numbers(200000)"
    body = http.ask(f"{source} FORMAT {name}").content
    answer = http.ask(f"INSERT INTO t FORMAT {name}", body=body, async_insert=0)
    assert answer.status_code == 200, answer.text
    parts = "SELECT rows FROM system.parts WHERE table = 't' AND database = currentDatabase()"
    assert http.rows(parts + " AND active") == "200000"
    assert http.rows("SELECT n FROM fired") == "200000"
    http.rows("DROP TABLE fired_mv")
    http.rows("DROP TABLE fired")


def test_a_token_makes_an_insert_once_in_table_and_view(http: Http, table: str) -> None:
    http.rows(
        "CREATE TABLE sums (n UInt64) ENGINE = SummingMergeTree ORDER BY tuple() "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    http.rows("CREATE MATERIALIZED VIEW sums_mv TO sums AS SELECT count() AS n FROM t")
    for token, body in (("one", lines(5)), ("one", lines(5)), ("one", lines(7)), ("two", lines(5))):
        http.ask(
            "INSERT INTO t FORMAT TSV",
            body=body,
            async_insert=0,
            insert_deduplication_token=token,
            deduplicate_blocks_in_dependent_materialized_views=1,
        )
    assert (http.rows("SELECT count() FROM t"), http.rows("SELECT sum(n) FROM sums")) == (
        "10",
        "10",
    )
    http.rows("DROP TABLE sums_mv")
    http.rows("DROP TABLE sums")


def test_a_constraint_refuses_the_whole_insert_and_says_so(http: Http) -> None:
    http.rows("CREATE TABLE owners (p UInt16, owner UInt64) ENGINE = Join(ANY, LEFT, p)")
    http.rows("INSERT INTO owners VALUES (3, 9)")
    http.rows(
        "CREATE TABLE fenced (p UInt16, owner UInt64, "
        "CONSTRAINT fence CHECK owner >= joinGet('owners', 'owner', p)) "
        "ENGINE = MergeTree ORDER BY p"
    )
    refused = http.ask("INSERT INTO fenced FORMAT TSV", body=b"3\t9\n3\t8\n")
    assert refused.headers["X-ClickHouse-Exception-Code"] == "469"
    assert "fence" in refused.text
    assert http.rows("SELECT count() FROM fenced") == "0"
    assert http.ask("INSERT INTO fenced FORMAT TSV", body=b"3\t9\n").status_code == 200
    http.rows("DROP TABLE fenced")
    http.rows("DROP TABLE owners")


def test_a_failing_view_is_reported(http: Http, table: str) -> None:
    http.rows("CREATE TABLE strict (a UInt64, CONSTRAINT few CHECK a < 5) ENGINE = Memory")
    http.rows("CREATE MATERIALIZED VIEW strict_mv TO strict AS SELECT a FROM t")
    refused = http.ask("INSERT INTO t FORMAT TSV", body=lines(10))
    assert refused.headers["X-ClickHouse-Exception-Code"] == "469"
    assert "strict_mv" in refused.text
    http.rows("DROP TABLE strict_mv")
    http.rows("DROP TABLE strict")


def test_a_bad_row_refuses_the_whole_insert(http: Http, table: str) -> None:
    answer = http.ask("INSERT INTO t FORMAT TSV", body=lines(100_000) + b"nonsense\tx\n")
    assert (answer.status_code, http.rows(STATE)) == (400, "0\t0")


def test_a_client_that_leaves_in_the_middle_inserts_nothing(http: Http, table: str) -> None:
    parts = urlsplit(http.base)
    query = f"/?query=INSERT+INTO+t+FORMAT+TSV&database={http.database}"
    for head in (b"Content-Length: 100000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.sendall(f"POST {query} HTTP/1.1\r\nHost: x\r\n".encode() + head)
            if b"chunked" in head:
                client.sendall(b"%x\r\n%b\r\n" % (len(lines()), lines()))
            else:
                client.sendall(lines(100_000))
    time.sleep(0.3)
    assert http.rows(STATE) == "0\t0"


def test_a_chunked_body_and_clickhouse_s_own_blocks(http: Http, table: str) -> None:
    pieces = iter([lines(300), lines(700, 300)])
    assert http.ask("INSERT INTO t FORMAT TSV", body=pieces).status_code == 200
    assert http.rows(STATE) == WHOLE
    http.rows("TRUNCATE TABLE t")
    packed = lz4.block.compress(lines(), store_size=False)
    sizes = (len(packed) + 9).to_bytes(4, "little") + len(lines()).to_bytes(4, "little")
    block = bytes(16) + b"\x82" + sizes + packed
    ask: dict[str, Any] = {
        "decompress": 1,
        "http_native_compression_disable_checksumming_on_decompress": 1,
    }
    assert http.ask("INSERT INTO t FORMAT TSV", body=block, **ask).status_code == 200
    assert http.rows(STATE) == WHOLE
    assert http.ask("INSERT INTO t FORMAT TSV", body=block[:-5], **ask).status_code >= 400
    assert http.rows(STATE) == WHOLE


def test_a_running_insert_is_seen_and_awaited_by_kill(http: Http, table: str) -> None:
    http.rows("CREATE TABLE slow (a UInt64) ENGINE = MergeTree ORDER BY a")
    http.rows(
        "CREATE MATERIALIZED VIEW slow_mv TO slow AS SELECT a FROM t "
        "WHERE sleepEachRow(0.05) = 0 SETTINGS max_block_size = 1"
    )
    codes: list[str | None] = []

    def insert() -> None:
        answer = http.ask(
            "INSERT INTO t FORMAT TSV",
            body=lines(100),
            query_id="counter-p7-owner3-1",
            max_block_size=1,
            min_insert_block_size_rows=1,
            function_sleep_max_microseconds_per_block=60_000_000,
        )
        codes.append(answer.headers.get("X-ClickHouse-Exception-Code"))

    thread = threading.Thread(target=insert)
    thread.start()
    live = "SELECT count() FROM system.processes WHERE query_id LIKE 'counter-p7-%'"
    deadline = time.monotonic() + 5
    while http.rows(live) != "1":
        assert time.monotonic() < deadline
    killed = http.rows("KILL QUERY WHERE query_id LIKE 'counter-p7-%' SYNC")
    assert "finished" in killed
    assert http.rows(live) == "0"
    thread.join(timeout=10)
    assert codes == ["394"]
    http.rows("DROP TABLE slow_mv")
    http.rows("DROP TABLE slow")
