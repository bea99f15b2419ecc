"""Outages, each for some seconds: what has to be so however busy the machine is.

How fast a lag is made good, and what an answer takes, is for `python -m tests.storm --outages`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.sqlite import moved_away
from tests.storm import outages
from tests.storm.figures import Figure
from tests.storm.servers import Ground, ground

pytestmark = pytest.mark.e2e
SPEEDS = ("drains at", "p99", "from its return", "longest answer")
"""Figures that depend on what else the machine does."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outages")


@pytest.fixture(scope="module")
def here(folder: Path) -> Iterator[Ground]:
    """A Tallylog on servers of its own."""
    with ground(folder) as running:
        yield running


def unmet(figures: Sequence[Figure]) -> list[str]:
    return [
        f"{figure.what}: {figure.measured}, not {figure.target}"
        for figure in figures
        if not figure.met and not any(speed in figure.what for speed in SPEEDS)
    ]


def test_the_rate_of_a_drain_is_not_that_of_its_first_jump() -> None:
    """What the first look sees anew has been counted since the look before it."""
    drain = outages.Drain(at=10.0)
    drain.see(10.0, 10.1, 100)
    assert not drain.begun
    for began, counted in [(10.2, 100), (10.4, 20_100), (10.6, 31_100)]:
        drain.see(began, began + 0.1, counted)
    assert drain.begun
    assert drain.rate == pytest.approx(31_000 / 0.5)


def test_without_a_catalog_known_keys_go_on(here: Ground) -> None:
    moved = moved_away(Path(here.tallylog.data_dir))
    assert unmet(outages.catalog_away(here, "moved", moved, "file moved", 4)) == []


def test_without_the_store_requests_go_on_and_the_lag_shows(here: Ground) -> None:
    assert unmet(outages.store_away(here, "no.store", "killed", 7)) == []


def test_without_the_broker_nothing_is_accepted_and_nothing_lost(here: Ground) -> None:
    assert unmet(outages.broker_away(here, "no.broker", "killed", 12)) == []


def test_the_largest_bodies_of_many_are_taken_or_refused(here: Ground) -> None:
    assert unmet(outages.flood(here, "flood", 15)) == []


def test_a_producer_whose_sequence_the_broker_forgot_is_replaced(
    here: Ground, folder: Path
) -> None:
    assert unmet(outages.producer_wedged(here, folder, "wedged")) == []
