"""The ClickHouse engine in a process of its own, reachable over ClickHouse's HTTP interface.

What it keeps lies in `<data_dir>/clickhouse` and survives restarts and kill -9.
"""

import faulthandler
import os
import signal
import socket
import sys

import httpx
import uvicorn

from local_stack.children import Child
from local_stack.connection import OPTIONS
from local_stack.errors import PortTaken
from local_stack.ports import HOST, require_free
from local_stack.settings import StackSettings
from local_stack.standing import BEHIND
from schemas.lasting import keep_memory
from schemas.open_files import allow_many_files

DRAIN_S = 5  # how long running queries may take to end after SIGTERM


def clickhouse_child(settings: StackSettings) -> Child:
    """The engine as a child process, ready to be started. Raises PortTaken."""
    port = settings.clickhouse_port
    require_free(port, server="ClickHouse's HTTP interface", setting="TALLYLOG_CLICKHOUSE_PORT")
    names = (
        "data_dir",
        "clickhouse_port",
        "clickhouse_user",
        "clickhouse_password",
        "clickhouse_mb",
    )
    env = {f"TALLYLOG_{name.upper()}": str(getattr(settings, name)) for name in names}
    env["TALLYLOG_DATA_DIR"] = str(settings.data_dir.absolute())
    return Child(
        name="clickhouse",
        argv=[sys.executable, "-m", "local_stack.clickhouse"],
        env=env,
        ready=lambda: engine_answers(f"http://{HOST}:{port}"),
        ready_timeout_s=60,
        stop_grace_s=DRAIN_S + 7,
        nice=BEHIND,
    )


def clickhouse_url(settings: StackSettings) -> str:
    """The URL under which the engine answers, with its user, password and database."""
    user = settings.clickhouse_user
    password = f":{settings.clickhouse_password}" if settings.clickhouse_password else ""
    login = f"{user}{password}@" if password else ""
    return f"http://{login}{HOST}:{settings.clickhouse_port}/tallylog"


def run_clickhouse(settings: StackSettings) -> None:
    """Be the engine until SIGTERM or SIGINT: `tallylog clickhouse`.

    Queries that run then get DRAIN_S to end, and are killed after. Raises PortTaken, FolderTaken.
    """
    faulthandler.enable()
    keep_memory(arrow=False)  # bodies of INSERTs; the library has an allocator of its own
    with listen(settings.clickhouse_port) as listener:
        _serve(settings, listener)
    os._exit(0)  # threads of killed queries may still unwind; everything is on disk


def _serve(settings: StackSettings, listener: socket.socket) -> None:
    from local_stack.engine import Engine  # loads the engine's library: only where it is wanted
    from local_stack.http_interface import HttpInterface

    allow_many_files()
    engine = Engine(settings.data_dir.absolute() / "clickhouse", settings.clickhouse_mb)
    app = HttpInterface(engine, settings.clickhouse_user, settings.clickhouse_password)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="critical",
        timeout_graceful_shutdown=DRAIN_S,
        **OPTIONS,
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it is done,
        signal.signal(number, lambda *_: None)  # and the engine is still to be closed
    uvicorn.Server(config).run(sockets=[listener])
    app.close()
    engine.close()


def listen(port: int) -> socket.socket:
    """A listening socket; raises PortTaken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(256)
    except OSError:
        listener.close()
        require_free(port, server="ClickHouse's HTTP interface", setting="TALLYLOG_CLICKHOUSE_PORT")
        raise PortTaken(f"port {port} of {HOST} could not be taken") from None
    return listener


async def engine_answers(url: str) -> bool:
    """Whether a ClickHouse HTTP interface answers at a URL."""
    try:  # verify=False: nothing is encrypted here, and reading certificates takes 50 ms
        async with httpx.AsyncClient(trust_env=False, timeout=2, verify=False) as client:
            return (await client.get(f"{url}/ping")).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    run_clickhouse(StackSettings())
