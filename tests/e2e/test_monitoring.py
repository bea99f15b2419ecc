"""What the API says of the pipeline: lag, watermark, metrics; while it runs, and while it hangs."""

import contextlib
import json
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from aiokafka import AIOKafkaProducer

from tests.e2e.running import Tallylog, until


@pytest.fixture(scope="module")
def account(tallylog: Tallylog) -> Iterator[Tallylog]:
    """An account of its own: its figures are those of these tests."""
    with tallylog.as_account(f"watched-{uuid4().hex[:8]}") as own:
        yield own


def monitoring(account: Tallylog, **params: Any) -> dict[str, Any]:
    answer = account.http.get("/v1/events/monitoring", params=params)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def send(account: Tallylog, count: int) -> list[str]:
    ids = [uuid4().hex for _ in range(count)]
    events = [
        {"event_id": each, "event_name": "watched", "external_customer_id": "c"} for each in ids
    ]
    answer = account.http.post("/v1/events/bulk", json={"events": events})
    assert answer.status_code == 202, answer.text
    return ids


def processes(account: Tallylog, part: str) -> list[psutil.Process]:
    """The processes of a part of this Tallylog."""
    found = [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["cmdline"] or [])[-1:] == [part]
        and (process.info["environ"] or {}).get("TALLYLOG_DATA_DIR") == account.data_dir
    ]
    assert found
    return found


def metrics_of(account: Tallylog, part: str) -> str:
    """What a worker shows to Prometheus."""
    [process] = processes(account, part)
    port = process.environ()["TALLYLOG_MONITOR_PORT"]
    return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text


@contextlib.contextmanager
def standing_still(account: Tallylog, part: str) -> Iterator[None]:
    """Stop a part of this Tallylog for the length of a block, as a hung machine would be."""
    found = processes(account, part)
    for process in found:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in found:
            process.send_signal(signal.SIGCONT)


def watermark(account: Tallylog) -> datetime | None:
    text = monitoring(account)["watermark"]
    return None if text is None else datetime.fromisoformat(text)


def test_the_watermark_passes_what_was_sent_and_then_all_of_it_is_there(account: Tallylog) -> None:
    send(account, 30)
    sent = datetime.now(UTC)
    deadline = time.monotonic() + 30
    while (mark := watermark(account)) is None or mark < sent:
        assert time.monotonic() < deadline
    told = monitoring(account, window_size="HOUR")
    assert told["total_count"] == 30
    assert sum(point["event_count"] for point in told["points"]) == 30
    assert (told["consumption_lag"], told["post_processing_lag"]) == (0, 0)
    assert [stage["lag_offsets"] for stage in told["stages"]] == [0, 0]


async def test_the_end_of_a_transaction_does_not_hold_the_watermark_up(account: Tallylog) -> None:
    """It is a record of the broker's own, behind the last event: nobody ever packs it."""
    settings = {"bootstrap_servers": account.kafka, "transactional_id": uuid4().hex}
    producer = AIOKafkaProducer(**settings)
    await producer.start()
    for end in (producer.commit_transaction, producer.abort_transaction):
        await producer.begin_transaction()
        event = {"event_name": "in.transaction", "external_customer_id": "c"}
        await producer.send_and_wait(f"events.{account.account}", json.dumps(event).encode())
        await end()
    await producer.stop()
    sent = datetime.now(UTC)
    until(lambda: (mark := watermark(account)) is not None and mark > sent, True)
    assert account.verdicts("in.transaction") == {"unknown_event_name": 1}
    assert [stage["lag_offsets"] for stage in monitoring(account)["stages"]] == [0, 0]


