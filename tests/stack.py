"""The servers that tests run against: given ones, containers, or the local stack.

`TALLYLOG_KAFKA` and `TALLYLOG_CLICKHOUSE_URL` name running servers. Without them, testcontainers
starts both where a Docker daemon answers and has the images; otherwise the local stack starts
them on free ports, in a folder of its own. The tests are the same in every case.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from clickhouse.client import connect
from clickhouse.migrator import apply, read_migrations
from local_stack.children import Child, Children
from local_stack.clickhouse import clickhouse_child, clickhouse_url
from local_stack.kafka import kafka_child
from local_stack.ports import HOST, free_ports
from local_stack.settings import StackSettings

KAFKA_IMAGE = "apache/kafka:4.1.0"
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:latest"


def stack_settings(folder: Path) -> StackSettings:
    """Settings of a local stack on free ports."""
    kafka_port, clickhouse_port = free_ports(2)
    return StackSettings(data_dir=folder, kafka_port=kafka_port, clickhouse_port=clickhouse_port)


@contextlib.contextmanager
def running(child: Child, logs: Path) -> Iterator[None]:
    """Run a child from synchronous code: on an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=f"runs {child.name}", daemon=True)
    thread.start()
    children = Children(logs)
    try:
        asyncio.run_coroutine_threadsafe(children.start(child), loop).result()
        yield
    finally:
        asyncio.run_coroutine_threadsafe(children.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def kafka_server(folder: Path) -> Iterator[str]:
    """A Kafka broker for the length of a block: its "host:port"."""
    if given := os.environ.get("TALLYLOG_KAFKA"):
        yield given
    elif has_image(KAFKA_IMAGE):
        from testcontainers.kafka import KafkaContainer

        with KafkaContainer(KAFKA_IMAGE).with_kraft() as container:
            yield container.get_bootstrap_server()
    else:
        settings = stack_settings(folder)
        with running(kafka_child(settings), folder / "logs"):
            yield f"{HOST}:{settings.kafka_port}"


@contextlib.contextmanager
def clickhouse_server(folder: Path) -> Iterator[str]:
    """A ClickHouse HTTP interface for the length of a block: its URL, with a database."""
    if given := os.environ.get("TALLYLOG_CLICKHOUSE_URL"):
        yield given
    elif has_image(CLICKHOUSE_IMAGE):
        from testcontainers.clickhouse import ClickHouseContainer

        container = ClickHouseContainer(
            CLICKHOUSE_IMAGE, port=8123, username="tallylog", password="tallylog", dbname="tallylog"
        )
        with container:
            host, port = container.get_container_host_ip(), container.get_exposed_port(8123)
            yield f"http://tallylog:tallylog@{host}:{port}/tallylog"
    else:
        settings = stack_settings(folder)
        with running(clickhouse_child(settings), folder / "logs"):
            yield clickhouse_url(settings)


@contextlib.contextmanager
def migrated(clickhouse_url: str) -> Iterator[str]:
    """A database of its own with every table, for the length of a block: its URL."""
    database = f"test_{uuid4().hex}"
    with connect(clickhouse_url, database="") as client:
        apply(client, database, read_migrations())
        yield f"{clickhouse_url.rpartition('/')[0]}/{database}"
        client.command(f"DROP DATABASE {database} SYNC")


def has_image(name: str) -> bool:
    """Whether a Docker daemon answers and has an image at hand; nothing is ever pulled."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    inspect = [docker, "image", "inspect", name]
    try:
        return subprocess.run(inspect, capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False
