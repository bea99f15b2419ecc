"""Billing periods: the semantics' sentences, and every period against brute force."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.periods import Period, period_at, periods
from schemas.plans import BillingPeriod, Subscription
from tests.billing import calendar
from tests.billing.sold import ZONES, at, make_subscription


def shown(subscription: Subscription, until: str, since: str | None = None) -> list[str]:
    """Starts of the periods, the last one's end behind them; UTC."""
    found = list(periods(subscription, at(until), None if since is None else at(since)))
    assert all(one.end == other.start for one, other in pairwise(found))
    return [f"{moment:%y-%m-%d %H:%M}".replace(" 00:00", "") for moment in _edges(found)]


def _edges(found: list[Period]) -> list[datetime]:
    return [one.start for one in found] + [one.end for one in found[-1:]]


def test_month_ends_clamp_from_the_anchors_day_and_do_not_drift() -> None:
    monthly = make_subscription("2025-01-31")
    assert shown(monthly, "2025-05-01") == [
        "25-01-31",
        "25-02-28",
        "25-03-31",
        "25-04-30",
        "25-05-31",
    ]


def test_the_29th_of_february_returns() -> None:
    annual = make_subscription("2024-02-29", period="ANNUAL")
    assert shown(annual, "2028-01-01") == [
        "24-02-29",
        "25-02-28",
        "26-02-28",
        "27-02-28",
        "28-02-29",
    ]


@pytest.mark.parametrize(
    ("period", "count", "second", "third"),
    [
        ("DAILY", 1, "25-01-16", "25-01-17"),
        ("DAILY", 10, "25-01-25", "25-02-04"),
        ("WEEKLY", 1, "25-01-22", "25-01-29"),
        ("WEEKLY", 2, "25-01-29", "25-02-12"),
        ("MONTHLY", 1, "25-02-15", "25-03-15"),
        ("MONTHLY", 2, "25-03-15", "25-05-15"),
        ("QUARTERLY", 1, "25-04-15", "25-07-15"),
        ("HALF_YEARLY", 1, "25-07-15", "26-01-15"),
        ("ANNUAL", 1, "26-01-15", "27-01-15"),
        ("ANNUAL", 3, "28-01-15", "31-01-15"),
    ],
)
def test_an_anniversary_comes_back_by_unit_and_count(
    period: str, count: int, second: str, third: str
) -> None:
    found = shown(make_subscription("2025-01-15", period=period, count=count), "2032-01-01")
    assert found[:3] == ["25-01-15", second, third]


@pytest.mark.parametrize(
    ("period", "count", "second", "third"),
    [
        ("DAILY", 1, "25-02-14", "25-02-15"),
        ("WEEKLY", 1, "25-02-17", "25-02-24"),
        ("WEEKLY", 2, "25-02-17", "25-03-03"),
        ("MONTHLY", 1, "25-03-01", "25-04-01"),
        ("MONTHLY", 5, "25-03-01", "25-08-01"),
        ("QUARTERLY", 1, "25-04-01", "25-07-01"),
        ("HALF_YEARLY", 1, "25-07-01", "26-01-01"),
        ("ANNUAL", 1, "26-01-01", "27-01-01"),
    ],
)
def test_a_calendars_first_period_runs_to_the_next_boundary(
    period: str, count: int, second: str, third: str
) -> None:
    subscription = make_subscription(
        "2025-02-13 09:30", period=period, count=count, cycle="calendar"
    )
    assert shown(subscription, "2028-01-01")[:3] == ["25-02-13 09:30", second, third]


def test_a_calendar_that_starts_on_a_boundary_has_a_whole_first_period() -> None:
    subscription = make_subscription("2025-03-01", count=2, cycle="calendar")
    assert shown(subscription, "2025-05-02") == ["25-03-01", "25-05-01", "25-07-01"]


def test_boundaries_are_local_wall_times() -> None:
    berlin = make_subscription("2025-03-01 00:00+01:00", zone="Europe/Berlin")
    assert shown(berlin, "2025-05-01") == [
        "25-02-28 23:00",
        "25-03-31 22:00",
        "25-04-30 22:00",
        "25-05-31 22:00",
    ]