@pytest.mark.parametrize(
    ("part", "stage", "figure"),
    [("packer", "packing", "consumption_lag"), ("counter", "counting", "post_processing_lag")],
)
def test_a_part_that_hangs_shows_as_lag_in_events_and_seconds(
    account: Tallylog, part: str, stage: str, figure: str
) -> None:
    send(account, 1)
    before = datetime.now(UTC)
    until(lambda: (known := watermark(account)) is not None and known > before, True)
    assert monitoring(account)[figure] == 0
    with standing_still(account, part):
        ids = send(account, 12)
        send(account, 5)
        sent = datetime.now(UTC)
        until(lambda: monitoring(account)[figure], 17)
        lag = {each["stage"]: each for each in monitoring(account)["stages"]}[stage]
        assert lag["exact"] and lag["lag_offsets"] >= 1
        time.sleep(1.5)
        told = monitoring(account)
        lag = {each["stage"]: each for each in told["stages"]}[stage]
        assert lag["lag_seconds"] > 1
        assert datetime.fromisoformat(told["watermark"]) < sent
        answer = account.http.get(f"/v1/events/{ids[0]}")
        assert (answer.status_code, answer.json()["status"]) == (200, "processing")
        metrics = account.http.get("/metrics").text
        assert f'pipeline_lag_offsets{{stage="{stage}"' in metrics
    until(lambda: monitoring(account)[figure], 0)
    until(lambda: account.http.get(f"/v1/events/{ids[0]}").json()["status"], "failed")


def test_another_accounts_backlog_is_not_ones_own(account: Tallylog, tallylog: Tallylog) -> None:
    with standing_still(account, "packer"):
        send(account, 3)
        until(lambda: monitoring(account)["consumption_lag"], 3)
        assert monitoring(tallylog)["consumption_lag"] == 0


def test_metrics_show_every_stage(account: Tallylog) -> None:
    send(account, 1)
    until(lambda: monitoring(account)["consumption_lag"], 0)
    metrics = account.http.get("/metrics").text
    for name in (
        "gateway_events_accepted_total",
        "pipeline_lag_offsets",
        "pipeline_lag_seconds",
        "pipeline_progress_known 1.0",
    ):
        assert name in metrics


async def test_all_that_came_by_every_way_is_accounted_for(account: Tallylog) -> None:
    """HTTP, Kafka, the log of re-sent events; good, repeated, unknown and unreadable ones."""
    name = "conserved.late"
    repeated = {"event_name": name, "external_customer_id": "c", "event_id": uuid4().hex}
    answer = account.http.post("/v1/events/bulk", json={"events": [repeated, repeated]})
    assert answer.status_code == 202
    producer = AIOKafkaProducer(bootstrap_servers=account.kafka)
    await producer.start()
    for value in (json.dumps([repeated, {"event_name": ""}]), "no JSON"):
        await producer.send_and_wait(f"events.{account.account}", value.encode())
    await producer.stop()
    until(lambda: account.verdicts(name), {"unknown_event_name": 1, "duplicate": 2})
    account.create_feature(name, "COUNT")
    until(lambda: account.verdicts(name), {"counted": 1, "duplicate": 2})
    sent = datetime.now(UTC)

    def conserved() -> bool:
        found = monitoring(account)["conservation"]
        compared = found["until"] is not None and datetime.fromisoformat(found["until"]) > sent
        assert not compared or (found["gap_events"], found["gap_rows"]) == (0, 0)
        return compared

    until(conserved, True)
    metrics = account.http.get("/metrics").text
    for topic in ("gateway-events", f"events.{account.account}", "resent"):
        assert f'pipeline_conservation_gap_events{{topic="{topic}"}} 0.0' in metrics
        assert f'pipeline_source_events{{topic="{topic}"}}' in metrics
    assert "\npipeline_conservation_gap_rows 0.0" in metrics


def test_workers_show_flushes_rebalances_outcomes_and_delays(account: Tallylog) -> None:
    def delays() -> float:
        found = re.search(
            r"^counter_ingest_delay_seconds_count (\S+)$", metrics_of(account, "counter"), re.M
        )
        assert found is not None
        return float(found.group(1))

    before = delays()
    send(account, 7)
    until(lambda: delays() >= before + 7, True)
    counter = metrics_of(account, "counter")
    for name in ("counter_block_rows_bucket", "counter_rebalances_total", "counter_rows_total{"):
        assert f"\n{name}" in counter
    packer = metrics_of(account, "packer")
    for name in ("packer_flush_rows_bucket", "packer_flush_seconds_sum", "packer_rebalances_total"):
        assert f"\n{name}" in packer


@pytest.mark.parametrize(
    ("params", "pointer"),
    [({"window_size": "DECADE"}, "/window_size"), ({"nonsense": "1"}, "/nonsense")],
)
def test_a_bad_question_is_400(account: Tallylog, params: dict[str, str], pointer: str) -> None:
    answer = account.http.get("/v1/events/monitoring", params=params)
    assert answer.status_code == 400
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]
