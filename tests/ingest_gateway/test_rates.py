"""Limits of keys: what is refused and how it is told, alone and together in Redis."""

import asyncio
import contextlib
import itertools
import logging
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from catalog import keys
from catalog.database import Catalog
from ingest_gateway import shared_rates
from ingest_gateway.events import Gateway
from ingest_gateway.rates import Rates
from ingest_gateway.settings import Settings
from local_stack.ports import HOST, free_ports
from schemas.catalog import ApiKey, Scope
from schemas.errors import RateExceeded
from schemas.keys import ApiKeyUpdate
from tests.ingest_gateway.conftest import FakeLog

EVENT = {"event_name": "api.calls", "external_customer_id": "cust_1"}


def make_key(
    single: int | None = None, bulk: int | None = None, key_id: str = "secret_1"
) -> ApiKey:
    return ApiKey(
        id=key_id,
        account="default",
        hash="",
        scopes=frozenset(Scope),
        expires_at=None,
        revoked_at=None,
        strict=False,
        requests_per_minute=single,
        bulk_requests_per_minute=bulk,
    )


async def admitted(rates: Rates, key: ApiKey, tries: int, *, bulk: bool = False) -> int:
    """How many of these requests, all at once, are let through."""

    async def admit() -> bool:
        try:
            await rates.admit(key, bulk=bulk)
        except RateExceeded:
            return False
        return True

    return sum(await asyncio.gather(*(admit() for _ in range(tries))))


# Alone


async def test_the_defaults_are_a_thousand_single_and_a_hundred_bulk_requests() -> None:
    rates = Rates(Settings())
    assert await admitted(rates, make_key(), 1100) == 1000
    assert await admitted(rates, make_key(), 1100, bulk=True) == 100
    assert await admitted(rates, make_key(key_id="secret_2"), 10) == 10


async def test_a_key_has_limits_of_its_own_and_zero_is_none() -> None:
    rates = Rates(Settings())
    assert await admitted(rates, make_key(3, 2), 10) == 3
    assert await admitted(rates, make_key(3, 2), 10, bulk=True) == 2
    free = make_key(0, 0, "secret_2")
    assert await admitted(rates, free, 5000) == 5000
    assert await admitted(rates, free, 5000, bulk=True) == 5000
    open_to_all = Rates(Settings(gateway_requests_per_minute=0, gateway_bulk_requests_per_minute=7))
    assert await admitted(open_to_all, make_key(), 5000) == 5000
    assert await admitted(open_to_all, make_key(), 5000, bulk=True) == 7


async def test_counting_costs_less_than_five_microseconds() -> None:
    rates, key, best = Rates(Settings()), make_key(10_000_000), 1.0
    for _ in range(50):
        started = time.perf_counter()
        for _ in range(1000):
            await rates.admit(key, bulk=False)
        best = min(best, (time.perf_counter() - started) / 1000)
    assert best < 5e-6


async def test_429_says_which_limit_and_when_to_come_back(
    client: httpx.AsyncClient, log: FakeLog, new_key: Callable[..., str]
) -> None:
    headers = {"x-api-key": new_key(requests_per_minute=2, bulk_requests_per_minute=1)}
    for path, limit, policy in (("/v1/events", 2, "single"), ("/v1/events/bulk", 1, "bulk")):
        body = [EVENT] if policy == "bulk" else EVENT
        for _ in range(limit):
            answer = await client.post(path, json=body, headers=headers)
            assert answer.status_code == 202
        answer = await client.post(path, json=body, headers=headers)
        told = answer.json()
        assert (answer.status_code, told["code"]) == (429, "too_many_requests")
        assert told["error"] == "Rate limit exceeded"
        wait = int(answer.headers["retry-after"])
        assert 55 <= wait <= 61
        assert told["message"].startswith(f"Rate limit exceeded: wait {wait} s, or send ")
        assert told["details"] == {
            "policy": policy, "limit": limit, "window_s": 60, "retry_after_s": wait,
        }  # fmt: skip
        assert answer.headers["ratelimit-policy"] == f'"{policy}";q={limit};w=60'
        assert answer.headers["ratelimit"] == f'"{policy}";r=0;t={wait}'
        assert answer.headers["x-ratelimit-limit"] == str(limit)
        assert answer.headers["x-ratelimit-remaining"] == "0"
        assert abs(int(answer.headers["x-ratelimit-reset"]) - time.time() - wait) < 2
    assert len(log.records) == 3
    assert (
        'gateway_events_refused_total{code="too_many_requests"}'
        in (await client.get("/metrics")).text
    )


async def test_requests_at_the_edge_of_the_limit_at_once_are_counted_exactly(
    client: httpx.AsyncClient, log: FakeLog, new_key: Callable[..., str]
) -> None:
    headers = {"x-api-key": new_key(requests_per_minute=30)}
    sent = (client.post("/v1/events", json=EVENT, headers=headers) for _ in range(80))
    statuses = [answer.status_code for answer in await asyncio.gather(*sent)]
    assert (statuses.count(202), statuses.count(429)) == (30, 50)
    assert len(log.records) == 30