def test_a_boundary_that_does_not_exist_moves_forward_by_the_gap() -> None:
    berlin = make_subscription("2025-03-28 02:30+01:00", period="DAILY", zone="Europe/Berlin")
    assert shown(berlin, "2025-03-31") == [
        "25-03-28 01:30",
        "25-03-29 01:30",
        "25-03-30 01:30",  # 03:30 of the summer
        "25-03-31 00:30",
    ]


def test_an_ambiguous_boundary_is_the_first() -> None:
    berlin = make_subscription("2025-10-25 02:30+02:00", period="DAILY", zone="Europe/Berlin")
    assert shown(berlin, "2025-10-27") == [
        "25-10-25 00:30",
        "25-10-26 00:30",
        "25-10-27 01:30",
    ]


def test_a_day_that_does_not_exist_is_no_period() -> None:
    apia = make_subscription("2011-12-29 00:00-10:00", period="DAILY", zone="Pacific/Apia")
    assert (
        shown(apia, "2011-12-31 12:00")
        == [
            "11-12-29 10:00",
            "11-12-30 10:00",
            "11-12-31 10:00",
            "12-01-01 10:00",
        ][:4]
    )


def test_start_and_end_cut_the_first_and_the_last_period_which_remember_the_whole() -> None:
    subscription = make_subscription("2025-01-10", "2025-02-20", anchor="2024-06-01")
    assert list(periods(subscription, at("2026-01-01"))) == [
        Period(
            start=at("2025-01-10"),
            end=at("2025-02-01"),
            plan_id="plan_a",
            plan_start=at("2025-01-10"),
            whole_start=at("2025-01-01"),
            whole_end=at("2025-02-01"),
        ),
        Period(
            start=at("2025-02-01"),
            end=at("2025-02-20"),
            plan_id="plan_a",
            plan_start=at("2025-01-10"),
            whole_start=at("2025-02-01"),
            whole_end=at("2025-03-01"),
        ),
    ]


def test_a_plan_change_cuts_a_period_in_two_and_the_anchor_stays() -> None:
    changed = make_subscription("2025-01-31", changes={"plan_b": "2025-03-10"})
    found = [(f"{one.start:%m-%d}", one.plan_id) for one in periods(changed, at("2025-04-30"))]
    assert found == [
        ("01-31", "plan_a"),
        ("02-28", "plan_a"),
        ("03-10", "plan_b"),
        ("03-31", "plan_b"),
    ]
    second = period_at(changed, at("2025-03-10"))
    assert second is not None
    assert (second.start, second.end, second.plan_start, second.whole_start) == (
        at("2025-03-10"),
        at("2025-03-31"),
        at("2025-03-10"),
        at("2025-02-28"),
    )


def test_a_plan_change_on_a_boundary_cuts_nothing() -> None:
    changed = make_subscription("2025-01-01", changes={"plan_b": "2025-02-01"})
    assert shown(changed, "2025-03-01") == ["25-01-01", "25-02-01", "25-03-01"]


def test_a_plan_left_at_once_has_no_period() -> None:
    changed = make_subscription("2025-01-01", changes={"plan_b": "2025-01-01"})
    assert [one.plan_id for one in periods(changed, at("2025-03-01"))] == ["plan_b", "plan_b"]


def test_a_plan_left_at_once_within_a_period_has_none_either() -> None:
    changes = {"plan_b": "2025-01-10", "plan_c": "2025-01-10"}
    changed = make_subscription("2025-01-01", changes=changes)
    assert [one.plan_id for one in periods(changed, at("2025-02-01"))] == ["plan_a", "plan_c"]
    found = period_at(changed, at("2025-01-10"))
    assert found is not None
    assert found.plan_id == "plan_c"


def test_periods_end_where_the_subscription_ended() -> None:
    ended = make_subscription("2025-01-01", "2025-01-01", changes={"plan_b": "2025-02-01"})
    assert list(periods(ended, at("2030-01-01"))) == []
    assert period_at(ended, at("2025-01-01")) is None


