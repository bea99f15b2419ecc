"""Whether the gateway is alive, whether it can take events, and what it has counted."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ingest_gateway import metrics
from ingest_gateway.events import Gateway


def reasons(gateway: Gateway) -> list[str]:
    """Why events can't be taken now; none when they can."""
    found = []
    if gateway.log.away is not None:
        found.append(f"the event log is unavailable: {gateway.log.away}")
    if gateway.follower.snapshot.version == 0:
        found.append("the catalog has not been read yet: no API key is known")
    return found


async def alive(request: Request) -> Response:
    """GET /healthz: the process answers."""
    return _json(200, {"status": "ok"})


async def ready(request: Request) -> Response:
    """GET /readyz: 200 when events can be taken, else 503 with the reasons."""
    found = reasons(request.state.gateway)
    if found:
        return _json(503, {"status": "unavailable", "reasons": found})
    return _json(200, {"status": "ready"})


async def show_metrics(request: Request) -> Response:
    """GET /metrics: for Prometheus."""
    text, content_type = metrics.exposition()
    return Response(text, headers={"Content-Type": content_type})


def _json(status: int, value: object) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def routes() -> list[BaseRoute]:
    """Health, readiness and metrics, open to all who reach the port."""
    return [
        Route("/healthz", alive, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
        Route("/metrics", show_metrics, methods=["GET"]),
    ]
