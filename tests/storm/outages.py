"""Outages: what Tallylog does while a server that it rests on is away, and once it is back.

Each function takes a running Tallylog on servers of its own, takes one of them away under load,
gives it back, and tells what was measured. What was answered 202 has to be counted once in the end,
whatever else the figures say: that is asserted.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psutil
from clickhouse_connect.driver.exceptions import ClickHouseError

from catalog.keys import new_key
from schemas.limits import BODY_BYTES_MAX
from tests.e2e.running import Tallylog, client, until
from tests.postgres import create_database, find_program, postgres_server
from tests.sqlite import moved_away
from tests.storm.figures import Figure
from tests.storm.senders import Answered, Senders, Wish, p99, post_all, request, sending
from tests.storm.servers import Ground, Server, ground

RECOVERY_S = 120.0
MIB = 1 << 20
STEADY = (Wish(10, 1, 0.5), Wish(5, 100, 1.0))
"""Load that leaves the machine time for more: 20 single events and 500 in bulks a second."""
FRESH_S = 5.0
"""What was sent within so long may still be on its way: no lag."""
DEADLINE_S = 10.0
"""Of a request: TALLYLOG_GATEWAY_ACK_TIMEOUT_S."""
SLACK_S = 2.0
"""What a busy machine may add to a deadline."""
PARTS = ("serve", "packer", "counter")


def store_away(ground: Ground, name: str, how: str, away_s: float) -> list[Figure]:
    """The engine, `killed` or `stopped`: requests go on, the lag shows, and is made good fast."""
    told = f"ClickHouse {how} for {away_s:.0f} s"
    tallylog = ground.tallylog
    tallylog.create_feature(name, "SUM", "credits")
    with sending(tallylog, name, *STEADY) as senders:
        time.sleep(4)
        calm_from = time.monotonic()
        time.sleep(4)
        before = ground.rss(*PARTS)
        gone = time.monotonic()
        lags: list[tuple[int, float]] = []
        with _away(ground.engine, how):
            while time.monotonic() < gone + away_s:
                time.sleep(2)
                lags.append(_lag(tallylog))
            held = ground.rss(*PARTS)
        back = time.monotonic()
        drained = _drain(tallylog, name, senders)
    _counted_once(tallylog, name, senders)
    during = senders.between(gone, back)
    accepted = sum(each.status == 202 for each in during)
    calm_p99, away_p99 = p99(senders.between(calm_from, gone)), p99(during)
    arrival = sum(wish.rate for wish in STEADY)
    events, seconds = lags[-1]
    return [
        _figure(f"{told}: requests answered 202", "all", f"{accepted} of {len(during)}",
                accepted == len(during)),
        _figure(f"{told}: p99 of answers", "1.5 times before, or 20 ms more",
                f"{1000 * away_p99:.0f} ms, {1000 * calm_p99:.0f} ms before",
                away_p99 <= max(1.5 * calm_p99, calm_p99 + 0.02)),
        _figure(f"{told}: lag that /v1/events/monitoring shows", "grows",
                f"{events:,} events, {seconds:.0f} s", _grows(lags) and seconds > away_s / 2),
        _figure(f"{told}: drains at so many times the rate at which events come", "5",
                f"{drained.rate / arrival:.1f} ({drained.rate:,.0f} events/s)",
                drained.rate >= 5 * arrival),
        _figure(f"{told}: from its return to no lag", "30 s", f"{drained.at - back:.0f} s",
                drained.at - back <= 30),
        _figure(f"{told}: memory of gateway, packer and counter meanwhile", "256 MiB more",
                f"{(held - before) / MIB:+.0f} MiB", held - before <= 256 * MIB),
    ]  # fmt: skip


def broker_away(ground: Ground, name: str, how: str, away_s: float) -> list[Figure]:
    """The broker, `killed` or `stopped`, before 200 clients who try again and again."""
    told = f"Kafka {how} for {away_s:.0f} s"
    tallylog = ground.tallylog
    tallylog.create_feature(name, "SUM", "credits")
    with sending(tallylog, name, Wish(150, 1, 1.0, again=True), Wish(50, 20, 2.0, again=True)) as s:
        time.sleep(4)
        before = ground.rss("serve")
        with _away(ground.broker, how):
            gone = time.monotonic()
            time.sleep(away_s - 1)
            ready = httpx.get(f"{tallylog.base_url}/readyz", trust_env=False, timeout=30)
            held = ground.rss("serve")
            returning = time.monotonic()
        back = time.monotonic()
        until(lambda: _accepts(s, back), True, RECOVERY_S)
        first = min(each.at + each.seconds for each in s.between(back, float("inf"))
                    if each.status == 202)  # fmt: skip
        until(lambda: _status(f"{tallylog.base_url}/readyz"), 200, RECOVERY_S)
    during = [each for each in s.between(gone, returning) if each.at + each.seconds < returning]
    honest = sum(each.status == 503 and each.retry_after.isdigit() for each in during)
    longest = max((each.seconds for each in during), default=0.0)
    refused = {each for answer in s.answers if answer.status != 202 for each in answer.ids}
    _counted_once(tallylog, name, s)
    return [
        _figure(f"{told}: requests answered 503 with Retry-After", "all",
                f"{honest} of {len(during)}", bool(during) and honest == len(during)),
        _figure(f"{told}: longest answer", f"{DEADLINE_S:.0f} s", f"{longest:.1f} s",
                longest <= DEADLINE_S + SLACK_S),
        _figure(f"{told}: readiness", "503, and says why",
                f"{ready.status_code}: {ready.json().get('reasons', [''])[0]}",
                ready.status_code == 503 and "event log" in ready.text),
        _figure(f"{told}: memory of the gateway before 200 clients", "64 MiB more",
                f"{(held - before) / MIB:+.0f} MiB", held - before <= 64 * MIB),
        _figure(f"{told}: from its return to the first 202", "15 s",
                f"{max(0.0, first - back):.1f} s", first - back <= 15),
        _figure(f"{told}: refused, sent again with the same ids, counted", "once each",
                f"{len(refused):,} of {len(refused):,}", bool(refused)),
    ]  # fmt: skip


def producer_wedged(ground: Ground, folder: Path, name: str) -> list[Figure]:
    """The broker comes back with an older copy of the gateway's topic, and knows older sequences.

    The gateway's producer is idle meanwhile and notices nothing: its next sequence is out of order.
    """
    tallylog = ground.tallylog
    tallylog.create_feature(name, "SUM", "credits")
    data = folder / "servers" / "kafka" / "log"
    copies = folder / "copies"
    _send(tallylog, name, range(0, 20))
    until(lambda: _counted(tallylog, name), 20, RECOVERY_S)
    with ground.broker.killed():
        copies.mkdir()
        for topic in data.glob("gateway-events-*"):
            shutil.copytree(topic, copies / topic.name)
    _send(tallylog, name, range(20, 60))
    until(lambda: _counted(tallylog, name), 60, RECOVERY_S)
    with ground.broker.killed():
        for topic in data.glob("gateway-events-*"):
            shutil.rmtree(topic)
            shutil.copytree(copies / topic.name, topic)
        for process in ground.processes("packer"):
            process.kill()  # a log that went back is noticed at a start: it opens a new epoch
    back = time.monotonic()
    tried = _send(tallylog, name, range(60, 100))
    until(lambda: _counted(tallylog, name), 100, RECOVERY_S)
    refused = sum(status == 503 for status in tried)
    log = (Path(tallylog.data_dir) / "logs" / "http.log").read_text()
    replaced = "OutOfOrderSequenceNumber" in log
    return [
        _figure("An idempotent producer wedged (OutOfOrderSequenceNumber)", "replaced",
                f"{refused} requests got 503, all events counted {time.monotonic() - back:.0f} s"
                " after the broker's return", replaced and set(tried) <= {202, 503}),
    ]  # fmt: skip


def catalog_away(ground: Ground, name: str, away: AbstractContextManager[None], how: str,
                 away_s: float) -> list[Figure]:  # fmt: skip
    """The catalog's database: what is known goes on."""
    told = f"Catalog {how} for {away_s:.0f} s"
    tallylog = ground.tallylog
    meter = tallylog.create_feature(name, "SUM", "credits")
    usage = {"meter_id": meter, "external_customer_id": "cust_9"}
    with sending(tallylog, name, *STEADY) as senders:
        time.sleep(3)
        with away:
            gone = time.monotonic()
            time.sleep(2)
            counted = _counted(tallylog, name)
            with client(tallylog.base_url, new_key()) as stranger:
                started = time.monotonic()
                unknown = stranger.post("/v1/events", json={"event_name": "x"})
                took = time.monotonic() - started
            asks: list[Callable[[], httpx.Response]] = [
                lambda: tallylog.http.post("/v1/events/usage/meter", json=usage),
                lambda: tallylog.http.get("/v1/features"),
                lambda: tallylog.http.post("/v1/customers", json={"external_id": f"{name}-new"}),
            ]
            with ThreadPoolExecutor() as threads:  # one that hangs is waited for, by all at once
                answers = list(threads.map(lambda ask: ask(), asks))
            state = tallylog.http.get("/v1/system/status").json()
            time.sleep(max(0.0, gone + away_s - time.monotonic()))
            more = _counted(tallylog, name) - counted
            returning = time.monotonic()
        back = time.monotonic()
        until(lambda: tallylog.http.get("/v1/features").status_code, 200, RECOVERY_S)
        recovered = time.monotonic() - back
    during = [each for each in senders.between(gone, returning)]
    accepted = sum(each.status == 202 for each in during)
    _counted_once(tallylog, name, senders)
    codes = [each.status_code for each in answers]
    return [
        _figure(f"{told}: requests with known keys answered 202", "all",
                f"{accepted} of {len(during)}", bool(during) and accepted == len(during)),
        _figure(f"{told}: events counted meanwhile", "go on", f"{more:,}", more > 0),
        _figure(f"{told}: an unknown key", "503 with Retry-After",
                f"{unknown.status_code} after {took:.1f} s",
                unknown.status_code == 503 and unknown.headers.get("retry-after", "").isdigit()),
        _figure(f"{told}: usage, features, a new customer", "answered, or 503",
                ", ".join(map(str, codes)),
                codes[2] == 503 and set(codes) <= {200, 503} and _retried(answers)),
        _figure(f"{told}: /v1/system/status", "says so", str(state["catalog"]),
                state["status"] == "unavailable" and bool(state["catalog"])),
        _figure(f"{told}: from its return to answers", "15 s", f"{recovered:.1f} s",
                recovered <= 15),
    ]  # fmt: skip


