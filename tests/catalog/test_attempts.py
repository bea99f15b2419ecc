"""Failed authentication: slow for one address, harmless for those with a key, bounded."""

import pytest

from catalog import attempts
from catalog.attempts import FAILURES_MAX, Attempts
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
