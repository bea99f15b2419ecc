"""Readers on the local engine: what they may see, all that they may not, and what it may cost."""

# ruff: noqa: E501  a statement is a line

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest
from typer.testing import CliRunner

from cli.main import app
from clickhouse.client import connect
from clickhouse.migrator import apply, read_migrations
from local_stack import readers
from local_stack.clickhouse import clickhouse_child, clickhouse_url
from local_stack.ports import HOST
from local_stack.readers import Reader, Readers, forbidden
from local_stack.settings import StackSettings
from tests.local_stack.conftest import Http
from tests.local_stack.test_access import CALLS, READS, WRITES
from tests.stack import running, stack_settings

pytestmark = pytest.mark.clickhouse
ROWS = """
INSERT INTO tallylog.events (account, event_name, external_customer_id, timestamp, event_id,
    ingested_at, properties, verdict, detail, grain)
SELECT account, name, 'c_' || account, now64(3), account || toString(number), now64(3),
    '{"v":"' || secret || '"}', verdict, detail, 3600
FROM (SELECT 'acme' AS account, 'mine' AS secret UNION ALL SELECT 'other', 'SECRET') AS a
CROSS JOIN (
    SELECT 'a' AS name, 'counted' AS verdict, '' AS detail UNION ALL
    SELECT '', 'dead_letter', 'empty nothing'
) AS b
CROSS JOIN numbers(3) AS n
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackSettings]:
    """A local engine with events of two accounts."""
    folder = tmp_path_factory.mktemp("readers")
    given = stack_settings(folder)
    with running(clickhouse_child(given), folder / "logs"):
        with connect(clickhouse_url(given)) as client:
            apply(client, "tallylog", read_migrations())
            client.command(ROWS)
        yield given


@pytest.fixture(scope="module")
def operator(settings: StackSettings) -> Iterator[Http]:
    """The operator's connection."""
    each = Http(clickhouse_url(settings))
    yield each
    each.client.close()


@pytest.fixture(scope="module")
def password(settings: StackSettings) -> str:
    """The password of the reader of acme."""
    return Readers(settings.data_dir / "clickhouse").create("acme")


@pytest.fixture(scope="module")
def reader(settings: StackSettings, password: str) -> Iterator[Http]:
    """The reader of acme."""
    each = Http(f"http://reader_acme:{password}@{HOST}:{settings.clickhouse_port}/readers")
    yield each
    each.client.close()


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file outside the engine's folder that anyone may read."""
    path = tmp_path_factory.mktemp("outside") / "canary.csv"
    path.write_text("1,SECRET\n")
    return path


# What a reader sees


def test_a_reader_sees_its_accounts_events_and_dead_letters(reader: Http) -> None:
    own = "SELECT count(), uniqExact(account), any(account) FROM metered_events"
    assert reader.rows(own) == "3\t1\tacme"
    assert reader.rows("SELECT count(), any(reason) FROM readers.dead_letters") == "3\tempty"
    assert (
        reader.rows("SELECT name FROM system.tables ORDER BY 1") == "dead_letters\nmetered_events"
    )


@pytest.mark.parametrize("form", ["JSON", "Parquet", "CSVWithNames", "Native", "Arrow", "Pretty"])
def test_answers_come_in_every_format(reader: Http, form: str) -> None:
    answer = reader.ask(f"SELECT event_id FROM metered_events FORMAT {form}")  # noqa: S608
    assert answer.status_code == 200 and answer.content, answer.text


def test_statements_of_every_day_work(reader: Http) -> None:
    for sql in (
        "WITH x AS (SELECT event_id, properties FROM metered_events) SELECT a.event_id FROM x a JOIN x b USING event_id",
        "SELECT JSONExtractString(properties, 'v') AS v, count() FROM metered_events GROUP BY ALL WITH TOTALS",
        "SELECT toStartOfHour(timestamp), uniq(external_customer_id) FROM metered_events GROUP BY 1 ORDER BY 1",
        "SELECT format('{}-{}', event_id, source), row_number() OVER (ORDER BY timestamp) FROM metered_events",
        "SELECT number, count() FROM numbers(5) AS n LEFT JOIN metered_events AS m ON 1 = 1 GROUP BY 1",
        "SELECT 1 UNION ALL SELECT 2 INTERSECT SELECT 2",
        "DESCRIBE metered_events",
        "EXISTS metered_events",
        "SELECT {n:UInt8} + 1 AS n, event_id FROM {t:Identifier}",
    ):  # fmt: skip
        answer = reader.ask(sql, param_n="1", param_t="metered_events")
        assert answer.status_code == 200, (sql, answer.text)