def flood(ground: Ground, name: str, connections: int) -> list[Figure]:
    """The largest bodies from many connections at once: some are refused, the gateway lives."""
    tallylog = ground.tallylog
    told = f"{connections} connections with 9.7 MiB each"
    filler = "x" * ((BODY_BYTES_MAX - 200_000) // 1000)
    events = [
        {"event_name": name, "external_customer_id": "c", "properties": {"filler": filler}}
        for _ in range(980)
    ]
    body = request(
        "/v1/events/bulk", tallylog.api_key, json.dumps({"events": events}).encode()
    )  # fmt: skip
    [process] = ground.processes("serve")
    before = peak = process.memory_info().rss
    with asyncio.Runner() as runner:

        async def watched() -> list[Answered]:
            nonlocal peak
            sending = asyncio.create_task(post_all(tallylog.base_url, [body] * connections))
            while not sending.done():
                peak = max(peak, process.memory_info().rss)
                await asyncio.sleep(0.05)
            return sending.result()

        answers = runner.run(watched())
    statuses = {status: sum(each.status == status for each in answers) for status in (202, 503)}
    honest = all(each.status == 202 or each.retry_after.isdigit() for each in answers)
    alive = _status(f"{tallylog.base_url}/readyz") == 200
    return [
        _figure(told,
                "202, or 503 with Retry-After", f"{statuses[202]} and {statuses[503]}",
                honest and sum(statuses.values()) == connections and alive),
        _figure(f"{told}: the gateway's memory",
                "1,024 MiB more at most", f"{(peak - before) / MIB:+,.0f} MiB",
                peak - before <= 1024 * MIB),
    ]  # fmt: skip


class Drain:
    """How a lag is made good, by looks at how many events are counted.

    The clock starts when the last look that saw nothing new began: what is there at the next was
    counted since then, not in no time.
    """

    def __init__(self, at: float) -> None:
        self._start = at
        self._first: int | None = None
        self._last = (at, 0)

    def see(self, began: float, ended: float, counted: int) -> None:
        """A look from one moment to another saw so many."""
        if self._first is None or counted == self._first:
            self._start, self._first = began, counted
        self._last = ended, counted

    @property
    def begun(self) -> bool:
        """Whether anything new is counted."""
        return self._first is not None and self._last[1] > self._first

    @property
    def at(self) -> float:
        """When the last look ended."""
        return self._last[0]

    @property
    def rate(self) -> float:
        """Events a second, until the last look; 0 before anything is counted."""
        if self._first is None or not self.begun:
            return 0.0
        return (self._last[1] - self._first) / (self.at - self._start)


def _drain(tallylog: Tallylog, name: str, senders: Senders) -> Drain:
    """Watch what is counted catch up with what is sent."""
    deadline = time.monotonic() + RECOVERY_S
    drain = Drain(time.monotonic())
    fresh = sum(wish.rate for wish in STEADY) * FRESH_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ClickHouseError):
            began, counted = time.monotonic(), _counted(tallylog, name)
            drain.see(began, time.monotonic(), counted)
            if drain.begun and counted >= senders.acked_count - fresh:
                return drain
        time.sleep(0.1)
    raise AssertionError(f"not drained within {RECOVERY_S:.0f} s")


