"""A catalog on SQLite, and the same on a real PostgreSQL where its programs are installed."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from catalog import accounts
from catalog.database import Catalog
from catalog.migrations import migrate
from schemas.keys import NewAccount

_numbers = count()


def find_program(name: str) -> str | None:
    """Where a program of PostgreSQL is; Debian keeps the server's off the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else shutil.which(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Host and port of a PostgreSQL of our own, as the head of a URL."""
    initdb, server = find_program("initdb"), find_program("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL here: initdb and postgres are not installed")
    user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="tallylog-postgres-"))
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = str(folder / "data")
    subprocess.run(
        [initdb, "-D", data, "-U", "tallylog", "-A", "trust", "--no-sync", "-E", "UTF8"],
        check=True,
        capture_output=True,
        user=user,
        cwd=folder,
    )
    options = ["-c", "fsync=off", "-c", "max_connections=60", "-h", "127.0.0.1"]
    process = subprocess.Popen(
        [server, "-D", data, "-p", str(port), "-k", str(folder), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=user,
        cwd=folder,
    )
    place = f"tallylog@127.0.0.1:{port}"
    try:
        _wait_for(f"postgresql://{place}/postgres")
        yield place
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'catalog.db'}"
    place = request.getfixturevalue("postgres")
    name = f"test_{next(_numbers)}"
    with psycopg.connect(f"postgresql://{place}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql+psycopg://{place}/{name}"


@pytest.fixture
def catalog_url(empty_url: str) -> str:
    """The URL of a migrated database."""
    migrate(empty_url)
    return empty_url


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """A catalog with the accounts `acme` and `other`."""
    catalog = Catalog(catalog_url)
    with catalog.writing("test") as writing:
        accounts.create(writing, NewAccount(id="acme", name="Acme"))
        accounts.create(writing, NewAccount(id="other", name="Other"))
    yield catalog
    catalog.close()


@pytest.fixture
def sqlite_catalog(tmp_path: Path) -> Iterator[Catalog]:
    """The same, on SQLite only: for what doesn't depend on the database."""
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    migrate(url)
    catalog = Catalog(url)
    with catalog.writing("test") as writing:
        accounts.create(writing, NewAccount(id="acme", name="Acme"))
    yield catalog
    catalog.close()
