"""Who may ask, and what is out of everyone's reach."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.clickhouse import clickhouse_child
from local_stack.ports import HOST
from local_stack.sandbox import reaches_out
from tests.local_stack.conftest import Http
from tests.stack import running, stack_settings

pytestmark = pytest.mark.clickhouse


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """A local engine that asks for user and password."""
    folder = tmp_path_factory.mktemp("guarded")
    login = {"clickhouse_user": "tally", "clickhouse_password": "s3cret:ü"}
    settings = stack_settings(folder).model_copy(update=login)
    with running(clickhouse_child(settings), folder / "logs"):
        each = Http(f"http://{HOST}:{settings.clickhouse_port}/tallylog")
        each.client.auth = None  # type: ignore[assignment]
        yield each
        each.client.close()


def test_user_and_password_come_in_three_ways(guarded: Http) -> None:
    password = "s3cret:ü"
    by_header = {"X-ClickHouse-User": "tally", "X-ClickHouse-Key": password.encode()}
    ask = guarded.client.get
    for answer in (
        ask("/", params={"query": "SELECT 1"}, auth=("tally", password)),
        ask("/", params={"query": "SELECT 1"}, headers=by_header),  # type: ignore[arg-type]
        ask("/", params={"query": "SELECT 1", "user": "tally", "password": password}),
    ):
        assert answer.text == "1\n"


@pytest.mark.parametrize(
    ("user", "password"),
    [("tally", "wrong"), ("tally", ""), ("default", ""), ("nobody", "s3cret:ü"), ("", "")],
)
def test_anyone_else_is_refused(guarded: Http, user: str, password: str) -> None:
    by_header = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password.encode()}
    ask = guarded.client.post
    for answer in (
        ask("/", content="SELECT 1", auth=(user, password)),
        ask("/", content="SELECT 1", headers=by_header),  # type: ignore[arg-type]
        ask("/", content="SELECT 1", params={"user": user, "password": password}),
        ask("/", content="SELECT 1"),
    ):
        assert answer.headers["X-ClickHouse-Exception-Code"] == "516"
        assert answer.status_code == 403
        assert "Authentication failed" in answer.text and "s3cret" not in answer.text
    assert guarded.client.get("/ping").text == "Ok.\n"


def test_credentials_that_disagree_or_make_no_sense_are_refused(guarded: Http) -> None:
    right = {"X-ClickHouse-User": "tally", "X-ClickHouse-Key": "s3cret:ü".encode()}
    ask = guarded.client.post
    for headers, args in (
        ({**right, "Authorization": "Basic dGFsbHk6d3Jvbmc="}, {}),
        (right, {"user": "tally"}),
        ({"Authorization": "Basic not-base64"}, {}),
        ({"Authorization": "Bearer x"}, {}),
    ):
        answer = ask("/", content="SELECT 1", headers=headers, params=args)  # type: ignore[arg-type]
        assert answer.status_code == 403, (headers, args)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "516"


@pytest.fixture
def local(http: Http) -> Http:
    """The engine, if it is the local stack's: a server has other rules."""
    if (
        http.client.get("/?query=SELECT+1").headers["X-ClickHouse-Server-Display-Name"]
        != "tallylog"
    ):
        pytest.skip("this is a ClickHouse server")
    return http


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file outside the engine's folder that anyone may read."""
    path = tmp_path_factory.mktemp("outside") / "secret.csv"
    path.write_text("1,secret\n")
    return path


