"""A whole Tallylog in processes of its own, and what tests do with it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import httpx
from clickhouse_connect.driver import Client

from catalog import accounts, keys
from catalog.database import Catalog
from clickhouse.client import connect
from local_stack.ports import free_ports
from schemas.keys import NewAccount, NewApiKey
from schemas.settings import Places

START_TIMEOUT_S = 120
UNLIMITED = NewApiKey(name="tests", requests_per_minute=0, bulk_requests_per_minute=0)
T = TypeVar("T")


@dataclass(frozen=True)
class Tallylog:
    """Where it answers, as `--ready-file` says, with clients of its API and of its store."""

    base_url: str
    api_key: str
    account: str
    kafka: str
    clickhouse_url: str
    data_dir: str
    http: httpx.Client = field(repr=False)
    store: Client = field(repr=False)

    def create_feature(
        self, event_name: str, aggregation: str = "COUNT", field: str | None = None, **more: Any
    ) -> str:
        """Create a feature; the id of its meter."""
        rule = {"type": aggregation, **({"field": field} if field else {}), **more}
        meter = {"event_name": event_name, "aggregation": rule}
        answer = self.http.post("/v1/features", json={"name": event_name, "meter": meter})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["meter"]["id"])

    def usage(self, meter_id: str, customer: str) -> Decimal | None:
        """Usage over the last seven days, exactly as answered."""
        body = {"meter_id": meter_id, "external_customer_id": customer}
        answer = self.http.post("/v1/events/usage/meter", json=body)
        assert answer.status_code == 200, answer.text
        value = json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)["value"]
        return None if value is None else Decimal(value)

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a query of ClickHouse."""
        return [tuple(row) for row in self.store.query(sql, parameters=parameters).result_rows]

    def verdicts(self, event_name: str) -> dict[str, int]:
        """How many events of a name have which verdict."""
        return dict(
            self.rows(
                "SELECT verdict, count() FROM metered_events"
                " WHERE account = {account:String} AND event_name = {name:String} GROUP BY verdict",
                account=self.account,
                name=event_name,
            )
        )

    def dead_letters(self, topic: str, partition: int, offset: int) -> list[tuple[Any, ...]]:
        """The dead letters of one record: index, reason and number of bytes."""
        return self.rows(
            "SELECT log_index, trimRight(reason, ':'), length(bytes) FROM dead_letters"
            " WHERE log_topic = {topic:String} AND log_partition = {partition:UInt16}"
            " AND log_offset = {offset:UInt64} ORDER BY log_index",
            topic=topic,
            partition=partition,
            offset=offset,
        )

    @contextlib.contextmanager
    def as_account(self, account: str) -> "Iterator[Tallylog]":
        """The same Tallylog as a new account sees it."""
        catalog = Catalog(Places(data_dir=Path(self.data_dir)).catalog)
        try:
            with catalog.writing("tests") as writing:
                accounts.create(writing, NewAccount(id=account, name=account))
                key = keys.create(writing, account, UNLIMITED)[1]
        finally:
            catalog.close()
        with client(self.base_url, key) as http:
            yield replace(self, account=account, api_key=key, http=http)


def until(look: Callable[[], T], wanted: T, timeout_s: float = 30) -> None:
    """Look until what is seen is what is wanted; fail with what was seen last."""
    deadline = time.monotonic() + timeout_s
    while (seen := look()) != wanted:
        assert time.monotonic() < deadline, f"after {timeout_s} s: {seen}, not {wanted}"
        time.sleep(0.05)


def client(base_url: str, api_key: str) -> httpx.Client:
    """An HTTP client with a key."""
    return httpx.Client(
        base_url=base_url, headers={"x-api-key": api_key}, timeout=30, trust_env=False
    )


@contextlib.contextmanager
def tallylog_up(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Tallylog]:
    """`tallylog up` on free ports with its data in a folder; stopped with SIGTERM on leaving.

    `env` holds settings on top of those.
    """
    port, kafka_port, clickhouse_port = free_ports(3)
    ready_file, log = folder / "ready.json", folder / "up.log"
    ready_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cli.main", "up", "--data-dir", str(folder / "data")]
    command += ["--port", str(port), "--ready-file", str(ready_file), *arguments]
    settings = {
        "TALLYLOG_KAFKA_PORT": str(kafka_port),
        "TALLYLOG_CLICKHOUSE_PORT": str(clickhouse_port),
        "TALLYLOG_INVOICE_EVERY_S": "1",
    }
    whole_env = {**os.environ, **settings, **(env or {})}
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=whole_env, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready_file.exists():
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, f"tallylog up did not start:\n{log.read_text()}"
            time.sleep(0.05)
        ready = json.loads(ready_file.read_text())
        store = connect(ready["clickhouse_url"])
        with client(ready["base_url"], ready["api_key"]) as http, contextlib.closing(store):
            yield Tallylog(**ready, http=http, store=store)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert status == 0, f"tallylog up ended with status {status}:\n{log.read_text()}"
