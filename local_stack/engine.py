"""The ClickHouse engine in this process (chDB): its folder, its configuration, running a query.

Facts measured on chDB 4.4 (engine 26.9), which this module rests on:

- A connection costs 70 µs, and what SET does ends with it, so each query gets one of its own.
- `send_insert` swallows what goes wrong behind the parser: a violated CONSTRAINT, a view that
  fails and a KILL all look like success, with the rows counted as written. `INSERT … FROM INFILE
  '/proc/self/fd/N'` reports them, costs no more, and needs no grant on files.
- `FROM INFILE` makes one block, hence one part, of an INSERT up to `min_insert_block_size_rows`
  (1,048,449) and `min_insert_block_size_bytes` (256 MiB); both can be set per query. Tokens,
  CHECK and dependent views are honoured.
- `send_query` writes each 65,409 rows as a document of their own: only formats without head or
  tail may be streamed with it (STREAMABLE). Others go through a file, with INTO OUTFILE.
- The engine draws query ids itself. The client's is kept in `log_comment`, which
  `system.processes` shows.
"""

import contextlib
import faulthandler
import fcntl
import os
import re
import secrets
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from local_stack import readers
from local_stack.disk import DiskWatch, room_on
from local_stack.errors import FolderTaken
from local_stack.exceptions import EngineError, engine_error
from local_stack.forms import ExternalTable
from local_stack.readers import Reader, Readers, forbidden
from local_stack.sandbox import confine, reaches_out, suspicious
from local_stack.statements import DataInsert, quoted, selects, writing

DATABASE = "tallylog"  # the embedded engine's own "default" shows files as tables
STREAMABLE = frozenset(
    "Native RowBinary TabSeparated TSV TabSeparatedRaw TSVRaw Raw CSV TSKV LineAsString RawBLOB "
    "JSONEachRow JSONLines JSONL NDJSON JSONStringsEachRow JSONCompactEachRow "
    "JSONCompactStringsEachRow MsgPack Protobuf BSONEachRow Null".split()
)
SETTING_NAME = re.compile(r"[A-Za-z_]\w*")
LIBRARY_ERRORS = (RuntimeError, MemoryError, ValueError, IndexError, OverflowError)  # pybind11's
COPY_BYTES = 1024 * 1024
FORMATTED = "SELECT formatQuerySingleLine({sql:String})"
TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})
LIVE_QUERIES = """
CREATE OR REPLACE VIEW system.live_queries AS SELECT * REPLACE (
    if(Settings['log_comment'] != '', Settings['log_comment'], query_id) AS query_id,
    if(Settings['log_comment'] != '', Settings['log_comment'], initial_query_id) AS initial_query_id
) FROM system.processes
"""


READER_MEMORY = 150_000
"""Bytes of a reader's query, per MB of the engine's."""
MERGES = "MergeMutate"
MERGES_NICE = 19
GIVE_WAY_EVERY_S = 2.0
"""On a machine with few cores merges make whoever asks wait: half of the slowest answers."""


@dataclass(frozen=True)
class Query:
    """One query as a request asks for it.

    sql       The statement, without the data of an INSERT.
    format    The answer's format where the statement names none.
    params    Values of `{name:Type}`, escaped as in TSV.
    settings  Settings of this query alone.
    query_id  The client's, or one drawn for it.
    tables    Tables that exist for this query alone.
    insert    The INSERT whose data lies in `data`, if it is one.
    data      A file descriptor of this process.
    reader    Whose rights and limits it has; None: the operator's.
    """

    sql: str
    format: str = "TabSeparated"
    params: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    query_id: str = ""
    tables: Sequence[ExternalTable] = ()
    insert: DataInsert | None = None
    data: int = -1
    reader: Reader | None = None