def test_clickhouses_own_client_works_as_a_reader(settings: StackSettings, password: str) -> None:
    client = clickhouse_connect.get_client(
        host=HOST, port=settings.clickhouse_port, username="reader_acme", password=password,
        database="readers", autogenerate_session_id=False,
    )  # fmt: skip
    with client:
        assert client.query("SELECT count() FROM metered_events").result_rows == [(3,)]


# What it doesn't

ATTACKS = """
SELECT * FROM tallylog.events
SELECT * FROM tallylog.metered_events
SELECT * FROM tallylog.usage_states
SELECT * FROM tallylog.owners
SELECT * FROM `tallylog`.`events`
SELECT * FROM {d:Identifier}.events
SELECT * FROM {d:Identifier}.{t:Identifier}
SELECT 1 WHERE 'SECRET' IN (SELECT properties FROM tallylog.events)
SELECT 1 IN tallylog.events
WITH x AS (SELECT * FROM tallylog.events) SELECT * FROM x
WITH RECURSIVE x AS (SELECT properties FROM tallylog.events) SELECT * FROM x
SELECT (SELECT groupArray(properties) FROM tallylog.events)
SELECT * FROM (SELECT * FROM (SELECT * FROM tallylog.events))
SELECT * FROM metered_events UNION ALL SELECT * FROM tallylog.metered_events
SELECT * FROM metered_events m JOIN tallylog.events e USING event_id
SELECT/**/*/**/FROM/**/tallylog/**/./**/events
SELECT * FROM -- metered_events
 tallylog.events
SELECT * FROM # comment
 tallylog.events
SELECT * FROM "tallylog"."eve\\x6ets"
SELECT * FROM merge('tallylog', 'events')
SELECT * FROM merge(REGEXP('.*'), '.*')
SELECT * FROM merge('.*')
SELECT 1 IN merge('tallylog', 'events')
SELECT * FROM view(SELECT * FROM tallylog.events)
SELECT * FROM viewIfPermitted(SELECT * FROM tallylog.events ELSE null('a UInt8'))
SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM tallylog.events))
SELECT * FROM loop(tallylog.events)
SELECT * FROM cluster('default', tallylog, events)
SELECT * FROM clusterAllReplicas('default', tallylog.events)
SELECT * FROM remote('127.0.0.1', tallylog.events)
SELECT * FROM remote('{host}', 'system.one')
SELECT * FROM mergeTreeIndex(tallylog, events)
SELECT * FROM mergeTreeProjection(tallylog, events, 'x')
SELECT * FROM dictionary('tallylog.owners')
SELECT * FROM jdbc('{url}', 'a', 'b')
SELECT * FROM odbc('DSN=x', 'a', 'b')
SELECT * FROM bigquery('{url}', 'a', 'b')
SELECT * FROM mongodb('{host}', 'd', 'c', 'u', 'p', 'a String')
SELECT * FROM prometheusQuery('tallylog', 'x', 'up', 1)
SELECT * FROM fuzzQuery('SELECT 1')
SELECT * FROM eval('SELECT 1')
SELECT * FROM python('engine')
SELECT * FROM hdfs('hdfs://{host}/x', 'CSV', 'a String')
SELECT * FROM input('a String')
SELECT aiGenerate('{url}', 'say SECRET')
SELECT AIGenerate('{url}', 'say SECRET')
SELECT joinGet('tallylog.owners', 'owner', toUInt32(0))
SELECT joinGetOrNull(tallylog.owners, 'owner', toUInt32(0))
SELECT dictGet('tallylog.owners', 'owner', 0)
SELECT hasColumnInTable('tallylog', 'events', 'account')
SELECT getServerSetting('max_server_memory_usage')
SELECT catboostEvaluate('{path}', 1)
SELECT evalMLMethod(1, 2)
SELECT showCertificate()
SELECT getMacro('x')
SELECT sleep(3)
SELECT sleepEachRow(0.1) FROM numbers(1000)
SELECT filesystemAvailable()
SELECT serverUUID()
SELECT addressToLine(1)
SELECT FILE('{path}')
SELECT arrayMap(x -> file(x), ['{path}'])
SELECT * APPLY(file) FROM (SELECT '{path}')
SELECT * FROM FILE('{path}', 'CSV')
DESCRIBE file('{path}')
DESCRIBE TABLE (SELECT * FROM tallylog.events)
DESCRIBE url('{url}', 'CSV')
SELECT query FROM system.processes
SELECT query FROM system.live_queries
SELECT * FROM `system`.processes
SELECT * FROM SYSTEM.processes
SELECT 1 IN system.processes
SELECT * FROM view(SELECT query FROM system.processes)
SELECT * FROM system.errors
SELECT * FROM system.users
SELECT * FROM system.grants
SELECT * FROM system.query_log
SELECT * FROM system.query_cache
SELECT * FROM system.query_condition_cache
SELECT * FROM system.server_settings
SELECT * FROM system.disks
SELECT * FROM system.parts
SELECT * FROM system.stack_trace
SELECT * FROM system.row_policies
SELECT * FROM system.user_query_log
SELECT * FROM information_schema.tables
SELECT * FROM INFORMATION_SCHEMA.COLUMNS
EXPLAIN SELECT * FROM tallylog.events
EXPLAIN AST SELECT 1
EXPLAIN ESTIMATE SELECT * FROM tallylog.events
EXPLAIN QUERY TREE SELECT (SELECT groupArray(query) FROM system.processes)
EXPLAIN TABLE OVERRIDE mysql('{host}', 'd', 't', 'u', 'p') PARTITION BY a
SHOW CREATE TABLE readers.metered_events
SHOW CREATE USER default
SHOW GRANTS
SHOW PROCESSLIST
SHOW ACCESS
SHOW SETTINGS LIKE '%'
SHOW FUNCTIONS
SHOW CREATE VIEW tallylog.metered_events
CHECK TABLE tallylog.events
SET ROLE operator
SET ROLE DEFAULT
SET ROLE ALL
SET log_comment = 'x other'
SET readonly = 0
SELECT * FROM metered_events SETTINGS log_comment = 'x other'
SELECT * FROM metered_events SETTINGS readonly = 0
SELECT 1 SETTINGS max_execution_time = 0
SELECT * FROM (SELECT * FROM metered_events SETTINGS log_comment = 'x other')
SELECT 1 SETTINGS max_threads = 64, max_memory_usage = 0
EXECUTE AS default SELECT 1
EXECUTE AS default
USE tallylog
KILL QUERY WHERE 1
KILL QUERY WHERE 1 SYNC
KILL MUTATION WHERE 1
SYSTEM SHUTDOWN
SYSTEM FLUSH LOGS
SYSTEM DROP MARK CACHE
SYSTEM STOP MERGES
SYSTEM RELOAD CONFIG
BEGIN TRANSACTION
ATTACH TABLE tallylog.x (a UInt8) ENGINE = Memory
ATTACH DATABASE x ENGINE = Atomic
DETACH TABLE tallylog.events
DROP TABLE readers.metered_events
DROP DATABASE readers
TRUNCATE TABLE tallylog.events
RENAME TABLE readers.metered_events TO readers.x
EXCHANGE TABLES readers.metered_events AND readers.dead_letters
OPTIMIZE TABLE tallylog.events FINAL
ALTER TABLE tallylog.events DELETE WHERE 1
DELETE FROM tallylog.events WHERE 1
UPDATE tallylog.events SET account = 'acme' WHERE 1
CREATE TABLE readers.x (a UInt8) ENGINE = Memory
CREATE TEMPORARY TABLE x (a UInt8)
CREATE VIEW readers.x AS SELECT * FROM tallylog.events
CREATE VIEW readers.x DEFINER = default SQL SECURITY DEFINER AS SELECT * FROM tallylog.events
CREATE OR REPLACE VIEW readers.metered_events SQL SECURITY NONE AS SELECT * FROM tallylog.events
CREATE MATERIALIZED VIEW readers.x ENGINE = Memory AS SELECT * FROM tallylog.events
CREATE FUNCTION f AS () -> (SELECT groupArray(properties) FROM tallylog.events)
CREATE USER x
CREATE ROW POLICY x ON tallylog.events USING 1 TO ALL
GRANT operator TO default
CREATE NAMED COLLECTION x AS url = '{url}'
CREATE WORKLOAD x
INSERT INTO tallylog.events (account) VALUES ('other')
INSERT INTO tallylog.events (account) FORMAT CSV
INSERT INTO FUNCTION null('a UInt8') SELECT 1
INSERT INTO FUNCTION url('{url}', 'CSV', 'a UInt8') SELECT 1
SELECT 1 INTO OUTFILE '{path}'
SELECT 1 INTO OUTFILE '{path}' APPEND
SELECT 1 FORMAT Template SETTINGS format_template_row = '{path}'
SHOW TABLES FROM tallylog
SHOW DATABASES
SHOW MERGES
SHOW CLUSTERS
SELECT 1; SELECT 2
SELECT 1; SET ROLE operator
SELECT 1 PARALLEL WITH SELECT 2
BACKUP TABLE tallylog.events TO File('{path}')
RESTORE TABLE tallylog.events FROM File('{path}')
COPY tallylog.events TO '{path}'
FROM tallylog.events
VALUES (1)
""".strip()  # fmt: skip
HOSTILE = [each for each in ATTACKS.replace("\n tallylog", "\0 tallylog").splitlines()]


