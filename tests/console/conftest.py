"""The console as an application in this process, and clients with keys of several kinds."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from clickhouse_connect.driver import Client
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from catalog import accounts, keys
from catalog.bootstrap import bootstrap
from catalog.database import Catalog
from catalog.migrations import migrate
from clickhouse.client import connect as connect_store
from console.app import create_app, running
from console.settings import Settings
from schemas.catalog import Scope
from schemas.keys import NewAccount, NewApiKey
from tests.postgres import create_database

Connect = Callable[[str | None], httpx.AsyncClient]


@pytest.fixture(scope="session")
def migrated_postgres(postgres: str) -> str:
    """The name of a migrated database, to be copied."""
    url = create_database(postgres)
    migrate(url)
    return url.rpartition("/")[2]


@pytest.fixture
def catalog_url(request: pytest.FixtureRequest) -> str:
    """The setting of this name: SQLite in the data folder, unless it is asked for otherwise."""
    if getattr(request, "param", "") != "postgresql":
        return ""
    template = request.getfixturevalue("migrated_postgres")
    return create_database(request.getfixturevalue("postgres"), template)


@pytest.fixture
def settings(tmp_path: Path, catalog_url: str) -> Settings:
    """Nobody listens on the discard port: no log and no store, whatever runs on this machine."""
    return Settings(
        data_dir=tmp_path,
        catalog_url=catalog_url,
        kafka="127.0.0.1:9",
        clickhouse_url="http://127.0.0.1:9/none",
        catalog_refresh_s=0.05,
    )


@pytest.fixture
def settings_with_store(tmp_path: Path, store_url: str, catalog_url: str) -> Settings:
    """For modules that override `settings` with it: the store is there, the log is not."""
    return Settings(
        data_dir=tmp_path,
        catalog_url=catalog_url,
        kafka="127.0.0.1:9",
        clickhouse_url=store_url,
        catalog_refresh_s=0.05,
    )


@pytest.fixture
def store(store_url: str) -> Iterator[Client]:
    """A client of the module's database, emptied."""
    with connect_store(store_url) as client:
        client.command("TRUNCATE TABLE events")
        client.command("TRUNCATE TABLE usage_states")
        yield client


@pytest.fixture
def api_key(settings: Settings) -> str:
    """A key of the account `default` that may do everything."""
    key = bootstrap(settings.catalog).api_key
    assert key is not None
    return key


@pytest.fixture
async def connect(settings: Settings, api_key: str) -> AsyncIterator[Connect]:
    """Makes a client of the running console with a key, or without one."""
    app = create_app(settings)
    clients: list[httpx.AsyncClient] = []
    async with running(settings) as state:

        async def with_state(scope: Connection, receive: Receive, send: Send) -> None:
            scope["state"] = dict(state)
            await app(scope, receive, send)

        def connect(key: str | None) -> httpx.AsyncClient:
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(with_state, raise_app_exceptions=False),
                base_url="http://console",
                headers={"x-api-key": key} if key is not None else {},
            )
            clients.append(client)
            return client

        yield connect
        for client in clients:
            await client.aclose()


@pytest.fixture
def client(connect: Connect, api_key: str) -> httpx.AsyncClient:
    """A client that may do everything."""
    return connect(api_key)


@pytest.fixture
def key_of(settings: Settings, api_key: str) -> Callable[[str, list[Scope]], str]:
    """Makes a key of an account (made when it is missing) with these scopes."""

    def make(account: str, scopes: list[Scope]) -> str:
        catalog = Catalog(settings.catalog)
        with catalog.writing("test") as writing:
            if account not in [each.id for each in accounts.everyone(writing.session)]:
                accounts.create(writing, NewAccount(id=account, name=account))
            _, key = keys.create(writing, account, NewApiKey(name="k", scopes=scopes))
        catalog.close()
        return key

    return make