def test_a_moment_outside_the_subscription_is_in_no_period() -> None:
    subscription = make_subscription("2025-01-15", "2025-02-15")
    assert period_at(subscription, at("2025-01-14 23:59:59.999")) is None
    assert period_at(subscription, at("2025-02-15")) is None
    last = period_at(subscription, at("2025-02-14 23:59:59.999"))
    assert last is not None
    assert last.end == at("2025-02-15")


def test_periods_go_on_where_the_last_closed_one_ended() -> None:
    monthly = make_subscription("2025-01-31")
    assert shown(monthly, "2025-04-01", since="2025-02-28") == ["25-02-28", "25-03-31", "25-04-30"]


def test_digits_beyond_the_millisecond_are_cut_as_those_of_events_are() -> None:
    subscription = make_subscription("2025-01-31 10:00:00.123987")
    assert next(periods(subscription, at("2026-01-01"))).start == at("2025-01-31 10:00:00.123")


def test_one_period_of_an_old_daily_subscription_costs_as_little_as_the_first() -> None:
    old = make_subscription("1990-01-01", period="DAILY", zone="Europe/Berlin")
    started = time.perf_counter()
    for _ in range(100):
        assert period_at(old, at("2030-06-01 12:00")) is not None
    assert time.perf_counter() - started < 0.5  # 15,000 steps each would take a minute


moments = st.integers(0, 60 * 366 * 24 * 4).map(
    lambda quarters: datetime(1988, 1, 1, tzinfo=UTC) + timedelta(minutes=15 * quarters)
)
lengths = st.one_of(
    st.integers(1, 1500).map(lambda hours: timedelta(hours=hours)),
    st.integers(1, 4 * 365).map(lambda days: timedelta(days=days)),
)
near_changes = st.sampled_from(
    [at("2011-12-28 11:00"), at("2025-03-29 01:30"), at("2018-11-03 03:00"), at("2024-02-29 23:45")]
)


@st.composite
def subscriptions(draw: st.DrawFn) -> Subscription:
    """Any start, zone, count, cycle and anchor; sometimes with an end and plan changes."""
    start = draw(near_changes | moments)
    ends = start + draw(lengths)
    changes = sorted(draw(st.lists(lengths, max_size=2, unique=True)))
    return make_subscription(
        start,
        draw(st.none() | st.just(ends)),
        draw(st.sampled_from([unit.value for unit in BillingPeriod])),
        count=draw(st.integers(1, 4)),
        cycle=draw(st.sampled_from(["anniversary", "calendar"])),
        anchor=draw(st.none() | st.just(start - draw(lengths)) | st.just(start + draw(lengths))),
        zone=draw(st.sampled_from(ZONES)),
        changes={f"plan_{n}": start + length for n, length in enumerate(changes)},
    )


@settings(max_examples=80, deadline=None)
@given(subscriptions(), st.integers(0, 100))
def test_periods_tile_the_subscription_as_brute_force_finds_them(
    subscription: Subscription, days: int
) -> None:
    until = subscription.start + timedelta(days=days)
    found = list(periods(subscription, until))
    assert [(one.start, one.end, one.plan_id) for one in found] == calendar.spans(
        subscription, until
    )
    for one in found:
        assert one.whole_start <= one.start < one.end <= one.whole_end
        assert one.plan_start == max(
            phase.start for phase in subscription.phases if phase.start <= one.start
        )


@settings(max_examples=150, deadline=None)
@given(subscriptions(), lengths)
def test_the_period_at_a_moment_is_the_one_of_the_list_that_holds_it(
    subscription: Subscription, later: timedelta
) -> None:
    moment = subscription.start + later
    known: list[Period | None] = [
        one
        for one in periods(subscription, moment + timedelta(days=1), since=moment)
        if one.start <= moment < one.end
    ]
    assert [period_at(subscription, moment)] == (known or [None])
    ended = subscription.end is not None and subscription.end <= moment
    assert bool(known) is not ended