READS = """
SELECT * FROM file('{path}', 'CSV', 'a UInt8, b String')
SELECT file('{path}')
SELECT `file`('{path}')
SELECT arrayMap(file, ['{path}'])
SELECT arrayMap(x -> file(x), ['{path}'])
SELECT * APPLY(file) FROM (SELECT '{path}')
SELECT * APPLY(x -> file(x)) FROM (SELECT '{path}')
SELECT * FROM eval('SELECT fi\\x6ce(\\'{path}\\')') SETTINGS allow_experimental_eval_table_function = 1
SELECT 1 SETTINGS additional_result_filter = 'fi\\x6ce(\\'{path}\\') != \\'\\''
SELECT * FROM fileCluster('default', '{path}', 'CSV', 'a UInt8, b String')
SELECT * FROM filesystem('{folder}')
SELECT * FROM default.`{path}`
SELECT * FROM executable('cat', 'CSV', 'a UInt8')
SELECT * FROM sqlite('{path}', 't')
SELECT * FROM python('engine')
SELECT * FROM arrowstream('1')
SELECT * FROM icebergLocal('{folder}', 'CSV', 'a UInt8')
SELECT * FROM loop(file('{path}', 'CSV', 'a UInt8'))
DESCRIBE TABLE file('{path}')
WITH file('{path}') AS x SELECT x
CREATE VIEW stolen AS SELECT file('{path}')
CREATE FUNCTION stolen AS (a) -> file('{path}')
CREATE TABLE stolen (a UInt8, b String DEFAULT file('{path}')) ENGINE = Memory
CREATE TABLE stolen (a UInt8, b String) ENGINE = File(CSV, '{path}')
CREATE TABLE stolen (a UInt8) ENGINE = Executable('cat', CSV)
CREATE TABLE stolen (a UInt8) ENGINE = `ExecutablePool`('cat', CSV)
CREATE TABLE stolen (a UInt8) ENGINE = FileLog('{folder}', 'CSV')
CREATE TABLE stolen AS file('{path}', 'CSV', 'a UInt8, b String')
CREATE TEMPORARY TABLE stolen (a UInt8) ENGINE = File(CSV, '{path}')
CREATE DATABASE stolen ENGINE = Filesystem('{folder}')
CREATE DATABASE stolen ENGINE = SQLite('{path}')
CREATE DICTIONARY stolen (a UInt64, b String) PRIMARY KEY a SOURCE(FILE(path '{path}' format 'CSV')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY stolen (a UInt64, b String) PRIMARY KEY a SOURCE(EXECUTABLE(command 'cat {path}' format 'CSV')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY stolen (a UInt64, b String) PRIMARY KEY a SOURCE(CLICKHOUSE(query 'SELECT 1, file(''{path}'')')) LAYOUT(FLAT()) LIFETIME(0)
INSERT INTO t FROM INFILE '{path}' FORMAT CSV
INSERT INTO t (a, b) /* */ FROM /* */ INFILE '{path}' FORMAT CSV
INSERT INTO t SETTINGS log_comment = ‘'’ FROM INFILE '{path}' FORMAT CSV -- ' FORMAT CSV
INSERT INTO t SELECT 1, file('{path}')
ATTACH TABLE stolen FROM '{folder}' (a UInt8) ENGINE = MergeTree ORDER BY a
RESTORE TABLE t AS stolen FROM File('{path}')
SELECT 1 FORMAT Template SETTINGS format_template_row = '{path}', format_template_resultset = '{path}'
""".strip().splitlines()  # noqa: E501

WRITES = """
SELECT 1 INTO OUTFILE '{path}'
SELECT ‘'’ INTO OUTFILE '{path}' -- '
INSERT INTO FUNCTION file('{path}', 'CSV', 'a UInt8') SELECT 1
CREATE TABLE stolen (a UInt8) ENGINE = EmbeddedRocksDB(0, '{path}') PRIMARY KEY a
CREATE TABLE stolen (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{path}/')
CREATE TABLE stolen (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local_blob_storage, path = '{path}/')
CREATE DATABASE stolen ENGINE = Atomic SETTINGS disk = disk(type = local_blob_storage, path = '{path}/')
BACKUP TABLE t TO File('{path}')
BACKUP TABLE t TO Disk('default', '../../../../../..{path}')
SYSTEM SHUTDOWN
""".strip().splitlines()  # noqa: E501

CALLS = """
SELECT * FROM url('{url}', 'CSV', 'a UInt8')
SELECT * FROM urlCluster('default', '{url}', 'CSV', 'a UInt8')
SELECT * FROM s3('{url}bucket/x.csv', 'CSV', 'a UInt8')
SELECT * FROM remote('{host}', 'system.one')
SELECT * FROM remoteSecure('{host}', 'system.one')
SELECT * FROM mysql('{host}', 'd', 't', 'u', 'p')
SELECT * FROM postgresql('{host}', 'd', 't', 'u', 'p')
SELECT * FROM redis('{host}', 'k', 'k String')
SELECT * FROM iceberg('{url}bucket/', 'CSV', 'a UInt8')
SELECT * FROM azureBlobStorage('{url}', 'c', 'p', 'acc', 'a2V5', 'CSV', 'auto', 'a UInt8')
INSERT INTO FUNCTION url('{url}', 'CSV', 'a UInt8') SELECT 1
INSERT INTO FUNCTION s3('{url}bucket/x.csv', 'CSV', 'a UInt8') SELECT 1
CREATE TABLE stolen (a UInt8) ENGINE = URL('{url}', CSV)
CREATE TABLE stolen (a UInt8) ENGINE = S3('{url}bucket/x.csv', CSV)
CREATE TABLE stolen (a UInt8) ENGINE = MySQL('{host}', 'd', 't', 'u', 'p')
CREATE TABLE stolen (a UInt8) ENGINE = Kafka('{host}', 't', 'g', 'CSV')
CREATE TABLE stolen (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = web, endpoint = '{url}b/')
CREATE TABLE stolen (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = s3, endpoint = '{url}bucket/', access_key_id = 'a', secret_access_key = 'b')
CREATE DATABASE stolen ENGINE = PostgreSQL('{host}', 'd', 'u', 'p')
CREATE DATABASE stolen ENGINE = S3('{url}bucket/')
CREATE DATABASE stolen ENGINE = Remote('{host}', 'system')
CREATE DICTIONARY stolen (a UInt64, b String) PRIMARY KEY a SOURCE(HTTP(url '{url}' format 'CSV')) LAYOUT(FLAT()) LIFETIME(0)
CREATE NAMED COLLECTION stolen AS url = '{url}'
BACKUP TABLE t TO S3('{url}bucket/x', 'a', 'b')
""".strip().splitlines()  # noqa: E501


