"""When small blocks may go, by a clock of our own."""

from stream_workers.pace import BUSY_LINGER_S, FULL_ROWS, LAG_LINGER_MAX_S, Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_event_after_a_quiet_spell_goes_at_once() -> None:
    pace = Pace(20, 0.4, Clock())
    assert pace.may_go(1, still_coming=False)


def test_while_records_keep_coming_one_more_look_is_taken() -> None:
    clock = Clock()
    pace = Pace(20, 0.4, clock)
    assert not pace.may_go(1, still_coming=True)
    clock.now += 0.006
    assert pace.may_go(2, still_coming=True)


def test_many_rows_never_wait() -> None:
    pace = Pace(20, 0.4, Clock())
    pace.went(1000, 10)
    assert pace.may_go(FULL_ROWS, still_coming=True)


def test_without_tokens_a_row_waits_for_the_linger_at_most() -> None:
    clock = Clock()
    pace = Pace(20, 0.4, clock)
    pace.went(8 + 100, 10)
    assert not pace.may_go(1, still_coming=False)
    assert 0 < pace.wait_ms(1) <= 400
    clock.now += 0.39
    assert not pace.may_go(1, still_coming=False)
    clock.now += 0.02
    assert pace.may_go(1, still_coming=False)


def test_a_steady_trickle_stays_near_the_rate() -> None:
    clock = Clock()
    pace = Pace(20, 0.4, clock)
    blocks = 0
    for _ in range(20_000):  # an event each millisecond
        clock.now += 0.001
        if pace.may_go(1, still_coming=False):
            pace.went(4, 4)
            blocks += 4
    assert 300 <= blocks <= 20 * 20 + 8


def flushes(rows_per_s: int, seconds: int) -> list[int]:
    """The rows of each flush, when so many come evenly."""
    clock = Clock()
    pace = Pace(20, 0.4, clock)
    sizes: list[int] = []
    rows = 0
    for step in range(seconds * 1000):
        clock.now += 0.001
        rows = rows_per_s * (step + 1) // 1000 - sum(sizes)
        if rows and pace.may_go(rows, still_coming=False):
            pace.went(4, rows)
            sizes.append(rows)
    return sizes


def test_when_busy_blocks_grow_and_none_waits_longer_than_it_should() -> None:
    for rate in (20_000, 100_000):
        sizes = flushes(rate, 20)[8:]
        assert min(sizes) >= 0.95 * rate * BUSY_LINGER_S
        assert max(sizes) <= 1.05 * rate * BUSY_LINGER_S
    assert set(flushes(200_000, 20)[8:]) == {FULL_ROWS}


def test_a_few_requests_after_a_quiet_spell_are_not_busy() -> None:
    clock = Clock()
    pace = Pace(20, 0.4, clock)
    for _ in range(3):
        assert pace.may_go(1000, still_coming=False)
        pace.went(2, 1000)
        clock.now += 0.01


def test_after_the_rush_a_lone_event_waits_once() -> None:
    clock = Clock()
    pace = Pace(20, 0.4, clock)
    for _ in range(5):
        clock.now += 1
        pace.went(4, 50_000)
    clock.now += 0.1
    assert not pace.may_go(1, still_coming=False)
    clock.now += 1
    assert pace.may_go(1, still_coming=False)
    pace.went(1, 1)
    clock.now += 10
    assert pace.may_go(1, still_coming=False)


def test_behind_blocks_that_wait_for_the_counter_a_block_waits_to_be_large() -> None:
    clock, lag = Clock(), 0.0
    pace = Pace(20, 0.4, clock, lag_s=lambda: lag)
    assert pace.may_go(1, still_coming=False)  # which starts its time
    lag = 11.0
    assert not pace.may_go(1, still_coming=False)
    assert pace.wait_ms(1) == 1000
    clock.now += 1.9
    assert not pace.may_go(1, still_coming=False)
    assert pace.may_go(FULL_ROWS, still_coming=True)
    clock.now += 0.2
    assert pace.may_go(1, still_coming=False)


def test_however_long_the_counter_is_away_blocks_go_every_few_seconds() -> None:
    clock = Clock()
    pace = Pace(20, 0.4, clock, lag_s=lambda: 86_400.0)
    assert not pace.may_go(1, still_coming=False)
    clock.now += LAG_LINGER_MAX_S
    assert pace.may_go(1, still_coming=False)


def test_when_the_counter_has_caught_up_what_was_gathered_goes_at_once() -> None:
    clock, lag = Clock(), 60.0
    pace = Pace(20, 0.4, clock, lag_s=lambda: lag)
    assert not pace.may_go(1, still_coming=False)
    lag = 2.0
    assert pace.may_go(1, still_coming=False)
