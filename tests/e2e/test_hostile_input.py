"""Every row of the table of hostile input, over HTTP and over Kafka: one answer, and no harm.

All rows are sent first, then waited for once, then looked at one by one.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import msgspec
import psutil
import pytest
from aiokafka import AIOKafkaProducer

from tests.e2e.running import Tallylog, until
from tests.hostile import (
    BODIES,
    ENCODED,
    EVENTS,
    GOOD,
    NAME,
    RECORDS,
    Body,
    Encoded,
    Event,
    Record,
    Refused,
)

BYTES_MAX = 16 << 20
WAIT_S = 60.0
MEMORY_BYTES = 512 << 20
"""What any process of ours may take more at its peak than it had before."""
FLIGHT_BYTES = 32 << 20
Place = tuple[str, int, int]
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Row(NamedTuple):
    """What is stored of one event or dead letter; `content` is the hash of its bytes."""

    account: str
    topic: str
    partition: int
    offset: int
    at: int
    verdict: str
    event_name: str
    external_customer_id: str
    timestamp: int
    event_id: str
    source: str
    detail: str
    warnings: str
    value: Decimal
    content: str

    @property
    def place(self) -> Place:
        """The record that it comes from."""
        return self.topic, self.partition, self.offset


ROWS = """
SELECT account, log_topic, log_partition, log_offset, log_index, verdict, event_name,
    external_customer_id, toUnixTimestamp64Milli(timestamp), event_id, source, detail,
    warnings, value, hex(SHA256(properties))
FROM events WHERE account IN {accounts:Array(String)}
ORDER BY log_topic, log_partition, log_offset, log_index
"""


@dataclass
class Sent:
    """What was answered to each row, and what is stored of it."""

    alone: dict[str, httpx.Response]
    bulk: dict[str, httpx.Response]
    bodies: dict[tuple[str, bool], httpx.Response]
    encoded: dict[str, httpx.Response]
    places: dict[tuple[str, str], Place]
    rows: dict[Place, list[Row]]
    by_id: dict[tuple[str, str], Row]
    memory: dict[str, int]


class Memory:
    """Memory of every process of a Tallylog, but for Java's, whose heap is bounded from outside."""

    def __init__(self, tallylog: Tallylog) -> None:
        [self.up] = [
            each
            for each in psutil.process_iter(["cmdline"])
            if "up" in (each.info["cmdline"] or []) and tallylog.data_dir in each.info["cmdline"]
        ]
        self.before = {each: each.memory_info().rss for each in self._processes()}

    def growth(self) -> dict[str, int]:
        """How much more each had at its peak, by command."""
        peaks: dict[str, int] = {}
        for process, before in self.before.items():
            with open(f"/proc/{process.pid}/status") as status:
                [peak] = [line for line in status if line.startswith("VmHWM")]
            name = " ".join(process.cmdline()[-2:]) + f" ({process.pid})"
            peaks[name] = int(peak.split()[1]) * 1024 - before
        return peaks

    def _processes(self) -> list[psutil.Process]:
        found = [self.up, *self.up.children(recursive=True)]
        return [each for each in found if "java" not in each.name()]


def between(name: str, text: bytes) -> bytes:
    """A text between two good events."""
    before, after = (GOOD[:-1] + b',"event_id":"%s-%s"}' % (name.encode(), end) for end in ENDS)
    return b'{"events":[%s,%s,%s]}' % (before, text, after)


ENDS = (b"before", b"after")
BEHIND = GOOD[:-1] + b',"event_id":"behind"}'