@dataclass(frozen=True)
class Summary:
    """What a query did, as `X-ClickHouse-Summary` tells it."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    elapsed_ns: int = 0


class Engine:
    """The engine on one folder. Only one may be open in a process, and one process on a folder.

    The process is confined to the folder from then on (see sandbox.py). Raises FolderTaken if
    another process works on it.
    """

    def __init__(self, folder: Path, memory_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(folder)
        self._closing = threading.Event()
        # Begun before the others are confined: they may not look at threads in /proc.
        threading.Thread(target=self._let_merges_give_way, daemon=True).start()
        confine(folder)
        from chdb import (
            _chdb as chdb,
        )  # takes 0.1 s and starts an engine: only in the process that is one

        die_at_once(chdb)
        self._connect = chdb.connect  # type: ignore[attr-defined]
        self._changes = chdb.query_class.MUTATING  # type: ignore[attr-defined]
        self._reads = chdb.query_class.READ_ONLY  # type: ignore[attr-defined]
        self._answers = folder / "answers"
        shutil.rmtree(self._answers, ignore_errors=True)  # of a process that was killed
        self._answers.mkdir()
        config = write_config(folder, memory_mb)
        self._path = str(folder / "data")
        self._first = self._connect(f"{self._path}?config-file={config}")
        self._classify = threading.Lock()
        self.readers = Readers(folder)
        self._reader_settings = dict(readers.SETTINGS) | {
            "max_memory_usage": str(memory_mb * READER_MEMORY)
        }
        self._views_made = False
        for sql in (f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic", LIVE_QUERIES):
            self._first.query(sql, "TSV")
        about = "SELECT version(), timezone(), displayName()"
        values = self._first.query(about, "TSV").bytes().decode().rstrip("\n").split("\t")
        self.version, self.timezone, self.display_name = values
        sql = "SELECT name, content_type FROM system.formats WHERE is_output"
        rows = self._first.query(sql, "TSV").bytes().decode().splitlines()
        self.content_types: dict[str, str] = dict(row.split("\t") for row in rows)
        sql = "SELECT lower(name) FROM system.table_functions"
        self._table_functions = frozenset(self._first.query(sql, "TSV").bytes().decode().split())
        watch = DiskWatch(partial(room_on, folder), self._merge)
        threading.Thread(target=watch.run, args=[self._closing], daemon=True).start()

    def _let_merges_give_way(self) -> None:
        """The engine makes their threads when it first merges."""
        while not self._closing.wait(GIVE_WAY_EVERY_S):
            give_way(MERGES, MERGES_NICE)

    def _merge(self, wanted: bool) -> bool:
        """Let merges run, or stop them; False when the engine would not hear of it."""
        try:
            with connected(self) as connection:
                self.ask(connection, f"SYSTEM {'START' if wanted else 'STOP'} MERGES")
        except EngineError:
            return False
        return True

    def close(self) -> None:
        """Stop what runs, write down what is in memory, and free the folder."""
        self._closing.set()
        with contextlib.suppress(RuntimeError):
            self._first.query("KILL QUERY WHERE 1 ASYNC", "Null")
        self._first.close()
        os.close(self._lock)

    @contextlib.contextmanager
    def coded(self) -> Iterator[None]:
        """Give what the library raises ClickHouse's code, as EngineError."""
        try:
            yield
        except LIBRARY_ERRORS as error:
            raise EngineError.of(error, self.version) from None

    def connect(self) -> Any:
        """A connection of its own: settings and temporary tables last as long as it does.

        Raises EngineError: it costs a MiB, which there may not be.
        """
        with self.coded():
            return self._connect(self._path)

    def connect_reader(self, reader: Reader, query: Query) -> Any:
        """A connection with a reader's rights and limits, for a statement that it may ask.

        Raises EngineError: for a statement that it may not.
        """
        connection = self.connect()
        try:
            with self.coded():
                self._make_views()
                comment = comment_of(query.query_id, reader)
                settings = self._reader_settings | {"log_comment": comment}
                connection.query(set_statement(settings), "Null")
                connection.query("SET ROLE reader", "Null")
                about = connection.classify_query(query.sql)
                if about["statement_count"] != 1 or about["query_class"] != self._reads:
                    raise not_for_readers("all but one SELECT")
                tree = connection.query(f"EXPLAIN AST\n{query.sql}", "TSVRaw", params=query.params)
                what = forbidden(tree.bytes().decode(errors="replace"), self._table_functions)
                if what:
                    raise not_for_readers(what)
        except BaseException:
            connection.close()
            raise
        return connection

    def end_of_reader(self, query: Query) -> None:
        """End a reader's query, if it runs."""
        if query.reader is None:
            return
        comment = quoted(comment_of(query.query_id, query.reader))
        with contextlib.suppress(EngineError), connected(self) as connection:
            self.ask(connection, f"KILL QUERY WHERE Settings['log_comment'] = {comment} ASYNC")

    def _make_views(self) -> None:
        """Make the views of readers anew, once a process, when there are tables."""
        with self._classify:
            if self._views_made:
                return
            self._first.query(f"CREATE DATABASE IF NOT EXISTS {readers.DATABASE}", "Null")
            for view in readers.VIEWS:
                head = f"CREATE OR REPLACE VIEW {readers.DATABASE}.{view} DEFINER = rows_of_readers"
                sql = f"{head} SQL SECURITY DEFINER AS SELECT * FROM {DATABASE}.{view}"  # noqa: S608 ours
                self._first.query(sql, "Null")
            self._views_made = True

    def ask(self, connection: Any, sql: str, format_name: str = "Null") -> bytes:
        """The whole answer to a statement of our own. Raises EngineError."""
        with self.coded():
            answer: bytes = connection.query(sql, format_name).bytes()
        return answer

    def kind(self, sql: str) -> tuple[int, bool]:
        """How many statements a text holds, and whether they change data or tables.

        Raises EngineError.
        """
        with self.coded(), self._classify:
            about = self._first.classify_query(sql)
        return about["statement_count"], about["query_class"] == self._changes

    def refusal(self, sql: str, infile: str = "") -> str:
        """What a statement would reach outside the folder; empty if nothing. `infile` it may read.

        Raises EngineError if it can't be parsed.
        """
        if not suspicious(sql):
            return ""
        escaped = sql.translate(TSV_ESCAPES)
        with self.coded(), self._classify:
            formatted = self._first.query(FORMATTED, "RawBLOB", params={"sql": escaped})
        return reaches_out(formatted.bytes().decode(), infile)

    def run(self, connection: Any, query: Query, write: Callable[[bytes], None]) -> Summary:
        """Run one query on a connection of this thread, handing the answer to `write` in pieces.

        What `write` raises ends the query. Raises EngineError.
        """
        with self.coded(), self._tables(connection, query.tables):
            if query.settings and query.reader is None:
                connection.query(set_statement(query.settings), "Null")
            if query.insert is not None:
                sql = query.insert.reading(descriptor_path(query.data))
                return self._at_once(connection, sql, query, write)
            if not selects(query.sql):
                return self._at_once(connection, query.sql, query, write)
            if query.format in STREAMABLE:
                return self._in_pieces(connection, query, write)
            return self._through_a_file(connection, query, write)

    @contextlib.contextmanager
    def _tables(self, connection: Any, tables: Sequence[ExternalTable]) -> Iterator[None]:
        """Make and fill external tables; they go with the query, or with its connection."""
        try:
            for table in tables:
                connection.query(table.create, "Null")
                sql = table.fill(descriptor_path(table.data.fileno()))
                connection.query(sql, "Null")
            yield
        finally:
            for table in tables:
                with contextlib.suppress(RuntimeError):
                    connection.query(table.drop, "Null")

    def _at_once(
        self, connection: Any, sql: str, query: Query, write: Callable[[bytes], None]
    ) -> Summary:
        result = connection.query(sql, query.format, params=query.params)
        if result.size():
            write(result.bytes())
        return summary_of(result)

    def _in_pieces(self, connection: Any, query: Query, write: Callable[[bytes], None]) -> Summary:
        stream = connection.send_query(query.sql, query.format, params=query.params)
        rows = size = 0
        try:
            while True:
                piece = connection.streaming_fetch_result(stream)
                if piece.size():
                    write(piece.bytes())
                elif not piece.rows_read():
                    return Summary(rows, size, elapsed_ns=int(piece.elapsed() * 1e9))
                rows = max(rows, piece.storage_rows_read())
                size = max(size, piece.storage_bytes_read())
        finally:
            with contextlib.suppress(RuntimeError):
                connection.streaming_cancel_query(stream)

    def _through_a_file(
        self, connection: Any, query: Query, write: Callable[[bytes], None]
    ) -> Summary:
        path = self._answers / str(uuid.uuid4())
        try:
            sql = writing(query.sql, str(path), query.format)
            result = connection.query(sql, query.format, params=query.params)
            with path.open("rb") as file:
                path.unlink()
                while piece := file.read(COPY_BYTES):
                    write(piece)
        finally:
            path.unlink(missing_ok=True)
        return summary_of(result)


