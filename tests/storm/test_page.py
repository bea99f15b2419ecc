"""docs/RELIABILITY.md is what its figures render to."""

from tests.storm import page, report
from tests.storm.figures import Figure
from tests.storm.plan import KINDS, Fault
from tests.storm.probe import Recovery
from tests.storm.storm import Options, Outcome, Struck


def test_the_page_is_made_of_the_figures() -> None:
    assert page.PAGE.read_text() == page.render(page.read())


def test_figures_take_the_place_of_their_section_only() -> None:
    old = Figure("Zombies", "a", "0", "1", False)
    other = Figure("Outages", "b", "0", "0", True)
    new = Figure("Zombies", "c", "0", "0", True)
    results = page.with_figures({"storms": [], "figures": {}}, [old, other])
    results = page.with_figures(results, [new])
    assert results["figures"] == {"Zombies": [new._asdict()], "Outages": [other._asdict()]}
    shown = page.render(results)
    assert "| c | 0 | 0 | yes |" in shown
    assert "| b | 0 | 0 | yes |" in shown
    assert "**no**" not in shown


def test_a_figure_that_was_not_reached_is_shown_so() -> None:
    figures = [Figure("Zombies", "a", "0", "1", False)]
    shown = page.render(page.with_figures({"storms": [], "figures": {}}, figures))
    assert "| a | 0 | 1 | **no** |" in shown


def test_a_storm_of_the_same_seed_and_kinds_is_replaced() -> None:
    first, again, other = (
        {"seed": seed, "kinds": ["kill"], "seconds": seconds}
        for seed, seconds in [(1, 1), (1, 2), (2, 3)]
    )
    results = page.with_storm({"storms": [], "figures": {}}, first)
    assert page.with_storm(results, again)["storms"] == [again]
    assert page.with_storm(results, other)["storms"] == [other, first]


def test_what_was_left_out_of_any_storm_is_shown() -> None:
    older, newest = (
        Outcome(Options(seed, 1, 0, KINDS, 3.0), landed=2, given_up=5) for seed in (1, 2)
    )
    older.left_out["full"] = "mount: only root can do that"
    for each in (older, newest):
        each.struck.append(Struck(Fault("kill", "kafka", 0.1), True, Recovery(1, 2), ("kafka",)))
    results = page.with_storm({"storms": [], "figures": {}}, report.document(older))
    shown = page.render(page.with_storm(results, report.document(newest)))
    assert "Left out with seed 1: full, for mount: only root can do that." in shown
    assert "Left out with seed 2" not in shown
    assert "5; 2 of these blocks were in all the same" in shown