def refused(answer: httpx.Response, what: object) -> None:
    assert answer.status_code >= 400, (what, answer.text[:500])
    assert "SECRET" not in answer.text and "c_other" not in answer.text, (what, answer.text)


@pytest.mark.parametrize("sql", [each.replace("\0", "\n") for each in HOSTILE])
def test_a_hostile_statement_is_refused(
    reader: Http, web: list[str], canary: Path, sql: str
) -> None:
    host = f"{HOST}:{web[0]}"
    for name, value in {"{path}": str(canary), "{url}": f"http://{host}/", "{host}": host}.items():
        sql = sql.replace(name, value)
    params: dict[str, Any] = {"param_d": "tallylog", "param_t": "events"}
    refused(reader.ask(sql, **params), sql)
    refused(reader.client.get("/", params={"query": sql, **params}), sql)
    assert "reached" not in web and canary.read_text() == "1,SECRET\n"


@pytest.mark.parametrize("sql", [*READS, *WRITES, *CALLS])
def test_what_the_operator_may_not_a_reader_may_not(
    reader: Http, web: list[str], canary: Path, sql: str
) -> None:
    host = f"{HOST}:{web[0]}"
    values = {"path": canary, "folder": canary.parent, "url": f"http://{host}/", "host": host}
    refused(reader.ask(sql.format(**values)), sql)
    assert "reached" not in web and canary.read_text() == "1,SECRET\n"


