"""How old the oldest block is that isn't counted, by a clock of our own."""

from stream_workers.counting_lag import LOOKS_MAX, CountingLag


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def lag_after(*looks: tuple[dict[int, int], dict[int, int]]) -> float:
    """The lag after looks a second apart."""
    clock = Clock()
    lag = CountingLag(clock)
    for ends, committed in looks:
        clock.now += 1
        lag.look(ends, committed)
    return lag.seconds


def test_what_is_counted_is_no_lag() -> None:
    assert lag_after(({0: 0, 1: 0}, {}), ({0: 5, 1: 3}, {0: 5, 1: 3})) == 0


def test_the_oldest_block_that_waits_in_any_partition_tells() -> None:
    assert lag_after(({0: 5, 1: 3}, {0: 5, 1: 2}), ({0: 9, 1: 3}, {0: 9, 1: 2})) == 1
    assert lag_after(({0: 5}, {}), ({0: 6}, {0: 5}), ({0: 7}, {0: 5}), ({0: 7}, {0: 6})) == 1


def test_while_it_drains_what_is_left_is_as_old_as_it_was() -> None:
    grows = [({0: offset}, {0: 0}) for offset in range(1, 61)]
    assert lag_after(*grows) == 59
    assert lag_after(*grows, ({0: 60}, {0: 30})) == 30
    assert lag_after(*grows, ({0: 60}, {0: 60})) == 0


def test_a_long_outage_takes_no_more_memory() -> None:
    clock = Clock()
    lag = CountingLag(clock)
    for offset in range(1, 10_000):
        clock.now += 1
        lag.look({0: offset}, {0: 0})
        assert len(lag._looks) <= LOOKS_MAX
    assert lag.seconds == 9_998
