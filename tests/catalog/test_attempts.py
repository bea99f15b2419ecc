"""Failed authentication: slow for one address, harmless for those with a key, bounded."""

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog import attempts, keys
from catalog.attempts import FAILURES_MAX, Attempts
from catalog.bootstrap import bootstrap
from catalog.database import Catalog
from catalog.follower import Follower
from catalog.rates import Minutes
from schemas.errors import RateExceeded, Rejection, Unauthorized


def failures(limiter: Attempts, address: str, count: int) -> list[type[Rejection]]:
    return [type(limiter.failed(address)) for _ in range(count)]


def test_twenty_failures_a_minute_are_told_so_and_then_to_wait() -> None:
    limiter = Attempts()
    told = failures(limiter, "192.0.2.7", 25)
    assert told == [Unauthorized] * FAILURES_MAX + [RateExceeded] * 5
    refusal = limiter.failed("192.0.2.7")
    assert refusal.headers["RateLimit-Policy"] == '"authentication";q=20;w=60'
    assert 1 <= int(refusal.headers["Retry-After"]) <= 61
    assert failures(limiter, "192.0.2.8", 1) == [Unauthorized]


def test_they_are_forgiven_within_two_minutes() -> None:
    now = 0.0
    limiter = Attempts(Minutes(lambda: now))
    failures(limiter, "192.0.2.7", 30)
    now += 61
    assert failures(limiter, "192.0.2.7", 1) == [Unauthorized]
    now += 121
    assert failures(limiter, "192.0.2.7", 21) == [Unauthorized] * 20 + [RateExceeded]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
        ("a.socket", "b.socket", False),
    ],
)
def test_an_address_is_a_peers(one: str, other: str, same: bool) -> None:
    limiter = Attempts()
    failures(limiter, one, FAILURES_MAX)
    assert failures(limiter, other, 1) == [RateExceeded if same else Unauthorized]


def test_so_many_addresses_that_memory_would_grow_count_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "PEERS_MAX", 100)
    minutes = Minutes()
    limiter = Attempts(minutes)
    told = [type(limiter.failed(f"10.0.{number // 250}.{number % 250}")) for number in range(1000)]
    assert len(minutes) == 101
    assert told.count(Unauthorized) == 120


def test_how_long_a_refusal_takes_says_nothing_about_the_key(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    key = bootstrap(url).api_key
    assert key is not None
    catalog = Catalog(url)
    follower = Follower(catalog)
    follower.refresh()
    snapshot = follower.snapshot
    far = [keys.new_key() for _ in range(2000)]
    near = [_with_checksum(key[:-10] + guess[5:9]) for guess in far]
    near = [guess for guess in near if guess != key]
    assert snapshot.key(keys.hash_of(key)) is not None

    def seconds(guess: str) -> float:
        started = time.perf_counter()
        found = snapshot.key(keys.hash_of(guess)) if keys.well_formed(guess) else None
        took = time.perf_counter() - started
        assert found is None
        return took

    assert min(abs(_t(seconds, near, far, seed)) for seed in range(3)) < 4.5
    catalog.close()


def _with_checksum(key: str) -> str:
    """A well-formed key that begins like this one."""
    body = key[: len("sk_") + keys.SECRET_LENGTH]
    return body + keys._checksum(body)


def _t(seconds: Callable[[str], float], near: list[str], far: list[str], seed: int) -> float:
    """Welch's t of both kinds of guesses in random order, without the slowest tenth."""
    chance = random.Random(seed)
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(20_000):
        kind = chance.randrange(2)
        samples[kind].append(seconds(chance.choice((near, far)[kind])))
    usual = sorted(samples[0] + samples[1])[18_000]
    kept = [[each for each in kind if each < usual] for kind in samples]
    spread = sum(statistics.variance(kind) / len(kind) for kind in kept)
    return float((statistics.fmean(kept[0]) - statistics.fmean(kept[1])) / spread**0.5)
