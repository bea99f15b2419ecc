"""What could not be read, from Kafka to its replay: each counts once, whatever is repeated."""

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from tests.e2e.running import Tallylog, until

LETTERS = "/v1/events/dead-letters"


@pytest.fixture(scope="module")
def account(tallylog: Tallylog) -> Iterator[Tallylog]:
    """An account of its own: its dead letters are those of these tests."""
    with tallylog.as_account(f"letters-{uuid4().hex[:8]}") as own:
        yield own


def send(account: Tallylog, *values: bytes) -> None:
    async def write() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=account.kafka)
        await producer.start()
        for value in values:
            await producer.send_and_wait(f"events.{account.account}", value)
        await producer.stop()

    asyncio.run(write())


def letters(account: Tallylog, **params: Any) -> list[dict[str, Any]]:
    answer = account.http.get(LETTERS, params={"limit": 1000} | params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def bury(account: Tallylog, *values: bytes) -> list[str]:
    """Write records that can't be read; the ids of their dead letters."""
    before = {each["id"] for each in letters(account)}
    send(account, *values)
    until(lambda: len(letters(account)), len(before) + len(values))
    return [each["id"] for each in reversed(letters(account)) if each["id"] not in before]


def replay(account: Tallylog, status: int = 202, **wish: Any) -> dict[str, Any]:
    answer = account.http.post(f"{LETTERS}/replay", json=wish)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


def used(account: Tallylog, meter: str, wanted: str) -> None:
    """Wait until so much is counted."""
    quantity: Decimal | None = Decimal(wanted)
    until(lambda: account.usage(meter, "c"), quantity)


def statuses(answer: dict[str, Any]) -> list[str]:
    return [each["status"] for each in answer["items"]]


def event(name: str, n: Any, event_id: str | None = None) -> dict[str, Any]:
    sent = {"event_name": name, "external_customer_id": "c", "properties": {"n": n}}
    return sent if event_id is None else sent | {"event_id": event_id}


def feature(account: Tallylog) -> tuple[str, str]:
    """A new event name with a feature that sums n, and the feature's meter."""
    name = f"n.{uuid4().hex[:8]}"
    return name, account.create_feature(name, "SUM", "n")


def test_a_corrected_dead_letter_counts_once_however_often_it_is_replayed(
    account: Tallylog,
) -> None:
    name, meter = feature(account)
    broken = f'{{"event_name": "{name}", "external_customer_id": "c", "prop'.encode()
    [letter] = bury(account, broken)
    shown = account.http.get(f"{LETTERS}/{letter}").json()
    assert shown["code"] == "invalid_json"
    assert base64.b64decode(shown["base64"]) == broken
    assert (shown["text"], shown["bytes"]) == (broken.decode(), len(broken))
    assert shown["replay"] is None
    assert statuses(replay(account, ids=[letter])) == ["refused"]
    good = event(name, 1.25)
    first = replay(account, ids=[letter], content=good)
    assert (first["sent"], first["items"][0]["event_ids"]) == (1, [letter])
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda _: replay(account, ids=[letter], content=good), range(8)))
    assert {status for each in again for status in statuses(each)} <= {"sent", "counted_before"}
    used(account, meter, "1.25")
    assert statuses(replay(account, ids=[letter], content=good)) == ["counted_before"]
    assert statuses(replay(account, ids=[letter])) == ["counted_before"]
    other = replay(account, ids=[letter], content=event(name, 5, "another id"))
    assert other["items"][0]["code"] == "replayed_before"
    send(account, json.dumps(event(name, 1, "behind all")).encode())
    used(account, meter, "2.25")
    shown = account.http.get(f"{LETTERS}/{letter}").json()
    assert shown["replay"]["events"] == [{"id": letter, "verdict": "counted"}]
    assert shown["replay"]["corrected"] is True


def test_two_different_corrections_at_once_count_once(account: Tallylog) -> None:
    name, meter = feature(account)
    [letter] = bury(account, b"{")
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda n: replay(account, ids=[letter], content=event(name, 1, f"{name}-{n}")),
                range(8),
            )
        )
    sent = {each["items"][0]["event_ids"][0] for each in answers}
    assert len(sent) == 1
    used(account, meter, "1")
    send(account, json.dumps(event(name, 10, f"{name}-behind")).encode())
    used(account, meter, "11")


