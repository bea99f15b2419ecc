"""The gateway: wires settings, catalog, log and routes.

`create_app` serves it alone. To serve it together with another application from one port, put
`routes()` before the other's and enter `running` in the lifespan.
"""

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypedDict

import uvicorn
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from catalog.database import Catalog, CatalogUnavailable
from catalog.follower import Follower
from catalog.migrations import migrate
from ingest_gateway import health
from ingest_gateway.connection import OPTIONS
from ingest_gateway.errors import EXCEPTION_HANDLERS
from ingest_gateway.events import Endpoint, Gateway
from ingest_gateway.log import Log
from ingest_gateway.settings import Settings
from ingest_gateway.shortcut import Shortcut
from schemas.lasting import keep_for_good, keep_memory
from schemas.open_files import allow_many_files

log = logging.getLogger(__name__)


class State(TypedDict):
    """What every request finds in its scope's state."""

    gateway: Gateway


def routes() -> list[BaseRoute]:
    """The two routes of producers; each checks its key, so another app may serve them too."""
    return [
        Route("/v1/events", Endpoint("/v1/events", bulk=False), methods=["POST"]),
        Route("/v1/events/bulk", Endpoint("/v1/events/bulk", bulk=True), methods=["POST"]),
    ]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[State]:
    """The gateway's collaborators: a follower of the catalog, and the log.

    Neither has to be there yet: until they are, requests get 401 or 503, and readiness says why.
    """
    keep_memory()
    catalog = Catalog(settings.catalog)
    follower = Follower(catalog)
    events = Log(settings)
    gateway = Gateway(settings, follower, events)
    loaded = asyncio.Event()
    tasks = [
        asyncio.create_task(_follow(settings, follower, loaded)),
        asyncio.create_task(events.run()),
    ]
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await loaded.wait()
                await events.connected.wait()
        keep_for_good()
        yield State(gateway=gateway)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.gateway_ack_timeout_s):
                await events.drain()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gateway.rates.close()
        await asyncio.to_thread(catalog.close)


SETTLE_S = 2.0
"""How long a start waits for broker and catalog before it takes requests without them."""


async def _follow(settings: Settings, follower: Follower, loaded: asyncio.Event) -> None:
    """Keep up with the catalog, from the moment it is there, and say when that is."""
    while True:
        try:
            await asyncio.to_thread(migrate, settings.catalog)
            await follower.catch_up()
            break
        except (CatalogUnavailable, SQLAlchemyError) as error:
            log.warning("catalog unavailable: %s", error)
            await asyncio.sleep(settings.gateway_catalog_refresh_s)
    loaded.set()
    await follower.follow(settings.gateway_catalog_refresh_s)


def create_app(settings: Settings) -> Starlette:
    """The gateway as an application of its own, with health, readiness and metrics."""

    def lifespan(app: Starlette) -> AbstractAsyncContextManager[State]:
        return running(settings)

    app = Starlette(
        routes=[*routes(), *health.routes()],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def from_environment() -> Shortcut:
    """The application of a worker process, which reads its settings anew."""
    return Shortcut(create_app(Settings()))


def run(settings: Settings, port: int, workers: int = 1, host: str = "127.0.0.1") -> None:
    """Serve the gateway until told to stop: `tallylog gateway`."""
    config = {
        **OPTIONS,
        "host": host,
        "port": port,
        "log_level": settings.log_level,
        "timeout_graceful_shutdown": settings.gateway_shutdown_s,
    }
    allow_many_files()
    if workers == 1:
        uvicorn.run(Shortcut(create_app(settings)), **config)
        return
    with tempfile.TemporaryDirectory(prefix="tallylog-gateway-metrics-") as folder:
        os.environ.update(settings.as_environment(), PROMETHEUS_MULTIPROC_DIR=folder)
        uvicorn.run(
            "ingest_gateway.app:from_environment",
            factory=True,
            workers=workers,
            **config,
        )