@pytest.mark.parametrize("sql", READS)
def test_files_are_out_of_reach(local: Http, table: str, secret: Path, sql: str) -> None:
    text = sql.format(path=secret, folder=secret.parent)
    answer = local.ask(text)
    assert answer.status_code >= 400 and "secret\n" not in answer.text, answer.text
    in_url = local.ask(text, body=b"1\tx\n")
    assert in_url.status_code >= 400 and "secret\n" not in in_url.text, in_url.text
    assert secret.read_text() == "1,secret\n"
    assert local.rows("SELECT count() FROM t") == "0"


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_is_written_elsewhere(local: Http, table: str, tmp_path: Path, sql: str) -> None:
    answer = local.ask(sql.format(path=tmp_path / "stolen"))
    assert answer.status_code >= 400, answer.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sql", CALLS)
def test_nobody_is_called(local: Http, table: str, web: list[str], sql: str) -> None:
    host = f"{HOST}:{web[0]}"
    answer = local.ask(sql.format(url=f"http://{host}/", host=host))
    assert answer.status_code >= 400, answer.text
    assert "reached" not in web


def test_what_only_sounds_like_files_works(local: Http) -> None:
    sql = "SELECT file, 'file(' || {disk:String} FROM (SELECT 'INTO OUTFILE' AS file) -- file('x')"
    assert local.rows(sql, param_disk="eval(") == "INTO OUTFILE\tfile(eval("
    engines = "SELECT count() FROM system.tables WHERE engine = 'Kafka' OR database = 'file'"
    assert local.rows(engines) == "0"
    local.rows("CREATE TABLE `file` (engine String, disk String) ENGINE = MergeTree ORDER BY disk")
    got = local.ask("INSERT INTO `file` (engine, disk) FORMAT CSV", body=b"Kafka,eval\n")
    assert got.status_code == 200, got.text
    local.rows("INSERT INTO `file` VALUES ('FROM INFILE', 'file(1)')")
    local.rows("DETACH TABLE `file`")
    local.rows("ATTACH TABLE `file`")
    assert local.rows("SELECT count(), max(engine) FROM file WHERE engine = 'Kafka'") == "1\tKafka"
    local.rows("DROP TABLE `file`")


@pytest.mark.parametrize(
    "engine",
    [
        "MergeTree ORDER BY a",
        "ReplacingMergeTree ORDER BY a",
        "AggregatingMergeTree ORDER BY a",
        "Join(ANY, LEFT, a)",
        "Memory",
        "Log",
        "Null",
    ],
)
def test_tables_of_every_local_engine_may_be_made(local: Http, engine: str) -> None:
    local.rows(f"CREATE TABLE made (a UInt8) ENGINE = {engine}")
    local.rows(
        "CREATE MATERIALIZED VIEW made_mv ENGINE = MergeTree ORDER BY a AS SELECT a FROM made"
    )
    local.rows("INSERT INTO made VALUES (1)")
    assert local.rows("SELECT * FROM made_mv") == "1"
    local.rows("DROP TABLE made_mv")
    local.rows("DROP TABLE made")


@pytest.mark.parametrize(
    ("formatted", "what"),
    [
        ("SELECT file('/x')", "file()"),
        ("INSERT INTO t FROM INFILE '/x' FORMAT CSV", "FROM INFILE"),
        ("INSERT INTO t FROM INFILE '/mine' FORMAT CSV", ""),
        ("CREATE TABLE x (`a` UInt8) ENGINE = Executable('a')", "ENGINE = Executable"),
        ("SELECT engine FROM x WHERE ENGINE = Executable", ""),
        ("CREATE TABLE x (`a` UInt8) ENGINE = ReplicatedMergeTree('a')", ""),
        ("SELECT 'file(1) INTO OUTFILE'", ""),
    ],
)
def test_statements_that_reach_out_are_told_by_their_words(formatted: str, what: str) -> None:
    assert reaches_out(formatted, "/mine") == what


def test_the_engine_may_look_at_its_threads(http: Http) -> None:
    # What it may not open is an exception at each query of each thread: half of a short one's time.
    assert http.rows("SELECT count() FROM numbers(3)") == "3"
    refused = "SELECT name, last_error_message FROM system.errors WHERE last_error_message LIKE "
    assert http.rows(f"{refused} '%/proc/%'") == ""
