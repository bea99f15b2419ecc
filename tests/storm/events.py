"""What producers send in a storm: a function of the seed alone, so that a seed can be replayed."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from tests.e2e.test_oracle import text
from tests.oracle import Rule

CUSTOMERS = ("ada", "grace", "linus")
SPAN = timedelta(hours=6)
"""Events happened within so long before the storm."""
MOMENTS = 4096
"""Milliseconds from one event to the next: hardly two happen at the same moment."""
KINDS: dict[str, dict[str, Any]] = {
    "storm.count": {"aggregation": "COUNT"},
    "storm.sum": {"aggregation": "SUM", "field": "n"},
    "storm.avg": {"aggregation": "AVG", "field": "n"},
    "storm.unique": {"aggregation": "COUNT_UNIQUE", "field": "who"},
    "storm.latest": {"aggregation": "LATEST", "field": "n"},
    "storm.times": {
        "aggregation": "SUM_WITH_MULTIPLIER", "field": "n", "multiplier": Decimal("0.125"),
    },
    "storm.max": {"aggregation": "MAX", "field": "n"},
    "storm.buckets": {
        "aggregation": "MAX", "field": "n", "bucket_size": "15MIN", "group_by": "who",
    },
    "storm.weighted": {"aggregation": "WEIGHTED_SUM", "field": "n"},
    "storm.filtered": {"aggregation": "SUM", "field": "n", "filters": {"who": {"a", "7"}}},
    "storm.level": {"aggregation": "SUM", "field": "n", "reset": "NEVER"},
}  # fmt: skip
ROUNDS_BACK = 3
"""Ids of so many rounds are repeated."""
UNMATCHED = "storm.nobody"
NAMELESS = "storm.nameless"
"""Of events without an id; their feature sums `n`."""
LATE_EVERY = 3
"""In one of so many rounds a feature is created after events of its name were sent."""


def rules(account: str) -> list[Rule]:
    """The features of a storm."""
    named = [Rule(account, name, **kind) for name, kind in KINDS.items()]
    return [*named, Rule(account, NAMELESS, "SUM", "n")]


def late_rule(account: str, round_: int) -> Rule | None:
    """The feature that is created in the middle of a round, if one is."""
    late = round_ > 0 and round_ % LATE_EVERY == 1
    return Rule(account, f"storm.late.{round_}", "SUM", "n") if late else None


class Name(NamedTuple):
    """Which event: the `number`-th of a producer in a round. Says what it holds, by the seed."""

    round: int
    producer: int
    number: int

    def __str__(self) -> str:
        return f"r{self.round}-p{self.producer}-{self.number}"


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is sent, the same each time; `properties` hold numbers as Decimals."""

    name: Name
    event_name: str
    customer: str
    time: datetime
    properties: dict[str, Any]

    @property
    def fields(self) -> dict[str, Any]:
        """What is sent of it."""
        return {
            "event_id": str(self.name),
            "event_name": self.event_name,
            "external_customer_id": self.customer,
            "timestamp": self.time.isoformat(timespec="milliseconds"),
            "properties": self.properties,
        }


@dataclass(frozen=True, slots=True)
class Nameless:
    """An event without id and time. Its customer is named by our id of it, or by its own.

    `name` is among its properties alone, where it means nothing to Tallylog.
    """

    name: Name
    customer: str
    customer_id: str
    n: int

    @property
    def fields(self) -> dict[str, Any]:
        """What is sent of it."""
        whose = (
            {"customer_id": self.customer_id}
            if self.customer_id
            else {"external_customer_id": self.customer}
        )
        properties = {"serial": str(self.name), "n": self.n}
        return {"event_name": NAMELESS, **whose, "properties": properties}


