"""Faults and events are functions of the seed, and of every kind."""

import re
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from tests.oracle import Sent as Received
from tests.oracle import judge
from tests.storm.events import Event, Name, Source, World, rules
from tests.storm.parts import PARTS
from tests.storm.plan import FAILPOINTS, KINDS, plan

ROOT = Path(__file__).parents[2]
WORLD = World(7, datetime(2026, 11, 21, 12, tzinfo=UTC))


def sends(producer: int) -> list[Event]:
    source = Source(WORLD, 5, producer, 5, lambda _: True)
    return [event for _ in range(40) for event in source.array(3, 30).events]


def test_a_seed_gives_the_same_faults_again() -> None:
    first, again, other = (list(islice(plan(seed, KINDS, 4), 200)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_long_storm_has_every_kind_on_every_part_and_every_failpoint() -> None:
    faults = list(islice(plan(7, KINDS, 4), 300))
    assert {each.kind for each in faults} == set(KINDS)
    assert {each.name for each in faults if each.kind == "failpoint"} == set(FAILPOINTS)
    for kind in ("kill", "stop", "slow"):
        assert {each.part for each in faults if each.kind == kind} == set(PARTS), kind
    assert sum(len(each.killed) for each in faults) >= 200


def test_every_failpoint_of_the_product_is_known() -> None:
    found = {
        name
        for folder in ("ingest_gateway", "stream_workers", "console", "catalog", "local_stack")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r'failpoint\("([a-z_.]+)"\)', path.read_text())
    }
    assert found == set(FAILPOINTS)


def test_a_seed_gives_the_same_events_again() -> None:
    assert sends(1) == sends(1)
    assert sends(1) != sends(2)
    assert WORLD.event(Name(1, 2, 3)) == WORLD.event(Name(1, 2, 3))


def test_ids_are_repeated_within_and_across_producers_and_rounds() -> None:
    events = sends(1)
    names = [event.name for event in events]
    assert len(set(names)) < len(names)
    assert {name.producer for name in names} == set(range(5))
    assert {name.round for name in names} == {2, 3, 4, 5}


def test_what_is_sent_has_every_verdict() -> None:
    log = [
        Received("a", event.fields, WORLD.began, (0, index, 0))
        for index, event in enumerate(sends(1))
    ]
    assert {one.verdict for one in judge(log, rules("a"))} == {
        "counted",
        "duplicate",
        "unknown_event_name",
        "filtered",
        "missing_property",
        "wrong_type",
        "out_of_range",
    }
