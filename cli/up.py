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

from catalog import keys
from catalog.bootstrap import DEFAULT_ACCOUNT, bootstrap
from catalog.database import Catalog, Writing
from catalog.tables import ApiKeyRow
from clickhouse.migrator import migrate
from local_stack.children import Child, Children
from local_stack.clickhouse import clickhouse_child, clickhouse_url
from local_stack.kafka import kafka_child
from local_stack.ports import HOST, free_ports, require_free
from local_stack.settings import StackSettings
from schemas.keys import ApiKeyUpdate, NewApiKey
from schemas.settings import Places

READY_TIMEOUT_S = 60.0
LOCAL_KEY = NewApiKey(name="Local key", requests_per_minute=0, bulk_requests_per_minute=0)
"""This machine's own: no limit slows down a demo or a benchmark."""

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
            _write(options.ready_file, json.dumps(asdict(ready), indent=2) + "\n")
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
    """Start the servers, the tables and every part; the local API key."""
    servers = []
    if not os.environ.get("TALLYLOG_KAFKA"):
        servers.append(_start_server(children, display, "Kafka broker", kafka_child, stack))
    if not os.environ.get("TALLYLOG_CLICKHOUSE_URL"):
        servers.append(
            _start_server(children, display, "ClickHouse engine", clickhouse_child, stack)
        )
    await asyncio.gather(*servers)
    await display.step("ClickHouse tables", asyncio.to_thread(migrate, places.clickhouse_url))
    key, limits = await display.step("Catalog", asyncio.to_thread(local_key, places))
    display.console.print(f"The local API key has {limits}", highlight=False)
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
    await asyncio.gather(
        *(display.step(part.name.capitalize(), children.start(part)) for part in parts)
    )
    return key


async def _start_server(
    children: Children,
    display: Display,
    what: str,
    make: Callable[[StackSettings], Child],
    stack: StackSettings,
) -> None:
    async def start() -> None:
        await children.start(await asyncio.to_thread(make, stack))

    await display.step(what, start())


def local_key(places: Places) -> tuple[str, str]:
    """The API key of this data folder, and which limits it has in words.

    Made at the first start, kept in `api_key`, and without limits but for those that were set.
    """
    file = places.data_dir / "api_key"
    made = bootstrap(places.catalog, LOCAL_KEY).api_key
    catalog = Catalog(places.catalog)
    try:
        with catalog.writing("tallylog up") as writing:
            kept = file.read_text().strip() if made is None and file.exists() else made
            row = None if kept is None else keys.find(writing.session, kept)
            if kept is None or row is None:  # nobody can read back what was made elsewhere
                row, kept = keys.create(writing, DEFAULT_ACCOUNT, LOCAL_KEY)
            limits = _without_defaults(writing, row)
    finally:
        catalog.close()
    _write(file, kept + "\n", mode=0o600)
    return kept, limits


def _without_defaults(writing: Writing, row: ApiKeyRow) -> str:
    """Take off a key the limits that the gateway gives by default; which ones it has then."""
    limits = {
        "requests_per_minute": row.requests_per_minute,
        "bulk_requests_per_minute": row.bulk_requests_per_minute,
    }
    unset = {name: 0 for name, limit in limits.items() if limit is None}
    keys.update(writing, row.account, row.id, ApiKeyUpdate.model_validate(unset))
    single, bulk = row.requests_per_minute, row.bulk_requests_per_minute
    if not single and not bulk:
        return "no rate limit"
    return f"rate limits of its own: {single or 'any'} single, {bulk or 'any'} bulk requests/min"


def _write(file: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole: whoever reads it sees all of it or none."""
    draft = file.with_name(file.name + ".new")
    draft.touch(mode)
    draft.write_text(text)
    draft.replace(file)


def _http_child(options: Options, env: dict[str, str]) -> Child:
    argv = [*_tallylog(), "serve", "--port", str(options.port), "--workers", str(options.workers)]
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
        argv=[*_tallylog(), part],
        env=env | {"TALLYLOG_WORKER": str(number), "TALLYLOG_MONITOR_PORT": str(port)},
        ready=lambda: _answers(f"http://{HOST}:{port}/readyz"),
        ready_timeout_s=READY_TIMEOUT_S,
        stop_grace_s=15,
    )


def _tallylog() -> list[str]:
    return [sys.executable, "-m", "cli.main"]


async def _answers(url: str) -> bool:
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx.HTTPError:
            return False


def _reporter(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(f"[yellow]{line}")
