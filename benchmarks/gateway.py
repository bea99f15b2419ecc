"""The gateway with nothing behind it but the log, beside the obvious one: requests to 202."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.load import Load, run
from benchmarks.workload import bodies
from cli.local_key import local_key
from local_stack.children import Child, Children
from local_stack.kafka import kafka_child
from local_stack.ports import HOST, free_port
from local_stack.settings import StackSettings
from schemas.settings import Places

WARM_UP_S = 1.0
OBVIOUS = "obvious app: "


@dataclass(frozen=True)
class Kind:
    """A way of sending: events a request over so many connections."""

    name: str
    path: str
    events: int
    connections: int
    bodies: int


KINDS = [
    Kind("single, 64 connections", "/v1/events", 1, 64, 5000),
    Kind("bulk of 100, 16 connections", "/v1/events/bulk", 100, 16, 100),
    Kind("bulk of 500, 16 connections", "/v1/events/bulk", 500, 16, 40),
    Kind("bulk of 1000, 16 connections", "/v1/events/bulk", 1000, 16, 20),
]
ARRAY = Kind("bulk of 500 as one record", "/v1/events/array", 500, 16, 40)


@asynccontextmanager
async def _serving(workers: int) -> AsyncIterator[tuple[str, str, str]]:
    """Our gateway and the obvious one on one broker: the address of each, and ours' key."""
    with tempfile.TemporaryDirectory(prefix="tallylog-bench-") as folder:
        settings = StackSettings(data_dir=Path(folder), kafka_port=free_port())
        places = Places(data_dir=settings.data_dir, kafka=f"{HOST}:{settings.kafka_port}")
        env = {"TALLYLOG_DATA_DIR": folder, "TALLYLOG_KAFKA": places.kafka}
        async with Children(Path(folder) / "logs") as children:
            await children.start(await asyncio.to_thread(kafka_child, settings))
            key, _ = await asyncio.to_thread(local_key, places)
            ours, plain = free_port(), free_port()
            arguments = {
                ours: ["-m", "cli.main", "gateway"],
                plain: ["-m", "uvicorn", "benchmarks.references.plain_gateway:app",
                        "--no-access-log", "--log-level", "warning"],
            }  # fmt: skip
            for port, argv in arguments.items():
                child = Child(
                    name=f"gateway-{port}",
                    argv=[sys.executable, *argv, "--port", str(port), "--workers", str(workers)],
                    env=env,
                    ready=_listening(port),
                    ready_timeout_s=60,
                )
                await children.start(child)
            yield f"http://{HOST}:{ours}", f"http://{HOST}:{plain}", key


def _listening(port: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        writer.close()
        return True

    return look


async def measure(workers: int, seconds: float, runs: int) -> list[Figure]:
    """Both in turn, kind by kind: rates, and ms to 202."""
    size = f"{workers} worker{'s' * (workers > 1)}"
    section = f"gateway with nothing behind it but the log, {size}"
    found: dict[Figure, list[float]] = {}
    async with _serving(workers) as (ours, plain, key):
        for _ in range(runs):
            for kind in [*KINDS, ARRAY]:
                loads = bodies(kind.bodies, kind.events)
                for who, url in (("", ours), (OBVIOUS, plain)):
                    if kind is ARRAY and url == ours:
                        continue
                    for length in (WARM_UP_S, seconds):
                        load = Load(kind.path, loads, kind.connections, length)
                        sent = (await asyncio.to_thread(run, url, key, load)).check()
                    values = {
                        "events/s": sent.events / sent.seconds,
                        "ms, p50": sent.ms(0.5),
                        "ms, p99": sent.ms(0.99),
                    }
                    for unit, value in values.items():
                        name = f"{kind.name}, {size}, {unit}"
                        reference = "" if who else f"{OBVIOUS}{name}"
                        figure = Figure(section, f"{who}{name}", (), reference)
                        found.setdefault(figure, []).append(value)
    return [replace(figure, runs=values) for figure, values in found.items()]


if __name__ == "__main__":
    from rich.console import Console

    from benchmarks.figures import table

    figures = asyncio.run(measure(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
    Console(highlight=False).print(table(figures, figures[0].section))