@dataclass(frozen=True)
class World:
    """What every producer of a storm shares: its seed, and when it began.

    customer_ids  Our id of the customer of events without an id, by round, once it is created.
    """

    seed: int
    began: datetime
    customer_ids: dict[int, str] = field(default_factory=dict, compare=False)

    @property
    def start(self) -> datetime:
        """No event is older."""
        return self.began - SPAN

    def customer(self, round_: int, which: str) -> str:
        """A customer of one round: what is compared once stays as it is."""
        return f"{which}-{self.seed}-{round_}"

    def event(self, name: Name) -> Event:
        """The event of a name."""
        chance = random.Random(f"{self.seed}/{name}")
        late = late_rule("", name.round)
        late_names = [late.event_name] * 2 if late else []
        event_name = chance.choice([*KINDS, *KINDS, UNMATCHED, *late_names])
        moment = (name.number * 8 + name.producer) * MOMENTS + chance.randrange(MOMENTS)
        number = [Decimal(chance.randrange(-500, 5000)) / 100, chance.randrange(10**12), "2.50"]
        bad = ["two", None, True, 10**20]
        given = {
            "n": chance.choice(number if chance.random() < 0.93 else bad),
            "who": chance.choice(["a", "b", "", "7", 7]),
        }
        return Event(
            name,
            event_name,
            self.customer(name.round, chance.choice(CUSTOMERS)),
            self.start + timedelta(milliseconds=moment % (SPAN // timedelta(milliseconds=1))),
            {key: value for key, value in given.items() if chance.random() > 0.03},
        )

    def nameless(self, name: Name) -> Nameless:
        """The event without an id that has a name for us only."""
        chance = random.Random(f"{self.seed}/nameless/{name}")
        by_ours = chance.random() < 0.5
        return Nameless(
            name,
            self.customer(name.round, "nameless"),
            self.customer_ids.get(name.round, "") if by_ours else "",
            chance.randrange(1, 10**6),
        )


class Sent(NamedTuple):
    """One request or record: its events, the bytes of what it holds besides and can't be read."""

    events: list[Event]
    letters: list[bytes]
    body: bytes
    nameless: Sequence[Nameless] = ()


class Source:
    """The events of one producer in one round, in the order in which it sends them.

    producers  How many there are: ids are repeated by other producers, over other routes.
    settled    Whether an event of an earlier round is in: then it may come again.
    """

    def __init__(
        self,
        world: World,
        round_: int,
        producer: int,
        producers: int,
        settled: Callable[[Name], bool],
    ) -> None:
        self._world = world
        self._round = round_
        self._producer = producer
        self._producers = producers
        self._settled = settled
        self._chance = random.Random(f"{world.seed}/{round_}/{producer}")
        self._made = 0
        self._letters = 0

    def single(self) -> Sent:
        """One event, as it stands in a request or a record."""
        event = self._next()
        return Sent([event], [], text(event.fields))

    def bulk(self, least: int, most: int) -> Sent:
        """Some events under `events`."""
        events = [self._next() for _ in range(self._chance.randint(least, most))]
        return Sent(events, [], text({"events": [event.fields for event in events]}))

    def array(self, least: int, most: int) -> Sent:
        """Some events in an array; now and then one among them, or all of it, can't be read."""
        if self._chance.random() < 0.01:
            letter = self._letter(b'{"storm": "%s", ')
            return Sent([], [letter], letter)
        events = [self._next() for _ in range(self._chance.randint(least, most))]
        parts = [text(event.fields) for event in events]
        letters = []
        if self._chance.random() < 0.03:
            letters.append(self._letter(b'{"event_id":"%s","external_customer_id":"nobody"}'))
            parts.insert(self._chance.randrange(len(parts) + 1), letters[0])
        return Sent(events, letters, b"[" + b",".join(parts) + b"]")

    def nameless_bulk(self, least: int, most: int) -> Sent:
        """Some events without ids under `events`."""
        events = self._nameless(least, most)
        return Sent([], [], text({"events": [event.fields for event in events]}), events)

    def nameless_array(self, least: int, most: int) -> Sent:
        """Some events without ids in an array."""
        events = self._nameless(least, most)
        return Sent([], [], text([event.fields for event in events]), events)

    def _nameless(self, least: int, most: int) -> list[Nameless]:
        first, count = self._made, self._chance.randint(least, most)
        self._made += count
        names = (Name(self._round, self._producer, each) for each in range(first, first + count))
        return [self._world.nameless(name) for name in names]

    def _letter(self, form: bytes) -> bytes:
        self._letters += 1
        name = f"letter-{self._world.seed}-{self._round}-{self._producer}-{self._letters}"
        return form % name.encode()

    def _next(self) -> Event:
        chance, world = self._chance, self._world
        kind = chance.random()
        if kind < 0.06 and self._made:  # again, maybe in the same request
            again = Name(self._round, self._producer, chance.randrange(self._made))
        elif kind < 0.10 and self._made:  # another producer's, which may send it later
            again = Name(
                self._round, chance.randrange(self._producers), chance.randrange(self._made)
            )
        elif kind < 0.12 and self._settled(elder := self._elder()):
            again = elder
        else:
            again = Name(self._round, self._producer, self._made)
            self._made += 1
        return world.event(again)

    def _elder(self) -> Name:
        """An event of one of the last rounds."""
        chance = self._chance
        back = chance.randint(1, ROUNDS_BACK)
        return Name(self._round - back, chance.randrange(self._producers), chance.randrange(50))


def moments(world: World, seed: str, count: int) -> Iterator[tuple[datetime, datetime]]:
    """Ranges to ask usage of: all of it, then some that begin and end anywhere."""
    chance = random.Random(seed)
    yield world.start, world.began
    for _ in range(count):
        start = world.start + chance.random() * SPAN
        end = start + chance.random() * SPAN
        yield _to_ms(start), _to_ms(end + timedelta(milliseconds=1))


def _to_ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def now() -> datetime:
    """The present hour: where a storm's time ends."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
