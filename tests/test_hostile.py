"""The table of hostile input: told in the documents as it is, and read alike by both sides."""

import json
import random
from pathlib import Path

from ingest_gateway.intake import Edge, take
from schemas.catalog import Feature
from schemas.errors import InvalidRequest
from schemas.event import Flaw
from schemas.position import Log
from stream_workers.packing import Pool, Record
from tests import hostile
from tests.hostile import BATCHES, BODIES, CONNECTIONS, ENCODED, EVENTS, GOOD, RECORDS

ROOT = Path(__file__).parents[1]
NOW = 1_755_846_349_441
SPLICES = [  # what mutations put in
    *(b'{ } [ ] , : " \\ 0 1 - . e9 null true \xff \xed\xa0\x80 \\u0000 \\ud800'.split()),
    *b"NaN 1e999999".split(),
    *(b'"event_name" "events" "properties" "timestamp":5 "event_id":"" [[[[[[[[[[[[[[[['.split()),
    b'"properties":{"v":1}', b'"external_customer_id":null', b"{}" * 40, b"[" * 40,
    b" ", b"\n", b"\0",
    b'"timestamp":"2025-08-22"', b'"timestamp":"2999-01-01T00:00:00Z"', b'"customer_id":"x"',
]  # fmt: skip
TRIES = 3000


class Names:
    """A catalog without features, with one customer."""

    version = 1

    def feature_at(self, account: str, event_name: str, version: int) -> Feature | None:
        return None

    def customer_status(self, account: str, external_id: str, version: int) -> str:
        return "active"

    def external_id_of(self, account: str, customer_id: str) -> str | None:
        return "c" if customer_id == "ours" else None


def at_the_gateway(body: bytes, bulk: bool) -> "set[tuple[int, str]] | None":
    """Index and code of each fault of a request; None when it is accepted."""
    try:
        take(
            body,
            bulk=bulk,
            edge=Edge("acme", NOW, strict=False),
            names=Names(),
        )
    except InvalidRequest as refused:
        parts = [(fault.pointer.split("/"), fault.code) for fault in refused.errors]
        return {(int(at[2]) if len(at) > 2 and at[2].isdigit() else 0, code) for at, code in parts}
    return None


def at_the_packer(body: bytes) -> tuple[int, set[tuple[int, str]]]:
    """How many events a native record holds, and index and code of each of its dead letters."""
    pool = Pool()
    pool.add([Record(Log("events.acme", 0, 0), 0, "acme", NOW, body)], Names().external_id_of)
    letters = {(letter.position, letter.code) for _, letter in pool._dead}
    return len(pool) - len(letters), letters


def mutated(body: bytes, chance: random.Random) -> bytes:
    """A body with some of its bytes gone, doubled, swapped, or something odd put in."""
    for _ in range(chance.randint(1, 3)):
        at, to = sorted(chance.randrange(len(body) + 1) for _ in range(2))
        match chance.randrange(4):
            case 0:
                body = body[:at] + chance.choice(SPLICES) + body[at:]
            case 1:
                body = body[:at] + body[min(to, at + 8) :]
            case 2:
                body = body[:to] + body[at:to] + body[to:]
            case _:
                body = body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :]
    return body


SEEDS = [
    GOOD,
    json.dumps({"event_name": "a", "customer_id": "ours", "event_id": "e", "source": "s"}).encode(),
    b'{"events":[' + GOOD + b"," + GOOD + b"]}",
    b"[" + GOOD + b',{"event_name":"\\u0061","external_customer_id":"\xc3\xa9",'
    b'"properties":{"a":{"b":[1]}}}]',
    b'{"timestamp":"2025-08-22T07:05:49Z",' + GOOD[1:],
]  # fmt: skip


def disagreement(body: bytes) -> object:
    """What gateway and packer say, where it isn't the same; None where it is.

    A route takes one kind of body, Kafka both; only HTTP refuses a time in the future, and it
    looks customers up when nothing else is wrong.
    """
    counted, letters = at_the_packer(body)
    told = [at_the_gateway(body, bulk) for bulk in (False, True)]
    if None in told:
        return None if not letters else (told, counted, letters)
    known = [{each for each in one or () if each[1] != "timestamp_in_future"} for one in told]
    future = any(code == "timestamp_in_future" for one in told for _, code in one or ())
    rest = {each for each in letters if each[1] != "unknown_customer_id"}
    if letters in known or (rest and rest in known) or (future and not letters):
        return None
    return told, counted, letters


def test_gateway_and_packer_say_the_same_of_mutated_bodies() -> None:
    for number in range(TRIES):
        chance = random.Random(number)
        body = mutated(chance.choice(SEEDS), chance)
        assert disagreement(body) is None, (number, body)


def test_gateway_and_packer_say_the_same_of_the_table() -> None:
    for each in EVENTS:
        assert disagreement(each.text) is None, each.name


def test_names_of_rows_are_unique_and_codes_are_those_of_flaws() -> None:
    for rows in (EVENTS, BODIES, ENCODED, RECORDS, BATCHES):
        names = [row.name for row in rows]
        assert len(names) == len(set(names))
    assert len(EVENTS) > 250
    assert {each.field for each in EVENTS} <= {*Flaw.__struct_fields__, *NAMED}


NAMED = {
    "", "event_name", "external_customer_id", "customer_id", "event_id", "source", "timestamp",
    "properties",
}  # fmt: skip


def test_the_document_is_current() -> None:
    written = (ROOT / "docs/HOSTILE_INPUT.md").read_text()
    assert written == hostile.document(), "run: python -m tests.hostile > docs/HOSTILE_INPUT.md"


def test_the_tests_that_connections_name_exist() -> None:
    for _, _, test in CONNECTIONS:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(), test