def _away(server: Server, how: str) -> AbstractContextManager[None]:
    return server.killed() if how == "killed" else server.stopped()


def _figure(what: str, target: str, measured: str, met: bool) -> Figure:
    return Figure("Outages", what, target, measured, met)


def _lag(tallylog: Tallylog) -> tuple[int, float]:
    """Events that wait to be counted, and for how many seconds."""
    answer = tallylog.http.get("/v1/events/monitoring", timeout=30)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    waiting = int(told["consumption_lag"]) + int(told["post_processing_lag"])
    return waiting, float(told["stages"][1]["lag_seconds"] or 0.0)


def _grows(lags: Sequence[tuple[int, float]]) -> bool:
    seconds = [each for _, each in lags]
    return len(lags) > 1 and lags[-1][0] > lags[0][0] and seconds == sorted(seconds)


def _accepts(senders: Senders, since: float) -> bool:
    return any(each.status == 202 for each in senders.between(since, float("inf")))


def _status(url: str) -> int:
    return httpx.get(url, trust_env=False, timeout=30).status_code


def _retried(answers: Sequence[httpx.Response]) -> bool:
    """Whether every 503 says when to try again."""
    refused = [each for each in answers if each.status_code == 503]
    return all(each.headers.get("retry-after", "").isdigit() for each in refused)


