"""The clients, against the HTTP interface of the run's ClickHouse."""

import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pyarrow as pa
import pytest

from clickhouse.client import Address, InsertFailed, Inserts, connect, connect_async
from clickhouse.migrator import migrate
from schemas.block import ipc

BATCH = pa.RecordBatch.from_pydict({"x": pa.array([1, 2, 3], pa.int64())})


@pytest.fixture(scope="module")
def url(clickhouse_url: str) -> Iterator[str]:
    """A database of its own, with a table that remembers tokens and a view on it."""
    database = f"client_{uuid4().hex}"
    url = f"{clickhouse_url.rpartition('/')[0]}/{database}"
    migrate(url)
    client = connect(url)
    for name in ("t", "target"):
        client.command(
            f"CREATE TABLE {name} (x Int64) ENGINE = MergeTree ORDER BY x "
            "SETTINGS non_replicated_deduplication_window = 100"
        )
    client.command("CREATE MATERIALIZED VIEW v TO target AS SELECT sum(x) AS x FROM t")
    yield url
    client.command(f"DROP DATABASE {database} SYNC")
    client.close()


@pytest.fixture
async def inserts(url: str) -> AsyncIterator[Inserts]:
    inserts = Inserts(url)
    yield inserts
    await inserts.close()


@pytest.mark.clickhouse
async def test_a_block_inserted_again_under_its_token_is_there_once_in_table_and_view(
    url: str, inserts: Inserts
) -> None:
    for token in ("a", "a", "b"):
        await inserts.insert("t", ipc(BATCH), token=token, query_id=uuid4().hex)
    client = await connect_async(url)
    rows = await client.query("SELECT (SELECT sum(x) FROM t), (SELECT sum(x) FROM target)")
    await client.close()
    assert rows.result_rows == [(12, 12)]


@pytest.mark.clickhouse
async def test_a_refused_insert_says_why(inserts: Inserts) -> None:
    with pytest.raises(InsertFailed, match="UNKNOWN_TABLE") as refused:
        await inserts.insert("absent", ipc(BATCH), token="c")
    assert refused.value.code == 60


async def test_an_unanswered_insert_has_no_code() -> None:
    inserts = Inserts("http://127.0.0.1:1/x")
    with pytest.raises(InsertFailed, match="no answer") as failed:
        await inserts.insert("t", b"", token="d")
    await inserts.close()
    assert failed.value.code is None


async def test_an_insert_is_given_up_after_its_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        inserts = Inserts(f"http://127.0.0.1:{silent.getsockname()[1]}/x", timeout_s=0.1)
        with pytest.raises(InsertFailed, match=r"no answer.*ReadTimeout"):
            await inserts.insert("t", b"", token="e")
        await inserts.close()


@pytest.mark.clickhouse
def test_threads_may_share_a_client(url: str) -> None:
    client = connect(url)
    with ThreadPoolExecutor(8) as threads:
        queries = [f"SELECT {number}" for number in range(50)]
        rows = [result.result_rows for result in threads.map(client.query, queries)]
    client.close()
    assert rows == [[(number,)] for number in range(50)]


@pytest.mark.clickhouse
def test_migrate_creates_the_database_of_the_url_and_does_nothing_the_second_time(
    url: str,
) -> None:
    assert migrate(url) == []


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h:18123/tallylog", Address("h", 18123, "tallylog")),
        ("https://u:p%40w@h/", Address("h", 8443, "default", "u", "p@w", True)),
        ("http://h", Address("h", 8123, "default")),
    ],
)
def test_a_url_is_read(url: str, address: Address) -> None:
    assert Address.of(url) == address


@pytest.mark.parametrize("url", ["clickhouse://h/x", "h:8123", ""])
def test_another_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="want http://host:port/database"):
        Address.of(url)