PEEKS = [
    "SELECT throwIf(properties LIKE '%SECRET%', 'found') FROM metered_events",
    "SELECT count() FROM metered_events WHERE throwIf(account = 'other', 'found') = 0",
    "SELECT count() FROM metered_events WHERE intDiv(1, account != 'other') = 1",
    "SELECT count() FROM metered_events WHERE account = 'other' OR 1 = 1",
    "SELECT count() FROM metered_events WHERE if(account = 'other', toUInt8(properties), 1) = 1",
    "SELECT max(properties) FROM metered_events",
    "SELECT * FROM metered_events ORDER BY intDiv(1, account != 'other') LIMIT 100",
    "SELECT uniqExact(account), groupArray(properties) FROM metered_events GROUP BY ALL",
    "SELECT arrayMap(x -> toUInt8(x = 'other'), groupArray(account)) FROM metered_events",
    "SELECT bytes FROM dead_letters WHERE throwIf(account = 'other', 'found') = 0",
    "SELECT currentRoles(), currentUser(), getSetting('log_comment')",
    "SELECT name, value FROM system.settings WHERE changed",
    "SELECT name, create_table_query FROM system.tables",
    "SELECT database, table, name FROM system.columns WHERE database = 'tallylog'",
    "SELECT name FROM system.databases",
    "SELECT name, create_query FROM system.functions WHERE origin != 'System'",
]


