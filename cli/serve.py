"""Gateway and console behind one port: one base URL for producers and readers."""

import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette

import console.app
import console.openapi
import console.settings
import ingest_gateway.app
import ingest_gateway.description
import ingest_gateway.health
import ingest_gateway.settings
from ingest_gateway.connection import OPTIONS
from ingest_gateway.errors import EXCEPTION_HANDLERS
from ingest_gateway.shortcut import Shortcut
from schemas.open_files import allow_many_files


@asynccontextmanager
async def _running(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
    """The collaborators of both: their states side by side."""
    gateway_settings = ingest_gateway.settings.Settings()
    console_settings = console.settings.Settings()
    async with (
        ingest_gateway.app.running(gateway_settings) as gateway_state,
        console.app.running(console_settings) as console_state,
    ):
        yield {**gateway_state, **console_state}


def create_app() -> Starlette:
    """Both applications in one, by their routes; settings come from the environment."""
    api = console.app.routes()
    described = [*ingest_gateway.description.OPERATIONS, *console.openapi.operations_of(api)]
    app = Starlette(
        routes=[
            *ingest_gateway.app.routes(),
            *ingest_gateway.health.routes(),
            *api,
            *console.openapi.routes(described),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=_running,
    )
    app.router.redirect_slashes = False
    return app


def from_environment() -> Shortcut:
    """The application of a process that serves."""
    return Shortcut(create_app())


def run(port: int, workers: int, log_level: str) -> None:
    """Serve until told to stop; with several workers /metrics adds them up."""
    with ExitStack() as stack:
        if workers > 1:
            folder = tempfile.TemporaryDirectory(prefix="tallylog-metrics-")
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(folder)
        uvicorn.run(
            "cli.serve:from_environment",
            factory=True,
            port=port,
            workers=workers,
            **_options(log_level),
        )


def run_console(port: int, log_level: str) -> None:
    """Serve the console alone: `tallylog console`."""
    app = console.app.create_app(console.settings.Settings())
    uvicorn.run(app, port=port, **_options(log_level))


def _options(log_level: str) -> dict[str, Any]:
    allow_many_files()
    return {
        **OPTIONS,
        "host": "127.0.0.1",
        "log_level": log_level,
        "timeout_graceful_shutdown": 20,
    }
