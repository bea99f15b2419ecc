"""Bring a database to the present shape: `migrations/NNNN_name.sql`, in order, each once.

ClickHouse has no transactions, so a statement must be harmless when it is repeated: after a crash
in the middle of a file, or by another process that starts at the same moment. A CREATE whose object
exists is done; everything else says IF EXISTS or IF NOT EXISTS.
"""

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from clickhouse.client import Address, connect

TABLE_ALREADY_EXISTS = 57
TABLE_IS_DROPPED = 218
ATTEMPTS = 10
_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"'(?:[^'\\]|\\.|'')*'|`[^`]*`|--[^\n]*|/\*.*?\*/|;|[^'`;/-]+|.", re.DOTALL)
_HEAD = "-- The sum of migrations/: dumped by `python -m clickhouse.migrator URL`, not to be run.\n"
_RECORDS = """
CREATE TABLE IF NOT EXISTS migrations
(
    number     UInt32 COMMENT 'of the file',
    name       String,
    sha256     String COMMENT 'of the file''s text: a migration is frozen once it is applied',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY number
COMMENT 'which migrations this database has; two rows of one number are two processes that met'
"""


class MigrationError(Exception):
    """The database and the migrations of this program don't fit; the text says what to do."""


@dataclass(frozen=True)
class Migration:
    """One file: `number` without gaps, and its text."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """What identifies the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, database: str) -> list[str]:
        """Its statements, comments removed, with `{database}` filled in."""
        statements = [""]
        for token in _TOKEN.findall(self.text):
            if token == ";":
                statements.append("")
            elif not token.startswith(("--", "/*")):
                statements[-1] += token
        lines = ("\n".join(filter(str.strip, text.splitlines())) for text in statements)
        return [text.replace("{database}", database) for text in lines if text]


def read_migrations(folder: Path | None = None) -> list[Migration]:
    """The migrations in order. Raises MigrationError for a gap, a double or a misnamed file."""
    found = []
    for file in (folder or files("clickhouse") / "migrations").iterdir():
        if file.name.endswith(".sql"):
            match = _FILE.fullmatch(file.name)
            if match is None:
                raise MigrationError(f"{file.name} is not named NNNN_name.sql")
            text = file.read_text(encoding="utf-8")
            found.append(Migration(int(match.group(1)), match.group(2), text))
    found.sort(key=lambda migration: (migration.number, migration.name))
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise MigrationError(f"migration {expected:04} is missing, or a number is there twice")
    return found


def migrate(url: str) -> list[Migration]:
    """Apply what the URL's database lacks, and create it where it is missing; what was applied.

    Raises MigrationError when the database is of another history.
    """
    client = connect(url, database="")
    try:
        return apply(client, Address.of(url).database, read_migrations())
    finally:
        client.close()


def apply(client: Client, database: str, migrations: Sequence[Migration]) -> list[Migration]:
    """`migrate` with a client at hand, which is left in the database."""
    if _DATABASE.fullmatch(database) is None:
        raise MigrationError(f"a database can't be called {database!r}: use letters, digits and _")
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}")
    client.database = database
    client.command(_RECORDS)
    missing = _missing(client, migrations)
    for migration in missing:
        for statement in migration.statements(database):
            _repeatable(client, statement)
        client.command(
            "INSERT INTO migrations (number, name, sha256) "
            "SELECT {number:UInt32}, {name:String}, {sha256:String}",
            parameters={
                "number": migration.number,
                "name": migration.name,
                "sha256": migration.sha256,
            },
        )
    return missing


def _missing(client: Client, migrations: Sequence[Migration]) -> list[Migration]:
    rows = client.query("SELECT DISTINCT number, sha256 FROM migrations ORDER BY number")
    applied: list[tuple[int, str]] = [(number, sha256) for number, sha256 in rows.result_rows]
    for place, (number, sha256) in enumerate(applied, start=1):
        if number != place:
            raise MigrationError(f"the database has migration {number:04} but not {place:04}")
        if number > len(migrations):
            raise MigrationError(
                f"the database has migration {number:04}, this program ends at "
                f"{len(migrations):04}: it is too old for the database"
            )
        if migrations[number - 1].sha256 != sha256:
            raise MigrationError(
                f"migration {number:04} was applied with another text: "
                "restore the file, and mend a mistake by the next number"
            )
    return list(migrations[len(applied) :])


def _repeatable(client: Client, statement: str) -> None:
    """Run a statement; again when another process exchanges its table meanwhile.

    A CREATE of what exists is done already.
    """
    for attempt in range(ATTEMPTS):
        try:
            client.command(statement)
            return
        except DatabaseError as error:
            if error.code == TABLE_ALREADY_EXISTS and statement.lstrip().startswith("CREATE"):
                return
            if error.code != TABLE_IS_DROPPED or attempt == ATTEMPTS - 1:
                raise


def dump(client: Client, database: str) -> str:
    """The present shape of a database as the engine tells it: tables, then views, by name."""
    rows = client.query(
        "SELECT formatQuery(create_table_query) FROM system.tables "
        "WHERE database = {database:String} AND NOT startsWith(name, '.inner') "
        "ORDER BY engine IN ('View', 'MaterializedView'), name",
        parameters={"database": database},
    ).result_rows
    return _HEAD + "".join(f"\n{text.replace(f'{database}.', '')};\n" for (text,) in rows)


def main(url: str) -> None:
    """Write `schema.sql` from a migrated database."""
    migrate(url)
    client = connect(url)
    text = dump(client, Address.of(url).database)
    (Path(__file__).parent / "schema.sql").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
