"""The page says what analysts cost, also when that is too much."""

from benchmarks.analysts import Found
from tests.storm.sql_port import figures


def test_p99_beside_analysts_is_shown_as_a_multiple() -> None:
    found = Found(
        without=[(0.01, 0.5), (0.02, 0.4)],
        beside=[(0.02, 1.2), (0.022, 1.2)],
        loop=[(0.03, 0.6), (0.03, 0.6)],
    )
    accepted, counted = figures(found)
    assert (accepted.section, accepted.met, counted.met) == ("SQL port", True, False)
    assert (
        accepted.measured
        == "1.40 (21 ms, 15 ms without; 30 ms beside a loop of the lowest priority)"
    )
    assert counted.measured == (
        "2.67 (1,200 ms, 450 ms without; 600 ms beside a loop of the lowest priority)"
    )
    assert accepted.target == counted.target == "1.5 times that without them"
