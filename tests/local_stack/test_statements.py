"""Reading SQL just far enough."""

import pytest

from local_stack.statements import data_insert, format_of, with_query_ids, writing


@pytest.mark.parametrize(
    ("sql", "reading", "data"),
    [
        ("INSERT INTO t (a) FORMAT Native", "INSERT INTO t (a) FROM INFILE '/f' FORMAT Native", ""),
        ("insert into t values (1)", "insert into t FROM INFILE '/f' FORMAT Values", " (1)"),
        (
            "INSERT INTO `FORMAT` SETTINGS a = 'VALUES' FORMAT CSV\n1,2\n",
            "INSERT INTO `FORMAT` FROM INFILE '/f' SETTINGS a = 'VALUES' FORMAT CSV",
            "1,2\n",
        ),
        ("/* FORMAT X */ INSERT INTO t -- VALUES\n FORMAT TSV\n\n1", None, "\n1"),
        ("INSERT INTO t SELECT 1 FORMAT JSON", None, None),
        ("INSERT INTO t WITH 1 AS x SELECT x", None, None),
        ("SELECT 'INSERT INTO t FORMAT CSV'", None, None),
        ("", None, None),
    ],
)
def test_the_data_of_an_insert_is_told_from_its_statement(
    sql: str, reading: str | None, data: str | None
) -> None:
    insert = data_insert(sql)
    assert (insert and sql[insert.end :]) == (data if insert else None)
    assert (insert is None) == (data is None)
    if insert and reading:
        assert insert.reading("/f").split() == reading.split()


def test_the_format_is_the_last_one_outside_quotes_and_brackets() -> None:
    assert format_of("SELECT 'FORMAT a', (SELECT 1 FORMAT b) FORMAT c SETTINGS d = 1") == "c"
    assert format_of("SELECT format('{}', 1) -- FORMAT CSV") is None


def test_an_answer_is_written_before_the_format() -> None:
    assert writing("SELECT 1 -- ;\n;", "/f", "JSON") == "SELECT 1\nINTO OUTFILE '/f' FORMAT JSON"
    assert (
        writing("SELECT 1 FORMAT CSV;", "/f", "JSON") == "SELECT 1 \nINTO OUTFILE '/f'\nFORMAT CSV"
    )


def test_query_ids_are_the_clients() -> None:
    seen = with_query_ids("SELECT query_id FROM system.processes AS p -- system.processes")
    assert seen == "SELECT query_id FROM system.live_queries AS p -- system.processes"
    killed = with_query_ids("KILL QUERY WHERE query_id = 'query_id' SYNC")
    assert "log_comment" in killed and killed.endswith("= 'query_id' SYNC")
    assert with_query_ids("SELECT query_id FROM mine") == "SELECT query_id FROM mine"