def comment_of(query_id: str, reader: Reader) -> str:
    """The `log_comment` of a reader's query: its end says to the row policy whose rows to show."""
    return f"{query_id} {reader.account}"


def not_for_readers(what: str) -> EngineError:
    """A refusal of what a reader may not ask for."""
    return engine_error(497, f"Not enough privileges: {what} is not for readers", "ACCESS_DENIED")


def give_way(threads: str, nice: int) -> None:
    """Let this process's threads of a name yield to its others, where the system tells of them."""
    for task in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            if (task / "comm").read_text().strip() == threads:
                os.setpriority(os.PRIO_PROCESS, int(task.name), nice)


def die_at_once(chdb: Any) -> None:
    """Let a crash of the library end the process, and say on stderr where it was called.

    The library's own handlers hold the thread that crashed for 303 s, waiting for a log that only
    a server writes: meanwhile nothing answers, and nobody starts the engine again.
    """
    chdb.set_signal_handlers_enabled(False)
    faulthandler.disable()  # or enable() does nothing: the library's import has taken the signals
    faulthandler.enable()


def summary_of(result: Any) -> Summary:
    """What a finished query did."""
    return Summary(
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        elapsed_ns=int(result.elapsed() * 1e9),
    )


def set_statement(settings: dict[str, str]) -> str:
    """A SET of settings whose values come as text; `readonly` last, as it forbids the others."""
    pairs = sorted(settings.items(), key=lambda pair: pair[0] == "readonly")
    for name, _ in pairs:
        if not SETTING_NAME.fullmatch(name):
            raise RuntimeError(
                f"Code: 115. DB::Exception: Setting {name!r} is neither a builtin setting nor "
                "started with the prefix 'SQL_' registered for user-defined settings. "
                "(UNKNOWN_SETTING)"
            )
    return "SET " + ", ".join(f"{name} = {quoted(value)}" for name, value in pairs)


def descriptor_path(descriptor: int) -> str:
    """A path under which this process can open one of its own descriptors."""
    root = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return f"{root}/{descriptor}"


def write_config(folder: Path, memory_mb: int) -> Path:
    """Write the engine's configuration next to its data and return its path."""
    templates = files("local_stack")
    users = folder / "users.xml"
    users.write_text(
        templates.joinpath("clickhouse_users.xml")
        .read_text()
        .format(memory=memory_mb * 700_000, nobody=secrets.token_hex(32))
    )
    config = folder / "config.xml"
    config.write_text(
        templates.joinpath("clickhouse_config.xml")
        .read_text()
        .format(users=users, memory=memory_mb * 1_000_000)
    )
    return config


def lock_folder(folder: Path) -> int:
    """Take the folder for as long as this process lives; the descriptor holds the lock."""
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise FolderTaken(
            f"another ClickHouse engine works on {folder}. "
            "Stop it, or set TALLYLOG_DATA_DIR to another folder."
        ) from error
    return descriptor


@contextlib.contextmanager
def connected(engine: Engine) -> Iterator[Any]:
    """A connection for the length of a block."""
    connection = engine.connect()
    try:
        yield connection
    finally:
        connection.close()
