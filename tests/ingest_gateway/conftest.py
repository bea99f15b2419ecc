"""The gateway in this process: a real catalog, and a log that the test holds in its hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from catalog import customers, features, keys
from catalog.bootstrap import bootstrap
from catalog.database import Catalog
from catalog.follower import Follower
from catalog.tables import ApiKeyRow
from ingest_gateway import health
from ingest_gateway.app import routes
from ingest_gateway.errors import EXCEPTION_HANDLERS, LogUnavailable
from ingest_gateway.events import Gateway
from ingest_gateway.log import Headers, Position
from ingest_gateway.settings import Settings
from ingest_gateway.shortcut import Shortcut
from schemas.customers import NewCustomer
from schemas.features import NewFeature
from schemas.keys import NewApiKey


class Record(NamedTuple):
    value: bytes
    headers: dict[str, bytes]


class FakeLog:
    """Keeps records; `away` refuses them, `silent` never acknowledges."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.away: str | None = None
        self.silent = False

    def append(self, value: bytes, headers: Headers, timestamp: int) -> asyncio.Future[Position]:
        if self.away is not None:
            raise LogUnavailable(self.away)
        assert abs(timestamp - time.time() * 1000) < 5000
        acked: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        if not self.silent:
            self.records.append(Record(value, dict(headers)))
            acked.set_result(Position(0, len(self.records) - 1))
        return acked


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, gateway_ack_timeout_s=3)


@pytest.fixture
def api_key(settings: Settings) -> str:
    """A key of the account `default` that may do everything."""
    key = bootstrap(settings.catalog).api_key
    assert key is not None
    return key


@pytest.fixture
def new_key(settings: Settings, api_key: str) -> Callable[..., str]:
    """Makes a key of the account `default`."""

    def make(**wish: Any) -> str:
        catalog = Catalog(settings.catalog)
        with catalog.writing("test") as writing:
            _, key = keys.create(writing, "default", NewApiKey(name="k", **wish))
        catalog.close()
        return key

    return make


@pytest.fixture
def revoke_all(settings: Settings, api_key: str) -> Callable[[], None]:
    """Revokes every key of the account `default`."""

    def revoke() -> None:
        catalog = Catalog(settings.catalog)
        with catalog.writing("test") as writing:
            for row in writing.session.scalars(select(ApiKeyRow)).all():
                keys.revoke(writing, "default", row.id)
        catalog.close()

    return revoke


@pytest.fixture
def new_customer(settings: Settings, api_key: str) -> Callable[[str], str]:
    """Makes a customer of the account `default`; our id of it."""

    def make(external_id: str) -> str:
        catalog = Catalog(settings.catalog)
        with catalog.writing("test") as writing:
            row = customers.create(writing, "default", NewCustomer(external_id=external_id))
            customer_id = str(row.id)
        catalog.close()
        return customer_id

    return make


@pytest.fixture
def new_feature(settings: Settings, api_key: str) -> Callable[[str], None]:
    """Makes a feature that counts events of a name."""

    def make(event_name: str) -> None:
        wish = {
            "name": event_name,
            "type": "metered",
            "meter": {
                "name": event_name,
                "event_name": event_name,
                "aggregation": {"type": "COUNT"},
            },
        }
        catalog = Catalog(settings.catalog)
        with catalog.writing("test") as writing:
            features.create(writing, "default", NewFeature.model_validate(wish))
        catalog.close()

    return make


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def gateway(settings: Settings, api_key: str, log: FakeLog) -> Gateway:
    follower = Follower(Catalog(settings.catalog))
    follower.refresh()
    return Gateway(settings, follower, log)  # type: ignore[arg-type]


@pytest.fixture
async def client(gateway: Gateway, api_key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key that may do everything."""
    app = Shortcut(
        Starlette(routes=[*routes(), *health.routes()], exception_handlers=EXCEPTION_HANDLERS)
    )

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"gateway": gateway}
        await app(scope, receive, send)

    transport = httpx.ASGITransport(with_state)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://gateway", headers={"x-api-key": api_key}
    ) as client:
        yield client
    await asyncio.to_thread(gateway.follower._engine.dispose)