async def write(bootstrap: str, records: Sequence[tuple[str, str, Record]]) -> list[Place]:
    """Write (account, name, record), all before any is waited for, within some bytes on the way."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", max_request_size=BYTES_MAX, max_batch_size=1 << 20
    )
    places: list[Place] = []
    flight: list[Any] = []
    size = 0
    async with producer:
        for account, _, record in records:
            flight.append(
                await producer.send(
                    f"events.{account}", record.value, record.key, headers=list(record.headers)
                )
            )
            size += len(record.value or b"")
            if size > FLIGHT_BYTES:
                await asyncio.gather(*flight)
                size = 0
        for each in await asyncio.gather(*flight):
            places.append((each.topic, each.partition, each.offset))
    return places


KAFKA = {
    "alone": [Record(each.name, each.text) for each in EVENTS],
    "between": [Record(each.name, between(each.name, each.text)) for each in EVENTS],
    "bodies": [Record(each.name, each.text) for each in BODIES],
    "records": list(RECORDS),
}


@pytest.fixture(scope="module")
def sent(tallylog: Tallylog) -> Iterator[Sent]:
    """Everything sent, and all that is stored of it."""
    mark = uuid4().hex[:6]
    memory = Memory(tallylog)
    with contextlib.ExitStack() as stack:
        accounts = {}
        for name in ("http", "bulk", *KAFKA):
            own = stack.enter_context(tallylog.as_account(f"hostile-{name}-{mark}"))
            own.create_feature(NAME, "SUM", "v")
            accounts[name] = own
        http, bulk = accounts["http"].http, accounts["bulk"].http
        records = [
            (accounts[kind].account, kind, record)
            for kind, each in KAFKA.items()
            for record in [*each, Record("behind", BEHIND)]
        ]
        places = asyncio.run(write(tallylog.kafka, records))
        alone = {each.name: post(http, each.text) for each in EVENTS}
        bulks = {e.name: post(bulk, between(e.name, e.text), bulk=True) for e in EVENTS}
        bodies = {
            (each.name, is_bulk): post(http, each.text, bulk=is_bulk)
            for each in BODIES
            for is_bulk in (False, True)
        }
        encoded = {each.name: post(http, each.body, encoding=each.encoding) for each in ENCODED}
        assert post(http, BEHIND).status_code == post(bulk, BEHIND).status_code == 202
        ids = [each.account for each in accounts.values()]
        _wait(tallylog, ids)
        found = [Row(*row) for row in tallylog.rows(ROWS, accounts=ids)]
        by_place: dict[Place, list[Row]] = {}
        for row in found:
            by_place.setdefault(row.place, []).append(row)
        names = {own.account: name for name, own in accounts.items()}
        yield Sent(
            alone,
            bulks,
            bodies,
            encoded,
            {(k, r.name): p for (_, k, r), p in zip(records, places, strict=True)},
            by_place,
            {(names[row.account], row.event_id): row for row in found},
            memory.growth(),
        )


def _wait(tallylog: Tallylog, accounts: list[str]) -> None:
    """Until what comes last is stored, in every partition: the tests say what is missing."""
    count = "SELECT count() FROM events WHERE account IN {accounts:Array(String)}"
    deadline, seen, since = time.monotonic() + WAIT_S, -1, 0.0
    while time.monotonic() < deadline:
        [(now,)] = tallylog.rows(count, accounts=accounts)
        if now != seen:
            seen, since = now, time.monotonic()
        elif now and time.monotonic() - since > 5:
            return
        time.sleep(0.2)


def post(
    http: httpx.Client, body: bytes, *, bulk: bool = False, encoding: str = ""
) -> httpx.Response:
    """Send a body to one of the two routes."""
    headers = {"Content-Type": "application/json"}
    if encoding:
        headers["Content-Encoding"] = encoding
    return http.post("/v1/events/bulk" if bulk else "/v1/events", content=body, headers=headers)


def refusal(answer: httpx.Response) -> Refused | None:
    """What an answer refuses; None for 202."""
    if answer.status_code == 202:
        return None
    told = answer.json()
    assert told["http_status_code"] == answer.status_code
    fault = told["errors"][0] if told["errors"] else {"code": told["code"], "pointer": ""}
    return Refused(fault["code"], fault["pointer"], answer.status_code)


def seen(event: Event, row: Row) -> None:
    """Compare the stored row of an event that was accepted."""
    properties = bytes(_fields.decode(event.text).get("properties", b"null"))
    wanted: dict[str, Any] = {"event_name": NAME, "external_customer_id": "c", "warnings": ""}
    wanted |= {"content": digest(b"" if properties == b"null" else properties)}
    wanted |= {"verdict": event.verdict} | dict(event.stored)
    if wanted["warnings"] == "" and event.verdict == "counted":
        wanted["warnings"] = "unknown_customer"
    elif event.verdict == "counted":
        wanted["warnings"] += ",unknown_customer"
    assert {name: getattr(row, name) for name in wanted} == wanted


def digest(content: bytes) -> str:
    return sha256(content).hexdigest().upper()


rows = pytest.mark.parametrize("row", EVENTS, ids=lambda row: row.name)


@rows
def test_an_event_over_http(row: Event, sent: Sent) -> None:
    answer = sent.alone[row.name]
    if row.code is None:
        assert answer.status_code == 202, answer.text
        seen(row, sent.by_id["http", answer.json()["event_id"]])
    else:
        pointer = f"/{row.field}" if row.field else ""
        assert refusal(answer) == Refused(row.code, pointer)


@rows
def test_an_event_in_a_bulk_over_http(row: Event, sent: Sent) -> None:
    answer = sent.bulk[row.name]
    place = f"{row.name}-before"
    if row.code is None:
        assert answer.status_code == 202, answer.text
        before, event, after = sent.rows[sent.by_id["bulk", place].place]
        assert (before.verdict, event.at, after.verdict) == ("counted", 1, "counted")
        seen(row, event)
    else:
        pointer = "" if row.whole else "/events/1" + (f"/{row.field}" if row.field else "")
        assert refusal(answer) == Refused(row.code, pointer)
        assert ("bulk", place) not in sent.by_id


@rows
def test_an_event_over_kafka(row: Event, sent: Sent) -> None:
    [event] = sent.rows[sent.places["alone", row.name]]
    if row.code is None or row.http:
        seen(row, event)
    else:
        assert (event.verdict, event.detail.split()[0].rstrip(":")) == ("dead_letter", row.code)
        assert (event.at, event.content) == (0, digest(row.text))


@rows
def test_an_event_between_good_ones_over_kafka(row: Event, sent: Sent) -> None:
    found = sent.rows[sent.places["between", row.name]]
    if row.whole:
        [whole] = found
        assert (whole.verdict, whole.detail.split()[0].rstrip(":")) == ("dead_letter", row.code)
        assert (whole.at, whole.content) == (0, digest(between(row.name, row.text)))
        return
    before, event, after = found
    assert (before.verdict, before.at) == ("counted", 0)
    assert (after.verdict, after.at) == ("counted", 2)
    if row.code is None or row.http:
        seen(row, event)
    else:
        assert (event.verdict, event.detail.split()[0].rstrip(":")) == ("dead_letter", row.code)
        assert (event.at, event.content) == (1, digest(row.text))


@pytest.mark.parametrize("row", BODIES, ids=lambda row: row.name)
def test_a_body_over_http(row: Body, sent: Sent) -> None:
    assert refusal(sent.bodies[row.name, False]) == row.single
    assert refusal(sent.bodies[row.name, True]) == row.bulk


@pytest.mark.parametrize("row", ENCODED, ids=lambda row: row.name)
def test_an_encoded_body_over_http(row: Encoded, sent: Sent) -> None:
    assert refusal(sent.encoded[row.name]) == row.answer


@pytest.mark.parametrize("row", BODIES, ids=lambda row: row.name)
def test_a_body_over_kafka(row: Body, sent: Sent) -> None:
    compare(row, row.text, sent.rows[sent.places["bodies", row.name]])


@pytest.mark.parametrize("row", RECORDS, ids=lambda row: row.name)
def test_a_record_that_only_kafka_can_carry(row: Record, sent: Sent) -> None:
    compare(row, row.value or b"", sent.rows[sent.places["records", row.name]])


def compare(row: Body | Record, value: bytes, found: list[Row]) -> None:
    """A record's dead letters and counted events; a letter of a whole record has all its bytes."""
    dead = [each for each in found if each.verdict == "dead_letter"]
    assert [(each.at, each.detail.split()[0].rstrip(":")) for each in dead] == list(row.dead)
    if len(dead) == len(found) == 1 and not value.lstrip().startswith((b"[[", b'{"events":[')):
        assert dead[0].content == digest(value)
    assert sum(each.verdict == "counted" for each in found) == row.counted
    account = found[0].topic.removeprefix("events.")
    assert {each.account for each in found} == {account}


def test_nothing_was_held_up_and_nothing_is_missing(tallylog: Tallylog, sent: Sent) -> None:
    for kind in ("http", "bulk", *KAFKA):
        assert sent.by_id[kind, "behind"].verdict == "counted"
    every = [*sent.alone.values(), *sent.bulk.values()]
    every += [*sent.bodies.values(), *sent.encoded.values()]
    assert {answer.status_code for answer in every} == {202, 400, 413, 415}

    begun = datetime.now(UTC)

    def gaps() -> set[str] | None:
        found = tallylog.http.get("/v1/events/monitoring").json()["conservation"]
        if found["until"] is None or datetime.fromisoformat(found["until"]) < begun:
            return None
        lines = tallylog.http.get("/metrics").text.splitlines()
        return {each.split()[-1] for each in lines if each.startswith("pipeline_conservation_gap")}

    wanted: set[str] | None = {"0.0"}
    until(gaps, wanted, WAIT_S)


def test_memory_stays_bounded(sent: Sent) -> None:
    assert {name: size >> 20 for name, size in sent.memory.items() if size > MEMORY_BYTES} == {}
