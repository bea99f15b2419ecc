"""Late events: each is counted once when its feature comes, whatever happens meanwhile."""

import json
import threading
import time
from decimal import Decimal
from typing import Any

import httpx
import psutil
import pytest
from aiokafka import AIOKafkaProducer

from tests.e2e.running import Tallylog, client, until

CUSTOMER = "late_cust"


def events_of(name: str, numbers: range) -> list[dict[str, Any]]:
    return [
        {
            "event_id": f"{name}-{number}",
            "event_name": name,
            "external_customer_id": CUSTOMER,
            "properties": {"v": "0.5" if number % 2 else 1},
        }
        for number in numbers
    ]


def send(tallylog: Tallylog, events: list[dict[str, Any]]) -> None:
    for at in range(0, len(events), 1000):
        answer = tallylog.http.post("/v1/events/bulk", json={"events": events[at : at + 1000]})
        assert answer.status_code == 202, answer.text


def create(tallylog: Tallylog, name: str) -> dict[str, Any]:
    meter = {"event_name": name, "aggregation": {"type": "SUM", "field": "v"}}
    answer = tallylog.http.post("/v1/features", json={"name": name, "meter": meter})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def progress(tallylog: Tallylog, feature: dict[str, Any]) -> dict[str, Any]:
    answer = tallylog.http.get(f"/v1/features/{feature['id']}/sweep")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def check(tallylog: Tallylog, feature: dict[str, Any], count: int, timeout_s: float = 60) -> None:
    """Every id is counted once, no row is left unmatched, and the usage is right."""
    name = feature["meter"]["event_name"]
    until(lambda: tallylog.verdicts(name).get("counted", 0), count, timeout_s)
    until(lambda: progress(tallylog, feature)["done"], True, timeout_s)
    verdicts = tallylog.verdicts(name)
    assert set(verdicts) <= {"counted", "duplicate"}
    [(rows, ids)] = tallylog.rows(
        "SELECT count(), uniqExact(event_id) FROM events"
        " WHERE event_name = {name:String} AND verdict = 'counted'",
        name=name,
    )
    assert (rows, ids) == (count, count)
    wanted = (count + 1) // 2 + Decimal("0.5") * (count // 2)
    assert tallylog.usage(feature["meter_id"], CUSTOMER) == wanted


def stored(tallylog: Tallylog, name: str, count: int) -> None:
    until(lambda: sum(tallylog.verdicts(name).values()), count)


def test_50_000_late_events_are_counted_once_and_their_duplicates_stay_duplicates(
    tallylog: Tallylog,
) -> None:
    send(tallylog, events_of("late.many", range(50_000)) + events_of("late.many", range(1_000)))
    stored(tallylog, "late.many", 51_000)
    feature = create(tallylog, "late.many")
    check(tallylog, feature, 50_000)
    assert tallylog.verdicts("late.many") == {"counted": 50_000, "duplicate": 1_000}
    assert progress(tallylog, feature) == {"pending": 0, "resent": 50_000, "done": True}


def test_a_feature_that_comes_while_events_are_in_flight_gets_all_of_them(
    tallylog: Tallylog,
) -> None:
    """Some are packed before it, some stored after the first look, some are on time."""

    def produce() -> None:
        with client(tallylog.base_url, tallylog.api_key) as http:
            for at in range(0, 6_000, 100):
                body = {"events": events_of("late.flying", range(at, at + 100))}
                assert http.post("/v1/events/bulk", json=body).status_code == 202

    producer = threading.Thread(target=produce)
    producer.start()
    time.sleep(0.3)
    feature = create(tallylog, "late.flying")
    producer.join()
    check(tallylog, feature, 6_000)


def test_events_of_an_archived_feature_are_counted_when_it_is_back(tallylog: Tallylog) -> None:
    feature = create(tallylog, "late.archived")
    url = f"/v1/features/{feature['id']}"
    send(tallylog, events_of("late.archived", range(100)))
    stored(tallylog, "late.archived", 100)
    assert tallylog.http.delete(url).status_code == 200
    send(tallylog, events_of("late.archived", range(50, 3_000)))
    stored(tallylog, "late.archived", 3_050)
    assert tallylog.verdicts("late.archived")["feature_archived"] == 2_900
    assert progress(tallylog, feature) == {"pending": 2_900, "resent": 0, "done": True}
    assert tallylog.http.put(url, json={"status": "published"}).status_code == 200
    check(tallylog, feature, 3_000)


def test_a_feature_archived_in_the_middle_of_the_sweep_and_back_loses_nothing(
    tallylog: Tallylog,
) -> None:
    send(tallylog, events_of("late.waver", range(5_000)))
    stored(tallylog, "late.waver", 5_000)
    feature = create(tallylog, "late.waver")
    url = f"/v1/features/{feature['id']}"
    for _ in range(3):
        time.sleep(0.4)
        assert tallylog.http.delete(url).status_code == 200
        assert tallylog.http.put(url, json={"status": "published"}).status_code == 200
    check(tallylog, feature, 5_000)


def test_two_names_are_swept_side_by_side(tallylog: Tallylog) -> None:
    names = ["late.one", 'late "two" \\ é']
    for name in names:
        send(tallylog, events_of(name, range(2_000)))
        stored(tallylog, name, 2_000)
    for feature in [create(tallylog, name) for name in names]:
        check(tallylog, feature, 2_000)


async def test_a_late_event_far_in_the_future_is_settled_too(tallylog: Tallylog) -> None:
    """Kafka brings any timestamp; the sweep's way through the table passes it."""
    name = "late.future"
    events = events_of(name, range(4))
    events[1]["timestamp"] = "9999-12-31T23:59:59.999Z"
    events[2]["timestamp"] = "1970-01-01T00:00:00Z"
    producer = AIOKafkaProducer(bootstrap_servers=tallylog.kafka)
    await producer.start()
    await producer.send_and_wait(f"events.{tallylog.account}", json.dumps(events).encode())
    await producer.stop()
    stored(tallylog, name, 4)
    feature = create(tallylog, name)
    until(lambda: tallylog.verdicts(name), {"counted": 3, "out_of_range": 1})
    until(lambda: progress(tallylog, feature), {"pending": 0, "resent": 4, "done": True})


def test_a_sweep_killed_in_the_middle_is_taken_up_again(tallylog: Tallylog) -> None:
    send(tallylog, events_of("late.killed", range(25_000)))
    stored(tallylog, "late.killed", 25_000)
    feature = create(tallylog, "late.killed")
    deadline = time.monotonic() + 30
    while not progress(tallylog, feature)["resent"]:
        assert time.monotonic() < deadline
    port = tallylog.base_url.rpartition(":")[2]
    servers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"serve", port} <= set(process.info["cmdline"] or [])
    ]
    assert servers
    for server in servers:
        server.kill()
    until(lambda: _is_ready(tallylog), True)
    check(tallylog, feature, 25_000)


def _is_ready(tallylog: Tallylog) -> bool:
    try:
        return tallylog.http.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_progress_of_what_is_no_feature_is_404(tallylog: Tallylog) -> None:
    assert tallylog.http.get("/v1/features/feat_none/sweep").status_code == 404


@pytest.mark.parametrize("name", ["sweep_pending", "sweep_resent_total"])
def test_progress_shows_in_the_metrics(tallylog: Tallylog, name: str) -> None:
    assert f"\n{name} " in tallylog.http.get("/metrics").text
