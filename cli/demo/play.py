"""The demo: set up, send by all routes, wait until all of it is stored, compare."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from clickhouse_connect.driver import AsyncClient
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from cli.demo.api import Api, DemoFailed, bulk
from cli.demo.meters import Metered, features, usage
from cli.demo.outcome import REFUSED, Count, Outcome, Quantity, dead_letter_counts, verdict_counts
from cli.demo.scenario import (
    ARCHIVED,
    KNOWN,
    UNKNOWN,
    Native,
    Refused,
    Report,
    Scenario,
    compose,
    in_ms,
)
from cli.up import Ready
from clickhouse.client import connect_async
from clickhouse.queries import query
from local_stack.children import Children
from local_stack.errors import Interrupted
from schemas.topics import NATIVE_PREFIX

RUN_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
PARTITIONS = 3
POLL_S = 0.1
PATIENCE_S = 20.0
"""How long the numbers may stand still before what is missing is called missing."""

Place = tuple[int, int, int]
"""Partition, offset and index of an event in its topic."""

T = TypeVar("T")


async def play(ready: Ready, console: Console) -> Outcome:
    """Play the demo against a running Tallylog. Raises DemoFailed when it can't go on."""
    run = "".join(secrets.choice(RUN_ALPHABET) for _ in range(4))
    store = await connect_async(ready.clickhouse_url)
    try:
        async with Api(ready.base_url, ready.api_key) as api:
            return await _Play(run, ready, api, store, console).run()
    finally:
        await store.close()


async def unless_stopped(work: Coroutine[Any, Any, T], children: Children) -> T:
    """Do some work, and give it up when a signal asks to stop. Raises Interrupted then."""
    working = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(children.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Interrupted("interrupted while the demo was playing")
        return await working
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)


