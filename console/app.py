"""The console: the API of operators, billing and support. Wires settings, catalog and routes."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import TypedDict

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from billing.windows import to_datetime
from catalog.database import Catalog
from catalog.follower import Follower
from catalog.migrations import migrate
from console import (
    analytics,
    api_keys,
    attribution,
    customers,
    dead_letters,
    debugger,
    entitlements,
    events,
    features,
    grants,
    health,
    invoices,
    meters,
    monitoring,
    openapi,
    plans,
    prices,
    subscriptions,
    sweep,
    usage,
    usage_summary,
    verdict_stream,
)
from console.bills import Bills
from console.closing import told_to_stop
from console.invoicing import CountedUntil, Invoicing
from console.progress import Progress
from console.resent_log import ResentLog
from console.routing import EXCEPTION_HANDLERS
from console.settings import Settings
from console.store import Store
from console.verdict_stream import Tail
from console.verifying import Verifying
from schemas.lasting import keep_for_good

log = logging.getLogger(__name__)


class State(TypedDict):
    """What every request finds in `request.state`."""

    settings: Settings
    catalog: Catalog
    follower: Follower
    store: Store
    resent_log: ResentLog
    progress: Progress
    tail: Tail
    bills: Bills


def routes() -> list[BaseRoute]:
    """Every route of the console; each checks its key itself, so another app may serve them too."""
    return [
        *features.routes(),
        *meters.routes(),
        *plans.routes(),
        *prices.routes(),
        *entitlements.routes(),
        *subscriptions.routes(),
        *invoices.routes(),
        *grants.routes(),
        *attribution.routes(),
        *usage_summary.routes(),
        *customers.routes(),
        *api_keys.routes(),
        *usage.routes(),
        *analytics.routes(),
        *events.routes(),
        *dead_letters.routes(),
        *sweep.routes(),
        *monitoring.routes(),
        *health.routes(),
        *verdict_stream.routes(),
        *debugger.routes(),
    ]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[State]:
    """The console's collaborators: a migrated catalog, and a follower that keeps up with it."""
    await asyncio.to_thread(migrate, settings.catalog)
    catalog = Catalog(settings.catalog)
    follower = Follower(catalog)
    await asyncio.to_thread(follower.refresh)
    following = asyncio.create_task(follower.follow(settings.catalog_refresh_s))
    store = Store(settings.clickhouse_url)
    resent_log = ResentLog(settings)
    ending = contextlib.ExitStack()
    stopping = ending.enter_context(told_to_stop())
    progress = Progress(settings, store)
    looking = asyncio.create_task(progress.run())
    sweeping = asyncio.create_task(sweep.Sweep(settings, follower, store).run())
    bills = Bills(catalog, follower, store)
    invoicing = Invoicing(settings, catalog, bills, _counted_until(progress))
    billing = asyncio.create_task(_invoice(invoicing, progress))
    verifying = asyncio.create_task(Verifying(store).run())
    keep_for_good()
    try:
        yield State(
            settings=settings,
            catalog=catalog,
            follower=follower,
            store=store,
            resent_log=resent_log,
            progress=progress,
            tail=Tail(settings, store, stopping),
            bills=bills,
        )
    finally:
        ending.close()
        invoicing.end()
        await _ended(following, sweeping, looking, billing, verifying)
        await resent_log.discard()
        await asyncio.to_thread(catalog.close)
        store.close()


async def _ended(*tasks: asyncio.Task[None]) -> None:
    """End tasks; one that had failed is logged, and keeps nothing else from ending."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(outcome, asyncio.CancelledError | None):
            log.error("a task of the console had failed", exc_info=outcome)


async def _invoice(invoicing: Invoicing, progress: Progress) -> None:
    """Close periods for ever, from when it is first known what is counted."""
    await progress.looked()
    await invoicing.run()


def _counted_until(progress: Progress) -> CountedUntil:
    """The watermark of an account, as invoicing asks for it."""

    def counted_until(account: str) -> datetime | None:
        mark = progress.counted_until(account)
        return None if mark is None else to_datetime(mark)

    return counted_until


async def show_metrics(request: Request) -> Response:
    """GET /metrics: for Prometheus, open to all who reach the port."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def create_app(settings: Settings) -> Starlette:
    """The console as an application of its own, with metrics."""

    def lifespan(app: Starlette) -> AbstractAsyncContextManager[State]:
        return running(settings)

    api = routes()
    app = Starlette(
        routes=[
            *api,
            *openapi.routes(openapi.operations_of(api)),
            *health.open_routes(),
            Route("/metrics", show_metrics, methods=["GET"]),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app
