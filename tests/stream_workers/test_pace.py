"""When small blocks may go, by a clock of our own."""

from stream_workers.pace import BUSY_ROWS, Pace


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
    pace.went(1000)
    assert pace.may_go(BUSY_ROWS, still_coming=True)


def test_without_tokens_a_row_waits_for_the_linger_at_most() -> None:
    clock = Clock()
    pace = Pace(20, 0.4, clock)
    pace.went(8 + 100)
    assert not pace.may_go(1, still_coming=False)
    assert 0 < pace.wait_ms() <= 400
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
            pace.went(4)
            blocks += 4
    assert 300 <= blocks <= 20 * 20 + 8