def test_many_are_replayed_by_a_filter_once_their_customer_is_named(account: Tallylog) -> None:
    name, meter = feature(account)
    lost = f"cust_{uuid4().hex}"
    sent = [
        {"event_name": name, "customer_id": lost, "properties": {"n": n}, "event_id": f"{name}-{n}"}
        for n in range(7)
    ]
    record = json.dumps({"events": [*sent, event(name, 100)]}).encode()
    send(account, record)
    wanted = {"code": "unknown_customer_id"}
    until(lambda: len(letters(account, **wanted)), 7)
    assert replay(account, filter=wanted)["refused"] == 7
    seen, after = 0, None
    while True:
        page = replay(account, filter=wanted, limit=3, after=after, customers={lost: "c"})
        seen += page["sent"]
        after = page.get("after")
        if not page["has_more"]:
            break
    assert seen == 7
    used(account, meter, "121")
    assert replay(account, filter=wanted)["counted_before"] == 7
    assert {each["replay"]["corrected"] for each in letters(account, **wanted)} == {True}
    send(account, json.dumps([each | {"external_customer_id": "c"} for each in sent]).encode())
    until(lambda: account.verdicts(name), {"counted": 8, "duplicate": 7})


def test_an_unreadable_record_is_replaced_by_several_events(account: Tallylog) -> None:
    name, meter = feature(account)
    [letter] = bury(account, b'{"events": [{"event_name"')
    content = {"events": [event(name, 1), event(name, 2), event(name, 4, f"{name}-own")]}
    for _ in range(2):
        replay(account, ids=[letter], content=content)
    used(account, meter, "7")
    shown = account.http.get(f"{LETTERS}/{letter}").json()
    ids = [f"{letter}-0", f"{letter}-1", f"{name}-own"]
    assert shown["replay"]["events"] == [{"id": each, "verdict": "counted"} for each in ids]


def test_a_replay_of_an_id_that_another_record_brought_is_a_duplicate(account: Tallylog) -> None:
    name, meter = feature(account)
    [letter] = bury(account, b"not json")
    send(account, json.dumps(event(name, 3, f"{name}-e")).encode())
    used(account, meter, "3")
    assert replay(account, ids=[letter], content=event(name, 3, f"{name}-e"))["sent"] == 1
    until(lambda: account.verdicts(name), {"counted": 1, "duplicate": 1})


def test_dead_letters_are_listed_by_code_and_time(account: Tallylog) -> None:
    [first, second] = bury(account, b"\xff\xfe", b"")
    shown = letters(account, code="invalid_utf8")[0]
    assert (shown["id"], shown["text"]) == (first, None)
    assert shown["position"]["offset"] == int(first.split("-")[-2])
    assert second in [each["id"] for each in letters(account, code="empty")]
    assert letters(account, start_time="2200-01-01T00:00:00Z") == []
    assert letters(account, topic="gateway-events") == []
    page = account.http.get(LETTERS, params={"limit": 1, "offset": 1}).json()
    assert len(page["items"]) == 1
    assert page["pagination"]["total"] == len(letters(account))


def test_only_ones_own_dead_letters_are_seen_and_replayed(
    account: Tallylog, tallylog: Tallylog
) -> None:
    [letter] = bury(account, b"{")
    assert tallylog.http.get(f"{LETTERS}/{letter}").status_code == 404
    told = replay(tallylog, 404, ids=[letter])
    assert told["details"]["ids"] == [letter]
    assert "can't be changed" in told["message"]
    assert letter not in [each["id"] for each in letters(tallylog)]


@pytest.mark.parametrize(
    ("wish", "pointer"),
    [
        ({}, "/ids"),
        ({"ids": ["a"], "filter": {}}, "/ids"),
        ({"ids": []}, "/ids"),
        ({"ids": ["a", "b"], "content": {}}, "/content"),
        ({"filter": {}, "limit": 501}, "/limit"),
        ({"ids": ["a"], "after": "b"}, "/after"),
        ({"filter": {"colour": "red"}}, "/filter/colour"),
    ],
)
def test_a_bad_replay_is_400_with_its_field(
    account: Tallylog, wish: dict[str, Any], pointer: str
) -> None:
    told = replay(account, 400, **wish)
    assert [each["pointer"] for each in told["errors"]] == [pointer]
