"""How long Tallylog takes to get over a fault, seen from outside."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import httpx
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from tests.e2e.running import Tallylog
from tests.storm.events import Event, Sent, Source, World
from tests.storm.journal import Journal
from tests.storm.load import MANNERS, Answer, Http, Native

REQUESTS = 4
PARTITIONS = 4
"""Of a topic that a native producer's first record makes."""
EVENTS = 8
POLL_S = 0.05
SLOW_S = 15.0
GIVE_UP_S = 240.0


class Recovery(NamedTuple):
    """Seconds from the end of a fault.

    answered  Until 202, and the broker's ack to a native producer.
    counted   Until all that was sent before, and in the probe itself, was stored.
    """

    answered: float
    counted: float


class Probe:
    """A producer whose events go into every source partition and reach every block partition.

    The partitions are worked off in order: when its events are stored, so are those before them.
    """

    def __init__(self, tallylog: Tallylog, world: World, journal: Journal) -> None:
        self._tallylog = tallylog
        self._world = world
        self._journal = journal
        self._http = Http(tallylog, "/v1/events/bulk")
        self._native = Native(tallylog)
        self._source: Source | None = None
        self._round = 0
        self.slow = ""
        """What the monitoring said when the last wait had taken long."""

    def begin(self, round_: int) -> None:
        """Send the events of another round from here on."""
        self._round = round_
        number, producers = len(MANNERS), len(MANNERS) + 1
        self._source = Source(self._world, round_, number, producers, lambda _: False)

    def wait(self, since: float) -> Recovery:
        """Return once all is as it should be. Raises TimeoutError. `since` is of time.monotonic."""
        assert self._source is not None
        self.slow = ""
        events: list[Event] = []
        for _ in range(REQUESTS):  # they take turns over the partitions
            sent = self._source.bulk(EVENTS, EVENTS)
            self._insist(sent, self._http, since)
            events += sent.events
        for partition in range(PARTITIONS):
            sent = self._source.bulk(EVENTS, EVENTS)
            self._insist(sent, partial(self._native, partition=partition), since)
            events += sent.events
        answered = time.monotonic() - since
        ids = sorted({str(event.name) for event in events})
        customers = sorted({event.customer for event in events})
        while self._stored(ids, customers) < len(ids):
            self._give_up(since)
            time.sleep(POLL_S)
        return Recovery(answered, time.monotonic() - since)

    def _insist(self, sent: Sent, send: Callable[[Sent], Answer], since: float) -> None:
        while True:
            answer = send(sent)
            self._journal.note(self._round, "probe", sent, *answer)
            if answer.outcome == "acked":
                return
            self._give_up(since)
            time.sleep(POLL_S)

    def _give_up(self, since: float) -> None:
        spent = time.monotonic() - since
        if spent > SLOW_S and not self.slow:
            self.slow = self._monitoring()
        if spent > GIVE_UP_S:
            raise TimeoutError(f"it has not recovered for {GIVE_UP_S:g} s")

    def _monitoring(self) -> str:
        try:
            seen = self._tallylog.http.get("/v1/events/monitoring").json()
        except httpx.HTTPError as error:
            return repr(error)
        names = ("stage", "lag_events", "lag_offsets", "lag_seconds")
        stages = [{name: stage[name] for name in names} for stage in seen.get("stages", [])]
        return f"{stages} {seen.get('trouble', seen.get('error', ''))}"

    def _stored(self, ids: list[str], customers: list[str]) -> int:
        try:
            rows = self._tallylog.rows(
                "SELECT uniqExact(event_id) FROM events WHERE account = {account:String}"
                " AND external_customer_id IN {customers:Array(String)}"
                " AND event_id IN {ids:Array(String)}",
                account=self._tallylog.account,
                customers=customers,
                ids=ids,
            )
        except (ClickHouseError, HTTPError, OSError):  # the engine is on its way back
            return -1
        return int(rows[0][0])

    def close(self) -> None:
        """Close its connections."""
        self._http.close()
        self._native.close()
