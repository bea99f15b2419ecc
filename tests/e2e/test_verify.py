"""`tallylog verify` on a Tallylog that counts: it finds damage, and mends it meanwhile."""

import json
import os
import subprocess
import sys
import threading
import time
from decimal import Decimal
from typing import Any

from tests.e2e.running import Tallylog, client, until

EVENTS = 300


def verify(tallylog: Tallylog, *options: str) -> tuple[int, dict[str, Any]]:
    """Its exit status, and what it found."""
    run = subprocess.run(
        [sys.executable, "-m", "cli.main", "verify", "--json", *options],
        env=os.environ
        | {
            "TALLYLOG_KAFKA": tallylog.kafka,
            "TALLYLOG_CLICKHOUSE_URL": tallylog.clickhouse_url,
            "TALLYLOG_DATA_DIR": tallylog.data_dir,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stdout, run.stderr
    return run.returncode, json.loads(run.stdout)


def send(tallylog: Tallylog, name: str, numbers: range) -> None:
    events = [
        {
            "event_id": f"{name}-{number}",
            "event_name": name,
            "external_customer_id": f"{name}-{number % 3}",
            "properties": {"v": number},
        }
        for number in numbers
    ]
    with client(tallylog.base_url, tallylog.api_key) as http:
        answer = http.post("/v1/events/bulk", json={"events": events})
    assert answer.status_code == 202, answer.text


def test_damage_is_found_and_mended_while_events_go_on(tallylog: Tallylog) -> None:
    name = "verify.damage"
    meter = tallylog.create_feature(name, "SUM", "v")
    send(tallylog, name, range(EVENTS))
    until(lambda: tallylog.verdicts(name), {"counted": EVENTS}, 30)
    status, found = verify(tallylog)
    assert (status, found["whole"], found["trouble"]) == (0, True, None)
    assert found["conservation"]["rows"] == 0
    assert not any(found["conservation"]["events"].values())

    feature = tallylog.rows(
        "SELECT any(feature_id) FROM events WHERE event_name = {name:String}", name=name
    )[0][0]
    tallylog.store.command(
        "DELETE FROM usage_states WHERE feature_id = {feature:String}", {"feature": feature}
    )
    status, found = verify(tallylog)
    assert (status, found["whole"]) == (1, False)
    assert {each["feature_id"] for each in found["states"]} == {feature}

    stop, sent = threading.Event(), [EVENTS]

    def go_on() -> None:
        while not stop.is_set():
            send(tallylog, name, range(sent[0], sent[0] + 10))
            sent[0] += 10
            time.sleep(0.05)

    sender = threading.Thread(target=go_on)
    sender.start()
    try:
        status, found = verify(tallylog, "--repair")
    finally:
        stop.set()
        sender.join()
    assert (status, found["whole"]) == (0, True), found
    assert found["repaired"] >= 3
    until(lambda: tallylog.verdicts(name), {"counted": sent[0]}, 60)
    sums = [tallylog.usage(meter, f"{name}-{number}") for number in range(3)]
    assert sums == [Decimal(sum(range(number, sent[0], 3))) for number in range(3)]
    assert verify(tallylog)[0] == 0


def test_a_store_that_is_away_is_said(tallylog: Tallylog) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "cli.main", "verify"],
        env=os.environ
        | {
            "TALLYLOG_KAFKA": tallylog.kafka,
            "TALLYLOG_CLICKHOUSE_URL": "http://127.0.0.1:1/tallylog",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert "Could not verify" in run.stderr
