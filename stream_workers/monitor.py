"""Health, readiness and metrics of a worker, over HTTP."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ROWS = (1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000)
"""Buckets of histograms of rows."""

Troubles = Callable[[], Mapping[str, str]]
"""What keeps a worker from its work, by part; empty when it is ready."""


def monitor_app(troubles: Troubles) -> Starlette:
    """GET /healthz (alive), /readyz (200, or 503 with what is wrong), /metrics (Prometheus)."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        found = dict(troubles())
        status = 503 if found else 200
        return JSONResponse({"ready": not found, "troubles": found}, status_code=status)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )


class _Quiet(uvicorn.Server):
    """A server inside a worker, which handles signals itself."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


async def serve_monitor(port: int, troubles: Troubles) -> None:
    """Serve the monitor on 127.0.0.1 until cancelled; with port 0 do nothing."""
    if port:
        config = uvicorn.Config(
            monitor_app(troubles),
            host="127.0.0.1",
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
        )
        await _Quiet(config).serve()