async def test_a_limit_that_changes_holds_at_once_and_a_new_key_begins_anew(
    client: httpx.AsyncClient, settings: Settings, gateway: Gateway, new_key: Callable[..., str]
) -> None:
    key = new_key(requests_per_minute=5)

    async def sent(with_key: str, count: int) -> int:
        headers = {"x-api-key": with_key}
        answers = [
            await client.post("/v1/events", json=EVENT, headers=headers) for _ in range(count)
        ]
        return [answer.status_code for answer in answers].count(202)

    def change(**wish: int | None) -> None:
        catalog = Catalog(settings.catalog)
        with catalog.writing("test") as writing:
            row = keys.find(writing.session, key)
            assert row is not None
            keys.update(writing, "default", row.id, ApiKeyUpdate.model_validate(wish))
        catalog.close()
        gateway.follower.refresh()

    assert await sent(key, 8) == 5
    change(requests_per_minute=7)
    assert await sent(key, 8) == 2
    change(requests_per_minute=3)
    assert await sent(key, 2) == 0
    change(requests_per_minute=0)
    assert await sent(key, 20) == 20
    change(requests_per_minute=None)
    assert await sent(key, 20) == 20
    assert await sent(new_key(requests_per_minute=5), 8) == 5


async def test_guessing_keys_is_429_after_twenty_and_a_valid_key_goes_on(
    client: httpx.AsyncClient, api_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guesses = [keys.new_key() if number % 3 else f"sk_{number}" for number in range(30)]
    statuses = []
    for guess in guesses:
        answer = await client.post("/v1/events", json=EVENT, headers={"x-api-key": guess})
        statuses.append(answer.status_code)
        assert guess not in answer.text
        assert (await client.post("/v1/events", json=EVENT)).status_code == 202
    assert statuses == [401] * 20 + [429] * 10
    assert answer.headers["ratelimit-policy"] == '"authentication";q=20;w=60'
    assert answer.json()["error"] == "Too many failed authentications"
    assert not [key for key in (*guesses, api_key) if key in caplog.text]


# Together, in Redis


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> int:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: install it to test limits in Redis")
    return free_ports(1)[0]


class Server:
    """A Redis that can be ended, stopped and started again."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self._folder = port, folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = ["redis-server", "--port", str(self.port), "--bind", HOST, "--save", ""]
        argv += ["--dir", str(self._folder), "--loglevel", "warning"]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)

    async def answers(self) -> None:
        for _ in range(200):
            async with Redis(host=HOST, port=self.port) as client:
                with contextlib.suppress(ConnectionError):
                    await client.ping()
                    return
            await asyncio.sleep(0.02)
        pytest.fail("redis-server doesn't answer")

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
async def redis(redis_port: int, tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(redis_port, tmp_path)
    server.start()
    await server.answers()
    yield server
    server.end()


@pytest.fixture
async def gateways(redis_port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Rates]]:
    """Two gateways that count in the same Redis, and are patient on a busy machine."""
    monkeypatch.setattr(shared_rates, "PATIENCE_S", 1.0)
    settings = Settings(gateway_limits_url=f"redis://{HOST}:{redis_port}/0")
    both = [Rates(settings), Rates(settings)]
    yield both
    for rates in both:
        await rates.close()


async def test_gateways_count_together_in_redis(redis: Server, gateways: list[Rates]) -> None:
    key = make_key(100)
    counts = await asyncio.gather(*(admitted(rates, key, 150) for rates in gateways))
    assert sum(counts) == 100
    with pytest.raises(RateExceeded) as refused:
        await gateways[0].admit(key, bulk=False)
    assert 50 <= int(refused.value.headers["Retry-After"]) <= 61
    assert await admitted(gateways[1], make_key(0), 500) == 500
    async with Redis(host=HOST, port=redis.port) as client:
        names = await client.keys("tallylog*")
        assert len(names) == await client.dbsize() > 0
        for name in names:
            assert 0 < await client.ttl(name) <= 120


async def test_without_redis_each_counts_alone_at_once_and_loudly(
    redis: Server, gateways: list[Rates], caplog: pytest.LogCaptureFixture
) -> None:
    key = make_key(100)
    assert await admitted(gateways[0], key, 30) == 30
    redis.end()
    started = time.monotonic()
    counts = [await admitted(rates, key, 150) for rates in gateways]
    assert counts == [100, 100]
    assert time.monotonic() - started < 5
    assert caplog.text.count("Redis is away, this process counts requests alone") == 2
    started = time.monotonic()
    for _ in range(50):
        with pytest.raises(RateExceeded):
            await gateways[0].admit(key, bulk=False)
    assert time.monotonic() - started < 0.5
    redis.start()
    await redis.answers()
    await asyncio.sleep(1.1)
    with caplog.at_level(logging.INFO):
        assert await admitted(gateways[0], key, 1) == 1
    assert "Redis is back" in caplog.text
    assert await admitted(gateways[0], key, 150) == 99


async def test_a_redis_that_hangs_holds_nobody_up(redis: Server, gateways: list[Rates]) -> None:
    key = make_key(100)
    assert await admitted(gateways[0], key, 10) == 10
    assert redis.process is not None
    redis.process.send_signal(19)  # SIGSTOP: connections stay, no answer comes
    ticks, done = [], asyncio.Event()

    async def tick() -> None:
        while not done.is_set():
            ticks.append(time.monotonic())
            await asyncio.sleep(0.005)

    ticking = asyncio.create_task(tick())
    started = time.monotonic()
    assert await admitted(gateways[0], key, 60) == 60
    first = time.monotonic() - started
    assert await admitted(gateways[0], key, 60) == 40
    done.set()
    await ticking
    assert first < 2.5
    assert max(b - a for a, b in itertools.pairwise(ticks)) < 0.5
    redis.process.send_signal(18)  # SIGCONT


def test_a_url_that_is_not_redis_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="gateway_limits_url"):
        Settings(gateway_limits_url="memcached://localhost")
