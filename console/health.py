"""Whether the console is alive, and whether what it works with is there: looked at when asked."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from typing_extensions import TypedDict

from catalog.follower import Follower
from clickhouse.queries import query
from console.calls import json_answer
from console.progress import Progress
from console.routing import Resource, reads
from console.settings import Settings
from console.store import Store
from schemas.errors import Rejection

ANSWER_S = 2.0


class SystemStatus(TypedDict):
    """Why each thing that the console works with is away; null where it is there.

    status   `ready`; `degraded` when only the log is away: replays and monitoring have to wait,
             and nobody knows how far events are counted; `unavailable` otherwise.
    """

    status: str
    catalog: str | None
    store: str | None
    log: str | None


async def alive(request: Request) -> Response:
    """GET /healthz: the process answers."""
    return json_answer({"status": "ok"})


async def ready(request: Request) -> Response:
    """GET /readyz: 200 when the console can answer, else 503; with the reasons."""
    found = await _status(request)
    return json_answer(found, 503 if found["status"] == "unavailable" else 200)


async def get_status(request: Request) -> Response:
    """GET /v1/system/status: what the console works with, and why something is away."""
    return json_answer(await _status(request))


async def _status(request: Request) -> SystemStatus:
    follower: Follower = request.state.follower
    progress: Progress = request.state.progress
    settings: Settings = request.state.settings
    store: Store = request.state.store

    def read() -> None:
        with store.reading() as client:
            client.query(query("blocks_counted"), {"epoch": settings.block_epoch})

    catalog, away = await asyncio.gather(_trouble(follower.refresh), _trouble(read))
    status = "unavailable" if catalog or away else "degraded" if progress.trouble else "ready"
    return {"status": status, "catalog": catalog, "store": away, "log": progress.trouble}


async def _trouble(look: Callable[[], Any]) -> str | None:
    """Why a look fails, or takes too long; None when it doesn't."""
    try:
        async with asyncio.timeout(ANSWER_S):
            await asyncio.to_thread(look)
    except Rejection as rejection:
        return rejection.error
    except TimeoutError:
        return f"no answer within {ANSWER_S:g} s"
    return None


def routes() -> list[BaseRoute]:
    """The route of the system's status, for keys that may read."""
    return [Resource("/v1/system/status", GET=reads(get_status, gives=SystemStatus))]


def open_routes() -> list[BaseRoute]:
    """Health and readiness of a console that runs alone, open to all who reach the port."""
    return [
        Route("/healthz", alive, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]
