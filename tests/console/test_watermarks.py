"""Watermarks: never ahead of what is counted, whatever order things happen in."""

from hypothesis import given
from hypothesis import strategies as st

from console import watermarks
from console.watermarks import Sample, Watermarks


def sample(at: int, end: int, packed: int, blocks: int, counted: int) -> Sample:
    return Sample(at, {"t": {0: end}}, {"t": {0: packed}}, {0: blocks}, {0: counted})


def packed_until(marks: Watermarks, topic: str = "t") -> int | None:
    mark = marks.packed(topic)
    return None if mark is None else mark.at


def counted_until(marks: Watermarks, topic: str = "t") -> int | None:
    mark = marks.counted(topic)
    return None if mark is None else mark.at


def test_an_idle_pipeline_is_counted_up_to_the_last_look() -> None:
    marks = Watermarks()
    marks.take_in(sample(10, 5, 5, 2, 2))
    assert (packed_until(marks), counted_until(marks)) == (10, 10)
    marks.take_in(sample(20, 5, 5, 2, 2))
    assert counted_until(marks) == 20


def test_nothing_is_known_before_the_first_sample_is_counted() -> None:
    marks = Watermarks()
    marks.take_in(sample(10, 5, 4, 2, 2))
    assert (packed_until(marks), counted_until(marks)) == (None, None)
    assert counted_until(marks, "other") is None


def test_each_stage_moves_by_itself() -> None:
    marks = Watermarks()
    marks.take_in(sample(10, 5, 5, 2, 2))
    marks.take_in(sample(20, 9, 7, 3, 2))
    marks.take_in(sample(30, 9, 9, 4, 3))
    assert (packed_until(marks), counted_until(marks)) == (30, 10)
    marks.take_in(sample(40, 9, 9, 4, 4))
    assert counted_until(marks) == 40


def test_a_topic_that_was_never_packed_waits_and_one_that_is_gone_is_forgotten() -> None:
    marks = Watermarks()
    marks.take_in(Sample(10, {"a": {0: 3}, "b": {0: 0}}, {}, {0: 0}, {}))
    assert (counted_until(marks, "a"), counted_until(marks, "b")) == (None, 10)
    marks.take_in(Sample(20, {"a": {0: 3}}, {"a": {0: 3}}, {0: 0}, {}))
    assert (counted_until(marks, "a"), counted_until(marks, "b")) == (20, None)


def test_figures_of_lag_are_records_and_blocks() -> None:
    each = Sample(1, {"t": {0: 9, 1: 4}}, {"t": {0: 7}}, {0: 5, 1: 1}, {0: 5})
    assert (each.records_waiting("t"), each.blocks_waiting()) == (6, 1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=120), st.integers(2, 512))
def test_a_watermark_is_never_ahead_of_what_is_counted(steps: list[int], waiting: int) -> None:
    """Each event is one record and one block; at every moment one of four things happens."""
    limit, watermarks.WAITING_MAX = watermarks.WAITING_MAX, waiting
    try:
        marks = Watermarks()
        received: list[int] = []
        packed = counted = 0
        for now, step in enumerate(steps, start=1):
            if step == 0:
                received.append(now)
            elif step == 1:
                packed = min(packed + 1, len(received))
            elif step == 2:
                counted = min(counted + 1, packed)
            else:
                marks.take_in(sample(now, len(received), packed, packed, counted))
                mark = counted_until(marks)
                assert mark is None or all(at >= mark for at in received[counted:])
        marks.take_in(sample(1000, len(received), len(received), len(received), len(received)))
        assert counted_until(marks) == 1000
    finally:
        watermarks.WAITING_MAX = limit
