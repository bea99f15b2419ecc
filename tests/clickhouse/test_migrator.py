"""The migrator on a real engine."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from clickhouse.migrator import Migration, MigrationError, apply, dump, read_migrations

pytestmark = pytest.mark.clickhouse


def tables(client: Client, database: str) -> list[str]:
    query = "SELECT name FROM system.tables WHERE database = {database:String} ORDER BY name"
    return [name for (name,) in client.query(query, {"database": database}).result_rows]


def test_an_empty_database_gets_every_migration_once(engine: Client, empty_database: str) -> None:
    migrations = read_migrations()
    assert apply(engine, empty_database, migrations) == migrations
    assert apply(engine, empty_database, migrations) == []
    assert engine.query("SELECT number FROM migrations ORDER BY number").result_rows == [
        (migration.number,) for migration in migrations
    ]


def test_schema_sql_is_the_sum_of_the_migrations(engine: Client, database: str) -> None:
    assert (files("clickhouse") / "schema.sql").read_text() == dump(engine, database)


def test_a_crash_after_any_statement_is_healed_by_the_next_start(
    engine: Client, empty_database: str
) -> None:
    migrations = read_migrations()
    apply(engine, empty_database, [])
    for migration in migrations:
        for statement in migration.statements(empty_database):
            engine.command(statement)
    whole = tables(engine, empty_database)
    assert apply(engine, empty_database, migrations) == migrations
    assert tables(engine, empty_database) == whole


def test_two_processes_may_start_at_once(engine: Client, empty_database: str) -> None:
    migrations = read_migrations()
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda _: apply(engine, empty_database, migrations), range(4)))
    assert apply(engine, empty_database, migrations) == []


def test_states_of_earlier_owners_keep_their_rows_when_their_granules_change(
    engine: Client, empty_database: str
) -> None:
    migrations = read_migrations()
    apply(engine, empty_database, migrations[:4])
    rows = "SELECT feature_id, owner, sum(event_count), max(upto) FROM usage_states GROUP BY ALL"
    stored = (
        "INSERT INTO events (verdict, feature_id, block_offset, grain, owner) VALUES"
        " ('counted', 'feat_a', 7, 3600, 1), ('marker', '', 7, 3600, 1)"
    )
    engine.command(stored)
    engine.command("INSERT INTO owners VALUES (0, 2)")
    before = sorted(engine.query(rows).result_rows)
    assert before == [("", 1, 0, 7), ("feat_a", 1, 1, 7)]
    apply(engine, empty_database, migrations)
    assert sorted(engine.query(rows).result_rows) == before
    with pytest.raises(DatabaseError, match="owner_is_current"):
        engine.command(stored)
    engine.command(stored.replace("3600, 1", "3600, 2"))
    assert len(engine.query(rows).result_rows) == 4


def test_events_keep_their_texts_when_these_become_plain(
    engine: Client, empty_database: str
) -> None:
    migrations = read_migrations()
    apply(engine, empty_database, migrations[:8])
    engine.command("INSERT INTO owners VALUES (0, 1)")
    stored = (
        "INSERT INTO events (event_id, source, verdict, warnings, feature_id, aggregation,"
        " log_topic, block_offset, grain, owner) VALUES"
        " ('{0}', 'api', 'counted', 'unknown_customer', 'feat_a', 'SUM', 'events.a', {0}, 3600, 1)"
    )
    engine.command(stored.format(1))
    apply(engine, empty_database, migrations)
    engine.command(stored.format(2))
    rows = (
        "SELECT source, verdict, warnings, feature_id, aggregation, log_topic, count()"
        " FROM events GROUP BY ALL"
    )
    expected = [("api", "counted", "unknown_customer", "feat_a", "SUM", "events.a", 2)]
    assert engine.query(rows).result_rows == expected
    rewriting = "SELECT count() FROM system.mutations WHERE database = {database:String}"
    while engine.query(f"{rewriting} AND NOT is_done", {"database": empty_database}).result_rows[0][
        0
    ]:
        time.sleep(0.05)
    engine.command("OPTIMIZE TABLE events FINAL", settings={"optimize_throw_if_noop": 1})
    assert engine.query(rows).result_rows == expected
    shown = "SELECT feature_id, warnings, count() FROM metered_events GROUP BY ALL"
    assert engine.query(shown).result_rows == [("feat_a", ["unknown_customer"], 2)]
    types = "SELECT DISTINCT type FROM system.columns WHERE database = {database:String}"
    for table, kept in (("events", "account"), ("metered_events", "event_name")):
        of_texts = types + f" AND table = '{table}' AND name IN ('source', 'verdict', '{kept}')"
        found = engine.query(of_texts, {"database": empty_database}).result_rows
        assert sorted(found) == [("LowCardinality(String)",), ("String",)]
    states = "SELECT feature_id, sum(event_count) FROM usage_states GROUP BY ALL"
    assert engine.query(states).result_rows == [("feat_a", 2)]


def test_a_changed_file_is_refused(engine: Client, empty_database: str) -> None:
    apply(engine, empty_database, [Migration(1, "a", "CREATE TABLE a (x Int8) ENGINE = Memory")])
    with pytest.raises(MigrationError, match="0001 was applied with another text"):
        apply(engine, empty_database, [Migration(1, "a", "SELECT 1")])
    assert tables(engine, empty_database) == ["a", "migrations"]


def test_an_older_program_is_refused(engine: Client, database: str) -> None:
    with pytest.raises(MigrationError, match="too old for the database"):
        apply(engine, database, read_migrations()[:-1])


def test_a_gap_in_the_database_is_refused(engine: Client, database: str) -> None:
    engine.command("DELETE FROM migrations WHERE number = 2")
    with pytest.raises(MigrationError, match="0003 but not 0002"):
        apply(engine, database, read_migrations())


@pytest.mark.parametrize("names", [["0001_a", "0003_b"], ["0001_a", "0001_b"], ["1_a"]])
def test_gaps_doubles_and_wrong_names_among_the_files_are_refused(
    tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        (tmp_path / f"{name}.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError):
        read_migrations(tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "a;DROP", "1a", "a-b"])
def test_a_database_name_that_needs_quotes_is_refused(engine: Client, name: str) -> None:
    with pytest.raises(MigrationError):
        apply(engine, name, [])


def test_a_failing_statement_is_not_recorded(engine: Client, empty_database: str) -> None:
    good, bad = "CREATE TABLE a (x Int8) ENGINE = Memory", "ALTER TABLE absent DROP COLUMN x"
    with pytest.raises(Exception, match="UNKNOWN_TABLE"):
        apply(engine, empty_database, [Migration(1, "a", f"{good};{bad}")])
    mended = Migration(1, "a", good)
    assert apply(engine, empty_database, [mended]) == [mended]


def test_statements_are_cut_outside_of_texts_and_comments() -> None:
    text = (
        "-- a; b\nSELECT ';', '\\';', ''';' /* ; */, `;` - 1 / 2;\n-- end;\nSELECT '{database}.x'"
    )
    assert Migration(1, "a", text).statements("db") == [
        "SELECT ';', '\\';', ''';' , `;` - 1 / 2",
        "SELECT 'db.x'",
    ]


def test_every_migration_says_why_and_how_to_undo_it() -> None:
    for migration in read_migrations():
        assert migration.text.startswith(f"-- {migration.number:04}_{migration.name}: ")
        for word in ("Why", "Reads", "Undo"):
            assert re.search(rf"^-- {word} ", migration.text, re.MULTILINE), migration.name