class _Play:
    """One run; its customers and its late feature carry its name."""

    def __init__(
        self, name: str, ready: Ready, api: Api, store: AsyncClient, console: Console
    ) -> None:
        self.name, self.ready, self.api, self.store = name, ready, api, store
        self.topic = f"{NATIVE_PREFIX}{ready.account}"
        self.since = datetime.now(UTC) - timedelta(seconds=1)
        self.features = features(name)
        self.meters: dict[str, str] = {}  # ids by event name
        self.written: set[tuple[int, int]] = set()  # partitions and offsets of our own records
        self.dead: dict[Place, str] = {}  # where dead letters have to be
        self.refused = 0
        self.progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<32}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )

    async def run(self) -> Outcome:
        with self.progress:
            ids = await self._set_up()
            scenario = compose(self.name, datetime.now(UTC), self.features, ids)
            began = time.monotonic()
            await self._send(scenario)
            sent = time.monotonic()
            await self._stored(scenario)
            stored = time.monotonic()
            await self._late(scenario)
            quantities = await self._quantities(scenario)
            lines = await self._counts(scenario)
        return Outcome(
            self.name,
            quantities,
            lines,
            sent={
                "http": len(scenario.singles),
                "http_bulk": sum(map(len, scenario.bulks)) + len(scenario.changed),
                "kafka": sum(len(each.reports) + len(each.dead) for each in scenario.natives),
            },
            seconds={"sending": sent - began, "storing": stored - sent},
        )

    async def _set_up(self) -> dict[str, str]:
        """Create topic, features and customers; our ids of the customers, by theirs."""
        early = [feature for feature in self.features if not feature.late]
        task = self.progress.add_task("Features and customers", total=len(early) + len(KNOWN) + 1)
        admin = AIOKafkaAdminClient(bootstrap_servers=self.ready.kafka)
        await admin.start()
        try:
            await admin.create_topics(
                [NewTopic(self.topic, PARTITIONS, -1, {})]
            )  # no harm if it is there
        finally:
            await admin.close()
        for feature in early:
            self.meters[feature.event_name] = await self.api.feature(feature)
            self.progress.advance(task)
        ids = {}
        for name in (*KNOWN, ARCHIVED):
            external_id = f"{name}-{self.name}"
            ids[external_id] = await self.api.create_customer(external_id, name.capitalize())
            self.progress.advance(task)
        await self.api.archive_customer(ids.pop(f"{ARCHIVED}-{self.name}"))
        return ids

    async def _send(self, scenario: Scenario) -> None:
        """Send all that need not wait, by every route at once."""

        async def refuse(wrong: Refused) -> int:
            refused = await self.api.send(wrong.path, wrong.body) == 400
            self.refused += refused
            return 1

        async def single(report: Report) -> int:
            await self._accept("/v1/events", report.text)
            return 1

        bulks = sum(map(len, scenario.bulks))
        await asyncio.gather(
            self._natives(scenario.natives),
            self._each("HTTP, one event a request", scenario.singles, single, lanes=24),
            self._each("HTTP, bulk", scenario.bulks, self._bulk, bulks),
            self._each("HTTP, requests to be refused", scenario.refused, refuse),
        )

    async def _bulk(self, reports: list[Report]) -> int:
        await self._accept("/v1/events/bulk", bulk([report.text for report in reports]))
        return len(reports)

    async def _accept(self, path: str, body: bytes) -> None:
        status = await self.api.send(path, body)
        if status != 202:
            raise DemoFailed(f"POST {path} was answered with {status}: {body[:200]!r}")

    async def _each(
        self,
        title: str,
        items: Iterable[T],
        send: Callable[[T], Awaitable[int]],
        total: int | None = None,
        lanes: int = 4,
    ) -> None:
        """Send items over a few connections at once; `send` says how many events it was."""
        waiting = list(items)
        task = self.progress.add_task(title, total=len(waiting) if total is None else total)
        left = iter(waiting)

        async def lane() -> None:
            for item in left:
                self.progress.advance(task, await send(item))

        await asyncio.gather(*(lane() for _ in range(lanes)))

    async def _natives(self, natives: Iterable[Native]) -> None:
        """Write records straight into the account's topic, as any Kafka producer does."""
        records = list(natives)
        total = sum(len(each.reports) + len(each.dead) for each in records)
        task = self.progress.add_task("Kafka", total=total)
        async with AIOKafkaProducer(
            bootstrap_servers=self.ready.kafka, acks="all", enable_idempotence=True
        ) as producer:
            for some in (records[at : at + 100] for at in range(0, len(records), 100)):
                sends = [await producer.send(self.topic, each.value, each.key) for each in some]
                for native, written in zip(some, await asyncio.gather(*sends), strict=True):
                    place = written.partition, written.offset
                    self.written.add(place)
                    self.dead |= {(*place, index): why for index, why in native.dead.items()}
                    self.progress.advance(task, len(native.reports) + len(native.dead))

    async def _stored(self, scenario: Scenario) -> None:
        """Wait until every event and dead letter has its row."""
        wanted = len(list(scenario.reports)) - len(scenario.changed) + len(self.dead)

        async def stored() -> int:
            return sum((await self._verdicts()).values()) + len(await self._dead_letters())

        await self._until("Stored, with a verdict each", stored, wanted)

    async def _late(self, scenario: Scenario) -> None:
        """What comes later: ids with changed content, and a feature whose events are here."""
        await self._bulk(list(scenario.changed))
        late = [feature for feature in self.features if feature.late]
        for feature in late:
            self.meters[feature.event_name] = await self.api.feature(feature)
        names = {feature.event_name for feature in late}
        reports = [each for each in scenario.reports if each.use and each.feature in late]
        verdicts = scenario.verdicts()

        async def counted() -> int:
            found = await self._verdicts(names)
            return sum(count for (verdict, _), count in found.items() if verdict == "counted")

        await self._until("Events of before their feature", counted, len(reports))

        async def settled() -> int:
            found = await self._verdicts()
            return sum((found & verdicts).values())

        await self._until("Repeats with other content", settled, sum(verdicts.values()))

    async def _until(self, title: str, look: Callable[[], Awaitable[int]], wanted: int) -> None:
        """Look until a number is reached, or stands still for too long: the table then says so."""
        task = self.progress.add_task(title, total=wanted)
        moved, last = time.monotonic(), -1
        while (now := await look()) < wanted and time.monotonic() - moved < PATIENCE_S:
            if now != last:
                moved, last = time.monotonic(), now
            self.progress.update(task, completed=now)
            await asyncio.sleep(POLL_S)
        self.progress.update(task, completed=now)

    async def _verdicts(self, names: Iterable[str] = ()) -> Counter[tuple[str, str]]:
        """How many events of this run have which (verdict, warnings), for some names or for all."""
        answer = await self.store.query(
            query("verdicts_of_customers"),
            {"account": self.ready.account, "suffix": f"-{self.name}", "names": list(names)},
        )
        return Counter({(verdict, warnings): n for verdict, warnings, n in answer.result_rows})

    async def _dead_letters(self) -> dict[Place, str]:
        """The dead letters of this run's records, by place."""
        answer = await self.store.query(
            query("dead_letters_since"),
            {
                "account": self.ready.account,
                "topic": self.topic,
                "since": int(self.since.timestamp() * 1000),
            },
        )
        return {
            (partition, offset, index): reason
            for partition, offset, index, reason in answer.result_rows
            if (partition, offset) in self.written
        }

    async def _quantities(self, scenario: Scenario) -> list[Quantity]:
        """Ask the API for the usage of every feature by every customer that used it."""
        uses = scenario.uses()
        start, end = in_ms(scenario.start), in_ms(scenario.end)
        asked = [
            (feature, f"{name}-{self.name}")
            for feature in self.features
            for name in (*KNOWN, UNKNOWN, ARCHIVED)
            if (feature.event_name, f"{name}-{self.name}") in uses
        ]
        answers: dict[tuple[Metered, str], Decimal | None] = {}

        async def ask(what: tuple[Metered, str]) -> int:
            feature, customer = what
            meter = self.meters[feature.event_name]
            answers[what] = await self.api.usage(meter, customer, scenario.start, scenario.end)
            return 1

        await self._each("Usage, asked over HTTP", asked, ask)
        return [
            Quantity(
                feature,
                customer,
                usage(feature, uses[feature.event_name, customer], start, end),
                answers[feature, customer],
            )
            for feature, customer in asked
        ]

    async def _counts(self, scenario: Scenario) -> list[Count]:
        """How many events, warnings, dead letters and refusals there are of each kind."""
        return [
            *verdict_counts(scenario.verdicts(), await self._verdicts()),
            *dead_letter_counts(self.dead, await self._dead_letters()),
            Count("Refused over HTTP", "400", len(scenario.refused), self.refused, REFUSED),
        ]
