"""The catalog's database goes away and comes back: what is known goes on, nothing is made up."""

import asyncio
import shutil
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from catalog import database, keys
from catalog import follower as module
from catalog.database import Catalog, CatalogUnavailable
from catalog.follower import Follower
from catalog.tables import Change
from schemas.catalog import Scope
from schemas.errors import Unauthorized
from schemas.keys import NewApiKey
from tests.sqlite import moved_away


def changes(catalog: Catalog) -> int:
    with catalog.reading() as session:
        return len(session.scalars(select(Change.version)).all())


def make_key(catalog: Catalog) -> str:
    with catalog.writing("test") as writing:
        return keys.create(writing, "acme", NewApiKey(name="key"))[1]


def test_a_file_that_is_gone_is_away_and_no_other_is_made(
    sqlite_catalog: Catalog, tmp_path: Path
) -> None:
    before = changes(sqlite_catalog)
    with moved_away(tmp_path):
        for _ in range(2):
            with pytest.raises(CatalogUnavailable):
                changes(sqlite_catalog)
            with pytest.raises(CatalogUnavailable):
                make_key(sqlite_catalog)
        assert not list(tmp_path.glob("catalog.db*"))
    assert changes(sqlite_catalog) == before
    make_key(sqlite_catalog)
    assert changes(sqlite_catalog) == before + 1


def test_a_file_that_was_put_in_its_place_is_read(sqlite_catalog: Catalog, tmp_path: Path) -> None:
    before = changes(sqlite_catalog)
    sqlite_catalog.close()
    shutil.copy(tmp_path / "catalog.db", tmp_path / "copy.db")
    make_key(sqlite_catalog)
    assert changes(sqlite_catalog) == before + 1
    for file in tmp_path.glob("catalog.db*"):
        file.unlink()
    (tmp_path / "copy.db").rename(tmp_path / "catalog.db")
    assert changes(sqlite_catalog) == before


async def test_known_keys_go_on_and_of_others_nobody_can_tell(
    sqlite_catalog: Catalog, tmp_path: Path
) -> None:
    known, follower = make_key(sqlite_catalog), Follower(sqlite_catalog)
    follower.refresh()
    newer = make_key(sqlite_catalog)
    with moved_away(tmp_path):
        assert (await follower.authenticate(known, Scope.INGEST)).account == "acme"
        for _ in range(2):
            asking = (follower.authenticate(newer, Scope.INGEST) for _ in range(3))
            refused = await asyncio.gather(*asking, return_exceptions=True)
            assert [type(each) for each in refused] == [CatalogUnavailable] * 3
        with pytest.raises(Unauthorized):  # which is no key of ours, whatever the catalog says
            await follower.authenticate("sk_wrong", Scope.INGEST)
    assert (await follower.authenticate(newer, Scope.INGEST)).account == "acme"
    with pytest.raises(Unauthorized):
        await follower.authenticate(keys.new_key(), Scope.INGEST)


async def test_a_database_that_hangs_holds_nobody_up(
    sqlite_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks first waits for its patience, who asks later not at all; one thread hangs."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    known, follower = make_key(sqlite_catalog), Follower(sqlite_catalog)
    follower.refresh()
    newer, go_on = make_key(sqlite_catalog), threading.Event()
    read, hanging = follower._read, 0

    def hang(version: int) -> object:
        nonlocal hanging
        hanging += 1
        go_on.wait(10)
        return read(version)

    monkeypatch.setattr(follower, "_read", hang)
    started = time.monotonic()
    with pytest.raises(CatalogUnavailable):
        await follower.catch_up()
    assert time.monotonic() - started < 1
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(CatalogUnavailable):
            await follower.catch_up()
        with pytest.raises(CatalogUnavailable):
            await asyncio.to_thread(follower.refresh)
    assert time.monotonic() - started < 1
    with pytest.raises(CatalogUnavailable):
        await follower.authenticate(newer, Scope.INGEST)
    assert (await follower.authenticate(known, Scope.INGEST)).account == "acme"
    assert hanging == 1
    go_on.set()
    while follower._lock.locked():  # noqa: ASYNC110 - in another thread
        await asyncio.sleep(0.01)
    assert (await follower.authenticate(newer, Scope.INGEST)).account == "acme"


async def test_who_asks_a_database_that_hangs_is_told_so(
    sqlite_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ANSWER_S", 0.1)
    go_on = threading.Event()
    asking = (sqlite_catalog.on_thread(lambda: go_on.wait(10)) for _ in range(20))
    refused = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in refused] == [CatalogUnavailable] * 20
    assert await asyncio.to_thread(lambda: True)  # threads of others are free
    go_on.set()
    monkeypatch.setattr(database, "ANSWER_S", 10.0)
    assert await sqlite_catalog.on_thread(lambda: changes(sqlite_catalog)) > 0
