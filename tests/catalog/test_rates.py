"""Counting within a minute: exact at the edge, bounded across turns, forgetful when idle."""

import random

import pytest

from catalog.rates import WINDOW_S, Minutes, Standing


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(minutes: Minutes, tries: int, limit: int, what: str = "key") -> int:
    return sum(minutes.hit(what, limit) is None for _ in range(tries))


def test_exactly_the_limit_is_admitted_and_keys_are_apart() -> None:
    minutes = Minutes(Clock())
    assert admitted(minutes, 1500, 1000) == 1000
    assert admitted(minutes, 1500, 1000, "other") == 1000
    assert admitted(minutes, 1, 1) == 0


def test_the_turn_of_a_minute_gives_no_second_helping() -> None:
    clock = Clock()
    minutes = Minutes(clock)
    clock.now += WINDOW_S - 0.001
    assert admitted(minutes, 1000, 1000) == 1000
    clock.now += 0.002
    assert admitted(minutes, 1000, 1000) == 1
    clock.now += WINDOW_S / 2
    assert admitted(minutes, 1000, 1000) == 500
    clock.now += 2 * WINDOW_S
    assert admitted(minutes, 1000, 1000) == 1000


@pytest.mark.parametrize("seed", range(20))
def test_a_steady_flood_gets_the_limit_a_minute(seed: int) -> None:
    chance, clock = random.Random(seed), Clock()
    minutes, times, end = Minutes(clock), [], clock.now + 600
    while clock.now < end:
        clock.now += chance.expovariate(5)
        if minutes.hit("key", 60) is None:
            times.append(clock.now)
    assert 540 <= len(times) <= 660
    worst = max(sum(at - WINDOW_S < each <= at for each in times) for at in times)
    assert worst <= 90


@pytest.mark.parametrize("seed", range(50))
def test_what_is_told_to_wait_is_admitted_then_and_not_before(seed: int) -> None:
    chance, clock = random.Random(seed), Clock()
    minutes = Minutes(clock)
    for _ in range(chance.randrange(1, 200)):
        clock.now += chance.expovariate(2)
        minutes.hit("key", 10)
    while (full := minutes.hit("key", 10)) is None:
        pass
    wait_s = full.wait_s(10)
    assert 0 <= wait_s <= 2 * WINDOW_S
    clock.now += max(0, wait_s - 0.01)
    if wait_s > 0.01:
        assert minutes.hit("key", 10) is not None
    clock.now += 0.02
    assert minutes.hit("key", 10) is None


def test_a_limit_that_changes_holds_at_once_for_what_was_counted() -> None:
    clock = Clock()
    minutes = Minutes(clock)
    assert admitted(minutes, 50, 100) == 50
    assert admitted(minutes, 100, 60) == 10
    lowered = minutes.hit("key", 20)
    assert lowered == Standing(0, 60, 60.0)
    assert lowered.wait_s(20) == pytest.approx(60 + 60 - 20)
    clock.now += lowered.wait_s(20) + 0.001
    assert minutes.hit("key", 20) is None
    assert Standing(0, 0, 60.0).wait_s(5) == 0


def test_a_million_keys_are_forgotten_two_minutes_later() -> None:
    clock = Clock()
    minutes = Minutes(clock)
    for number in range(1_000_000):
        minutes.hit(str(number), 1)
    assert len(minutes) == 1_000_000
    clock.now += WINDOW_S + 1
    minutes.hit("key", 1)
    clock.now += WINDOW_S
    minutes.hit("key", 1)
    assert len(minutes) == 1
    assert len(minutes._previous) == 1


def test_a_long_sleep_keeps_no_old_count() -> None:
    clock = Clock()
    minutes = Minutes(clock)
    admitted(minutes, 10, 10)
    clock.now += 1_000_000.5
    standing = minutes.standing("key")
    assert (standing.previous, standing.current) == (0, 0)
    assert standing.left_s == pytest.approx(19.5)  # windows go on where they began
    assert admitted(minutes, 20, 10) == 10
