"""The catalog's database, SQLite or PostgreSQL, and the transactions that change it.

A version is gap-safe: whoever has seen version V has seen every change up to V. All writers take
one row first (SQLite: the write lock) and hold it until they commit, so that versions become
visible in their order; with a sequence, a slow transaction could show up below a version already
read.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    TimeoutError,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from ulid import ULID

from catalog.tables import CatalogVersion, Change, EntityTable
from schemas.errors import AlreadyExists, ServiceUnavailable

P = ParamSpec("P")
T = TypeVar("T")
Row = TypeVar("Row", bound=EntityTable)
BUSY_TIMEOUT_S = 15
"""How long a SQLite writer waits for another."""
ANSWER_S = 20.0
"""How long a request waits for the database: longer than one writer for another."""
THREADS = 8
POSTGRESQL = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Of libpq: a machine that has vanished is noticed within some ten seconds."""


class CatalogUnavailable(ServiceUnavailable):
    """The catalog's database can't be reached, or not be written now."""


class Kept(Protocol):
    """What is kept in `changes`: an entity, whether it has a table of its own or not."""

    version: int

    @property
    def kind(self) -> str: ...

    @property
    def id(self) -> str: ...

    def document(self) -> dict[str, Any]: ...


class Writing:
    """One transaction that changes the catalog: who, when, and the version each change makes.

    It holds the version's row from the start, so what it reads can't change under it.
    """

    def __init__(self, session: Session, actor: str, at: datetime, version: int) -> None:
        self.session = session
        self.actor = actor
        self.at = at
        self.version = version

    def next_version(self) -> int:
        """The version that the change about to be recorded makes."""
        return self.version + 1

    def stamp(self, row: EntityTable) -> None:
        """Make a new row this moment's: its id, its times and the version about to be."""
        row.id = f"{row.id_prefix}_{ULID()}"
        row.created_at = row.updated_at = self.at
        row.created_version = row.version = self.next_version()

    def create(self, row: Row) -> Row:
        """Stamp a new row, add it, and keep that it was made."""
        self.stamp(row)
        self.session.add(row)
        self.record(row.account, row, before=None)
        return row

    def update(self, row: Row, before: dict[str, Any]) -> Row:
        """Keep that a row is no longer as its document was before; nothing when it still is."""
        if row.document() != before:
            row.updated_at = self.at
            self.record(row.account, row, before)
        return row

    def record(self, account: str, entity: Kept, before: dict[str, Any] | None) -> None:
        """Keep a change: the entity as it was (None: it was not) and as it is now."""
        self.version = entity.version = self.version + 1
        self.session.add(
            Change(
                version=self.version,
                account=account,
                kind=entity.kind,
                entity_id=entity.id,
                at=self.at,
                actor=self.actor,
                before=None if before is None else _json(before),
                after=_json(entity.document()),
            )
        )
        self.session.flush()


class Catalog:
    """The catalog's database: transactions that read, and transactions that write."""

    def __init__(self, url: str) -> None:
        """Connects lazily; see `catalog.migrations.migrate` for the tables."""
        self.engine = open_engine(url)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="catalog")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads. Raises CatalogUnavailable."""
        with _available(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self, actor: str, at: datetime | None = None) -> Iterator[Writing]:
        """A transaction that commits at the end of the block, alone among all writers.

        Raises AlreadyExists when the database finds what may exist once, CatalogUnavailable.
        """
        engine = self.engine.execution_options(tallylog_write=True)
        with _available(), Session(engine, expire_on_commit=False) as session, session.begin():
            counter = session.scalars(select(CatalogVersion).with_for_update()).one()
            writing = Writing(session, actor, at or datetime.now(UTC), counter.version)
            yield writing
            counter.version = writing.version

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Do work with the database on a thread of its own kind: others never wait for it.

        Raises CatalogUnavailable after ANSWER_S; whether the work is done then, nobody knows.
        """
        doing = asyncio.get_running_loop().run_in_executor(self._threads, work)
        done, _ = await asyncio.wait([doing], timeout=ANSWER_S)
        if not done:
            doing.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise CatalogUnavailable(
                "The catalog does not answer", cure="look whether it was done, and send it again"
            )
        return doing.result()

    def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown(wait=False)
        self.engine.dispose()


async def in_thread(work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
    """Do work on the catalog in a thread; who is cancelled meanwhile still waits for its end.

    So nobody closes the catalog under it.
    """
    doing = asyncio.ensure_future(asyncio.to_thread(work, *args, **more))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise


def open_engine(url: str) -> Engine:
    """An engine for the URL; the folder of an SQLite file is made where it is missing."""
    place = make_url(url)
    if place.get_backend_name() != "sqlite":
        return create_engine(place, pool_pre_ping=True, connect_args=POSTGRESQL)
    engine = create_engine(place, connect_args={"timeout": BUSY_TIMEOUT_S})
    if place.database:
        file = Path(place.database)
        file.parent.mkdir(parents=True, exist_ok=True)
        _keep_to_file(engine, file)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _keep_to_file(engine: Engine, file: Path) -> None:
    """Notice that the file of an SQLite catalog is gone, or is another one.

    Else open connections would go on with a file that was moved away, and new ones with an empty
    file in its place.
    """
    met = False

    def refuse_empty_file(*_: object) -> None:
        if met and not file.exists():
            raise sqlite3.OperationalError(f"{file} is gone")

    def note_file(_connection: object, record: ConnectionPoolEntry) -> None:
        nonlocal met
        met = True
        record.info["file"] = _identity(file)

    def look_at_file(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        if record.info["file"] != _identity(file):
            raise DisconnectionError(f"{file} is not the file that it was")

    event.listen(engine, "do_connect", refuse_empty_file)
    event.listen(engine, "connect", note_file)
    event.listen(engine, "checkout", look_at_file)


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file it is; None when it is gone."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Transactions are ours to begin; readers don't wait for the writer; references hold.

    And every letter has a lower case: SQLite's own `lower` knows those of ASCII.
    """
    connection.isolation_level = None
    connection.create_function("lower", 1, _lower, deterministic=True)
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    _switch_to_wal(cursor)
    cursor.close()


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _switch_to_wal(cursor: Any) -> None:
    """Turn the journal into a WAL: once per file, and without SQLite's own patience."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the write lock at once: one that reads first could not get it later."""
    write = connection.get_execution_options().get("tallylog_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _available() -> Iterator[None]:
    """Say in our words what a database's error means."""
    try:
        yield
    except IntegrityError as error:
        raise AlreadyExists(
            "This already exists", cure="another request made it at the same time: read it first"
        ) from error
    except (OperationalError, InterfaceError, TimeoutError) as error:
        raise CatalogUnavailable(
            "The catalog is unavailable", cure="send the request again in a moment"
        ) from error


def _json(document: dict[str, Any]) -> str:
    return msgspec.json.encode(document).decode()