@pytest.mark.parametrize("sql", PEEKS)
def test_no_condition_and_no_error_tells_of_another_account(reader: Http, sql: str) -> None:
    answer = reader.ask(sql)
    assert answer.status_code == 200, answer.text
    assert "SECRET" not in answer.text and "other" not in answer.text, answer.text


def test_settings_sessions_forms_tables_and_encodings_are_refused(reader: Http) -> None:
    given: dict[str, Any] = {
        "log_comment": "x other", "readonly_": "0", "max_threads": "8", "max_execution_time": "0",
        "session_id": "x", "additional_table_filters": "{}", "SQL_x": "1", "decompress": "1",
        "insert_deduplication_token": "x", "x_structure": "a UInt8", "http_write_exception_in_output_format": "1",
    }  # fmt: skip
    for name in given:
        refused(reader.ask("SELECT 1", **{name: given[name]}), name)
    refused(reader.ask("SELECT 1", body=b"x", headers={"Content-Encoding": "gzip"}), "gzip")
    files = {"x": ("x", b"1\n")}
    url = "/?query=SELECT+1&x_structure=a+UInt8"
    refused(reader.client.post(url, files=files), "form")
    refused(reader.client.post("/?query=SELECT+1", files=files), "form")
    for header in ("X-ClickHouse-Database", "X-ClickHouse-User"):
        answer = reader.ask("SELECT * FROM events", headers={header: "tallylog"})
        refused(answer, header)
    refused(reader.ask("SELECT * FROM events", database="tallylog"), "database")
    assert reader.ask(f"SELECT 1 -- {'x' * 70_000}").status_code == 400
    assert reader.rows("SELECT currentDatabase()") == "readers"


def test_passwords_are_asked_for_changed_and_taken_back(settings: StackSettings) -> None:
    known = Readers(settings.data_dir / "clickhouse")
    first = known.create("changing")
    with httpx.Client(
        base_url=f"http://{HOST}:{settings.clickhouse_port}", trust_env=False
    ) as http:

        def status(password: str, user: str = "reader_changing") -> int:
            params = {"query": "SELECT 1", "user": user, "password": password}
            return http.get("/", params=params).status_code

        assert status(first) == 200
        second = known.create("changing")
        assert (status(first), status(second)) == (403, 200)
        for user in (
            "reader_",
            "reader_nobody",
            "reader_../../lock",
            "READER_changing",
            "changing",
        ):
            assert status(second, user) == 403
        assert status("") == 403
        assert known.remove("changing") and not known.remove("changing")
        assert status(second) == 403
    for account in ("", "a/b", "..", "a" * 65, "a b"):
        with pytest.raises(ValueError, match="is no account"):
            known.create(account)


def test_the_command_gives_a_password_and_takes_it_back(tmp_path: Path) -> None:
    runner, place = CliRunner(), ["--data-dir", str(tmp_path)]
    made = runner.invoke(app, ["reader", "acme", *place])
    user, given = (line.split()[1] for line in made.stdout.splitlines())
    assert "TALLYLOG_CLICKHOUSE_PASSWORD" in made.stderr
    assert (made.exit_code, user) == (0, "reader_acme")
    known = Readers(tmp_path / "clickhouse")
    assert known.find(user, given.encode()) == Reader("acme")
    assert runner.invoke(app, ["reader", "acme", "--remove", *place]).exit_code == 0
    assert known.find(user, given.encode()) is None
    assert runner.invoke(app, ["reader", "acme", "--remove", *place]).exit_code == 1
    assert runner.invoke(app, ["reader", "a/b", *place]).exit_code == 1


# What it may cost

