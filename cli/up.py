"""`tallylog up`: the stack and every part of Tallylog as children of one process."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli.whole_file import write_whole
from local_stack.children import Child, Children
from local_stack.clickhouse import clickhouse_child, clickhouse_url
from local_stack.kafka import kafka_child
from local_stack.ports import HOST, free_ports, require_free
from local_stack.settings import StackSettings
from local_stack.standing import BEHIND
from schemas.settings import DEFAULT_ACCOUNT, Places

READY_TIMEOUT_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Ready:
    """Where everything answers: what `--ready-file` holds."""

    base_url: str
    api_key: str
    account: str
    kafka: str
    clickhouse_url: str
    data_dir: str


@dataclass(frozen=True)
class Options:
    """What `up` was asked for.

    workers  Processes of the gateway, packers and counters.
    """

    data_dir: Path
    port: int = 8080
    workers: int = 1
    ready_file: Path | None = None


class Display:
    """Says what is being started: a spinner a part in a terminal, a line a part elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    async def step(self, what: str, work: Awaitable[T]) -> T:
        """Do one step of the start, and show how long it took."""
        started = time.monotonic()
        task = self._progress.add_task(what, total=1)
        result = await work
        self._progress.update(task, completed=1)
        if not self.console.is_terminal:
            self.console.print(f"✓ {what} ({time.monotonic() - started:.1f} s)", highlight=False)
        return result


@asynccontextmanager
async def running(options: Options, console: Console) -> AsyncIterator[tuple[Ready, Children]]:
    """Everything up and answering; stopped in order on leaving."""
    data_dir = options.data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    require_free(options.port, server="Tallylog's HTTP port", setting="--port")
    stack = StackSettings(data_dir=data_dir)
    places = _places(stack)
    report = _reporter(console)
    async with Children(data_dir / "logs", report) as children:
        with Display(console) as display:
            key = await _start(children, display, options, stack, places)
        ready = Ready(
            base_url=f"http://{HOST}:{options.port}",
            api_key=key,
            account=DEFAULT_ACCOUNT,
            kafka=places.kafka,
            clickhouse_url=places.clickhouse_url,
            data_dir=str(data_dir),
        )
        if options.ready_file is not None:
            write_whole(options.ready_file, json.dumps(asdict(ready), indent=2) + "\n")
        yield ready, children


def _places(stack: StackSettings) -> Places:
    """Real servers where the environment names them, the local ones elsewhere."""
    return Places(
        data_dir=stack.data_dir,
        kafka=os.environ.get("TALLYLOG_KAFKA") or f"{HOST}:{stack.kafka_port}",
        clickhouse_url=os.environ.get("TALLYLOG_CLICKHOUSE_URL") or clickhouse_url(stack),
    )


async def _start(
    children: Children, display: Display, options: Options, stack: StackSettings, places: Places
) -> str:
    """Start the servers, the tables and every part; the local API key.

    The broker takes longest, so it starts first and the rest beside it: the parts wait for it.
    """
    broker = None
    if not os.environ.get("TALLYLOG_KAFKA"):
        making = asyncio.to_thread(kafka_child, stack)
        broker = await display.step("Kafka broker's files", making)

    async def start_broker() -> None:
        if broker is not None:
            await display.step("Kafka broker", children.start(broker))

    async def make_tables() -> None:
        if not os.environ.get("TALLYLOG_CLICKHOUSE_URL"):
            engine = await asyncio.to_thread(clickhouse_child, stack)
            await display.step("ClickHouse engine", children.start(engine))
        await display.step("ClickHouse tables", asyncio.to_thread(_make_tables, places))

    async def start_the_rest() -> str:
        catalog = display.step("Catalog", asyncio.to_thread(_local_key, places))
        (key, limits), _ = await asyncio.gather(catalog, make_tables())
        display.console.print(f"The local API key has {limits}", highlight=False)
        parts = _parts(options, places)
        await asyncio.gather(
            *(display.step(part.name.capitalize(), children.start(part)) for part in parts)
        )
        return key

    _, key = await asyncio.gather(start_broker(), start_the_rest())
    return key


def _make_tables(places: Places) -> None:
    from clickhouse.migrator import migrate  # while the broker and the engine are starting

    migrate(places.clickhouse_url)


def _local_key(places: Places) -> tuple[str, str]:
    from cli.local_key import local_key

    return local_key(places)


def _parts(options: Options, places: Places) -> list[Child]:
    env = {
        "TALLYLOG_DATA_DIR": str(places.data_dir),
        "TALLYLOG_KAFKA": places.kafka,
        "TALLYLOG_CLICKHOUSE_URL": places.clickhouse_url,
    }
    ports = free_ports(2 * options.workers)
    parts = [_http_child(options, env)]
    for number in range(options.workers):
        parts.append(_worker_child("packer", number, ports[2 * number], env))
        parts.append(_worker_child("counter", number, ports[2 * number + 1], env))
    return parts


def _http_child(options: Options, env: dict[str, str]) -> Child:
    argv = [*_PARTS, "serve", "--port", str(options.port), "--workers", str(options.workers)]
    return Child(
        name="http",
        argv=argv,
        env=env,
        ready=lambda: _answers(f"http://{HOST}:{options.port}/readyz"),
        ready_timeout_s=READY_TIMEOUT_S,
        stop_grace_s=25,
    )


def _worker_child(part: str, number: int, port: int, env: dict[str, str]) -> Child:
    return Child(
        name=f"{part}-{number}" if number else part,
        argv=[*_PARTS, part],
        env=env | {"TALLYLOG_WORKER": str(number), "TALLYLOG_MONITOR_PORT": str(port)},
        ready=lambda: _answers(f"http://{HOST}:{port}/readyz"),
        ready_timeout_s=READY_TIMEOUT_S,
        stop_grace_s=15,
        nice=BEHIND,
    )


_PARTS = (sys.executable, "-m", "cli.parts")


async def _answers(url: str) -> bool:
    # verify=False: nothing is encrypted here, and reading certificates takes 50 ms of each look.
    async with httpx.AsyncClient(timeout=2, trust_env=False, verify=False) as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx.HTTPError:
            return False


def _reporter(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(f"[yellow]{line}")
