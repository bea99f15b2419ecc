"""A real PostgreSQL, where its programs are installed, and databases in it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

BOTH_DATABASES = pytest.mark.parametrize("catalog_url", ["", "postgresql"], indirect=True)
"""Marks tests of the console that are to run with its catalog on SQLite and on PostgreSQL."""

_numbers = count()


def create_database(place: str, template: str = "template1") -> str:
    """Make a database, empty or a copy of another: its URL."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(f"postgresql://{place}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return f"postgresql+psycopg://{place}/{name}"


def find_program(name: str) -> str | None:
    """Where a program of PostgreSQL is; Debian keeps the server's off the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else shutil.which(name)


@contextmanager
def postgres_server(initdb: str, server: str) -> Iterator[str]:
    """A PostgreSQL of our own for the length of a block: its user, host and port."""
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
        process.send_signal(signal.SIGINT)  # it waits for no client
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
