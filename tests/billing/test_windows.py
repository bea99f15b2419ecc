"""Windows at changes of the clock, and buckets as runs."""

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.windows import HOUR_MS, Runs, buckets, to_datetime, to_ms, windows
from schemas.catalog import Window


def starts(start: str, end: str, window: Window, zone: str, anchor: str | None = None) -> list[str]:
    spans = windows(
        to_ms(datetime.fromisoformat(start)),
        to_ms(datetime.fromisoformat(end)),
        window,
        ZoneInfo(zone),
        None if anchor is None else datetime.fromisoformat(anchor),
    )
    return [f"{to_datetime(span.label):%m-%d %H:%M}" for span in spans]


def test_a_repeated_hour_is_two_windows() -> None:
    found = starts("2025-10-26T00:00Z", "2025-10-26T03:00Z", Window.HOUR, "Europe/Berlin")
    assert found == ["10-26 00:00", "10-26 01:00", "10-26 02:00"]


def test_a_midnight_that_does_not_exist_moves_forward() -> None:
    found = starts("2018-11-03T12:00Z", "2018-11-05T12:00Z", Window.DAY, "America/Sao_Paulo")
    assert found == ["11-03 03:00", "11-04 03:00", "11-05 02:00"]


def test_a_day_that_does_not_exist_is_no_window() -> None:
    found = starts("2011-12-29T12:00Z", "2011-12-31T12:00Z", Window.DAY, "Pacific/Apia")
    assert found == ["12-29 10:00", "12-30 10:00", "12-31 10:00"]


def test_clocks_that_move_by_half_an_hour_start_an_hour_of_their_own() -> None:
    found = starts("2025-04-05T14:00Z", "2025-04-05T16:45Z", Window.HOUR, "Australia/Lord_Howe")
    assert found == ["04-05 14:00", "04-05 15:00", "04-05 15:30", "04-05 16:30"]


def test_months_keep_the_anchors_day_and_clamp_to_short_ones() -> None:
    found = starts(
        "2025-01-31T09:00Z", "2025-04-30T09:00Z", Window.MONTH, "UTC", "2024-12-31T08:30Z"
    )
    assert found == ["01-31 08:30", "02-28 08:30", "03-31 08:30", "04-30 08:30"]


def test_weeks_start_on_monday() -> None:
    found = starts("2025-01-01T00:00Z", "2025-01-13T00:00Z", Window.WEEK, "UTC")
    assert found == ["12-30 00:00", "01-06 00:00"]


def test_a_year_of_minutes_is_one_run() -> None:
    year = (to_ms(datetime(2025, 1, 1, tzinfo=UTC)), to_ms(datetime(2026, 1, 1, tzinfo=UTC)))
    assert buckets(*year, Window.MINUTE, ZoneInfo("UTC")) == Runs([year[0]], [60_000])


@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "Asia/Kathmandu", "Europe/Berlin"])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10 * HOUR_MS), st.integers(1, 30 * HOUR_MS), st.sampled_from(list(Window)))
def test_buckets_are_the_windows_of_the_same_size(
    zone: str, shift: int, length: int, size: Window
) -> None:
    changes = {
        "Australia/Lord_Howe": datetime(2025, 4, 5, 10, tzinfo=UTC),
        "Asia/Kathmandu": datetime(2025, 6, 30, 18, 15, tzinfo=UTC),
        "Europe/Berlin": datetime(2025, 3, 29, 20, tzinfo=UTC),
    }
    start = to_ms(changes[zone]) + shift
    end = start + length
    runs = buckets(start, end, size, ZoneInfo(zone))
    spans = windows(start, end, size, ZoneInfo(zone))
    assert list(runs.cuts(end)) == [span.start for span in spans]
    for (first, following), step in zip(pairwise([*runs.firsts, end]), runs.steps, strict=True):
        assert (following - first) % step == 0
    for grain in (60_000, 900_000, HOUR_MS):
        assert list(runs.cuts_off(end, grain)) == [cut for cut in runs.cuts(end) if cut % grain]