HEAVY = {
    "for_ever": ("SELECT sum(arraySort(x -> cityHash64(x), range(100 + number % 10))[1]) FROM numbers(1e9)", {159}),
    "all_numbers": ("SELECT count() FROM numbers(1e18)", {158, 159}),
    "a_cross_join": ("SELECT count() FROM numbers(1e9) a, numbers(1e9) b WHERE a.number = b.number + 1", {159, 241, 158}),
    "a_large_sort": ("SELECT number, rand64() AS r FROM numbers(1e9) ORDER BY r", {159, 241, 158}),
    "many_groups": ("SELECT rand64() AS r, count() FROM numbers(1e9) GROUP BY r", {159, 241, 158}),
    "a_large_array": ("SELECT length(range(1000000000))", {69, 241, 128}),
    "a_large_text": ("SELECT length(repeat('x', 1000000000))", {131, 241}),
    "many_rows": ("SELECT number FROM numbers(1e9)", {396}),
    "much_memory": ("SELECT groupArray(number) FROM numbers(1e9)", {241, 128}),
    "regexes": (r"SELECT count() FROM numbers(1e12) WHERE match(toString(number), '(a+)+(1+)+$')", {159, 158}),
}  # fmt: skip


def code_of(http: httpx.Client, sql: str) -> int:
    """The code that a statement ends with, also when that is in the middle of its answer."""
    with http.stream("POST", "/", content=sql) as answer:
        code, end = answer.headers.get("X-ClickHouse-Exception-Code"), b""
        with contextlib.suppress(httpx.RemoteProtocolError):
            for piece in answer.iter_bytes():
                end = (end + piece)[-4096:]
    return int(code or end.rpartition(b"Code: ")[2].partition(b".")[0])


def test_limits_of_time_memory_rows_and_places_bite(reader: Http, operator: Http) -> None:
    """All at once: so the limits of places bite as well, and the operator goes on meanwhile."""
    started = time.monotonic()
    wide = httpx.Limits(max_connections=None)
    with (
        httpx.Client(
            base_url=reader.base, auth=reader.client.auth, trust_env=False, timeout=120, limits=wide
        ) as http,
        ThreadPoolExecutor(len(HEAVY)) as pool,
    ):
        asked = {name: pool.submit(code_of, http, sql) for name, (sql, _) in HEAVY.items()}
        waits = []
        for _ in range(30):
            before = time.monotonic()
            assert operator.rows("SELECT count() FROM events") == "12"
            waits.append(time.monotonic() - before)
            time.sleep(0.05)
        seen = {name: each.result() for name, each in asked.items()}
    refused_places = [name for name, code in seen.items() if code == 202]
    assert len(refused_places) >= len(HEAVY) - readers.OF_ONE_MAX - 2
    for name, code in seen.items():
        assert code in HEAVY[name][1] | {202}, (name, code)
    assert time.monotonic() - started < 4 * readers.TIME_S
    assert sorted(waits)[len(waits) // 2] < 1.0


@pytest.mark.parametrize("name", ["a_large_array", "a_large_text", "many_rows", "much_memory"])
def test_a_heavy_statement_ends_at_its_limit(reader: Http, name: str) -> None:
    sql, codes = HEAVY[name]
    assert code_of(reader.client, sql) in codes


def test_a_query_ends_when_its_reader_goes_away(reader: Http, operator: Http) -> None:
    with pytest.raises(httpx.ReadTimeout):
        reader.client.post("/", content=HEAVY["for_ever"][0], timeout=1)
    running = (
        "SELECT count() FROM system.processes WHERE endsWith(Settings['log_comment'], ' acme')"
    )
    deadline = time.monotonic() + 10
    while operator.rows(running) != "0":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_is_forbidden_is_told_by_the_tree() -> None:
    functions = frozenset({"merge", "format", "numbers"})
    head = "SelectWithUnionQuery (children 1)\n"
    assert forbidden(head + " TableExpression (children 1)\n  Function numbers\n", functions) == ""
    assert forbidden(head + " Function format (children 1)\n", functions) == ""
    told = forbidden(head + " TableExpression (children 1)\n  Function format\n", functions)
    assert told == "format()"
    assert forbidden(head + " Function Merge (children 1)\n", functions) == "Merge()"
    assert forbidden(head + "  TableIdentifier system.one\n", functions) == ""
    assert forbidden(head + "  Identifier system.processes\n", functions) == "system.processes"
    assert forbidden("Set\n", functions) == "a statement other than SELECT (Set)"
    assert forbidden("", functions) == "a statement other than SELECT (none)"
