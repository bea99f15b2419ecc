"""When a consumer is taken for dead, and when it is only slow."""

from stream_workers.silence import PATIENCE, Silence


def test_blocks_that_wait_while_nothing_comes_are_silence() -> None:
    silence = Silence(30)
    assert silence.look(0, {3: 23}, 100) is None
    assert silence.look(30, {3: 23}, 100) is None
    assert silence.look(31, {3: 23}, 100) == 3


def test_a_partition_waits_longer_while_blocks_of_others_come() -> None:
    silence = Silence(30)
    for second in range(0, 30 * PATIENCE + 1, 10):
        assert silence.look(second, {3: 23}, second) is None
    assert silence.look(30 * PATIENCE + 1, {3: 23}, 1000) == 3


def test_a_block_that_came_or_nothing_that_waits_begins_anew() -> None:
    silence = Silence(30)
    silence.look(0, {3: 23}, 100)
    assert silence.look(40, {3: 24}, 101) is None
    silence.look(60, {}, 101)
    assert silence.look(90, {3: 24}, 101) is None
    assert silence.look(121, {3: 24}, 101) == 3