def _send(tallylog: Tallylog, name: str, numbers: range) -> list[int]:
    """Send numbered events until each is accepted; the statuses on the way."""
    statuses: list[int] = []
    for number in numbers:
        event = {
            "event_id": f"{name}-{number}",
            "event_name": name,
            "external_customer_id": "c",
            "properties": {"credits": 2},
        }
        while True:
            statuses.append(tallylog.http.post("/v1/events", json=event).status_code)
            if statuses[-1] == 202:
                break
            time.sleep(0.2)
    return statuses


def _counted(tallylog: Tallylog, name: str) -> int:
    """Counted events of a name."""
    return int(
        tallylog.rows(
            "SELECT count() FROM events WHERE account = {a:String} AND event_name = {n:String}"
            " AND verdict = 'counted'",
            a=tallylog.account,
            n=name,
        )[0][0]
    )


def _counted_once(tallylog: Tallylog, name: str, senders: Senders) -> None:
    """What was answered 202 is counted; nothing is counted twice, or was never sent."""
    acked, sent = senders.acked, senders.acked | senders.refused

    def missing() -> int:
        return len(acked - ids())

    def ids() -> set[str]:
        try:
            found = tallylog.rows(
                "SELECT event_id FROM events WHERE account = {a:String} AND verdict = 'counted'"
                " AND event_name = {n:String}",
                a=tallylog.account,
                n=name,
            )
        except ClickHouseError:
            return set()
        counted.clear()
        counted.extend(each for (each,) in found)
        return set(counted)

    counted: list[str] = []
    until(missing, 0, RECOVERY_S)
    assert len(counted) == len(set(counted)), f"{name}: counted twice"
    assert set(counted) <= sent, f"{name}: counted and never sent"
    sums = tallylog.rows(
        "SELECT sum(event_count), toInt64(sum(value_sum)) FROM usage_states WHERE feature_id IN"
        " (SELECT DISTINCT feature_id FROM events WHERE account = {a:String}"
        " AND event_name = {n:String} AND verdict = 'counted')",
        a=tallylog.account,
        n=name,
    )
    assert sums == [(len(counted), 2 * len(counted))], f"{name}: the states say {sums}"


@contextlib.contextmanager
def hanging(place: str) -> Iterator[None]:
    """A PostgreSQL that answers nobody for the length of a block; `place` is its user and host."""
    port = place.rpartition(":")[2]
    servers = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if "postgres" in (process.info["name"] or "")
        and ["-p", port] in [(process.info["cmdline"] or [])[n : n + 2] for n in range(9)]
    ]
    [server] = servers
    family = [server, *server.children()]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def measure(folder: Path, tell: Callable[[Figure], None] = lambda _: None) -> list[Figure]:
    """Every outage, long enough for its figures; each is told as it is known. Half an hour."""
    figures: list[Figure] = []

    def add(more: Sequence[Figure]) -> None:
        figures.extend(more)
        for figure in more:
            tell(figure)

    with ground(folder) as here:
        for how in ("killed", "stopped"):
            add(store_away(here, f"store.{how}", how, 60))
            add(broker_away(here, f"broker.{how}", how, 30))
        moved = moved_away(Path(here.tallylog.data_dir))
        add(catalog_away(here, "catalog.moved", moved, "file moved away", 30))
        add(flood(here, "flood", 100))
        add(producer_wedged(here, folder, "wedged"))
    initdb, server = find_program("initdb"), find_program("postgres")
    if initdb is not None and server is not None:
        with postgres_server(initdb, server) as place:
            env = {"TALLYLOG_CATALOG_URL": create_database(place)}
            with ground(folder / "postgresql", **env) as here:
                add(catalog_away(here, "hangs", hanging(place), "(PostgreSQL) stopped", 30))
    return figures
