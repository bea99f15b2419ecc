"""Storms of one special kind of fault, as figures of docs/RELIABILITY.md."""

from collections.abc import Sequence

from tests.storm import report
from tests.storm.figures import Figure
from tests.storm.storm import Outcome

ZOMBIES = 20


def zombies(outcome: Outcome) -> Figure:
    """A storm of zombies: they were made, and some of them had to be refused."""
    hit, session_s = outcome.hits["zombie"], outcome.options.session_s
    return Figure(
        "Zombies",
        f"a counter stopped for {2 * session_s:g} s, twice the session timeout, under load, while"
        " another takes at least one of its partitions, then continued",
        "20 times: 0 lost, 0 doubled",
        f"{hit} times: {_found(outcome)}; {outcome.fenced} ended as they found their partition"
        " to have another owner",
        hit >= ZOMBIES and outcome.fenced > 0 and report.passed(outcome),
    )


def lost_state(outcome: Outcome) -> Sequence[Figure]:
    """A storm in which a counter's claims are lost, or older: both have to have happened."""
    whats = {
        "forget": "a counter killed under load, all claims on its disk deleted",
        "older": "a counter killed under load, an older copy of its claims put back",
    }
    return [
        Figure(
            "Lost state",
            what,
            "0 lost, 0 doubled",
            f"{outcome.hits[kind]} times: {_found(outcome)}",
            outcome.hits[kind] > 0 and report.passed(outcome),
        )
        for kind, what in whats.items()
    ]


def _found(outcome: Outcome) -> str:
    findings, rows = outcome.findings, sum(outcome.findings.verdicts.values())
    if outcome.failure:
        return outcome.failure
    slowest = max((each.recovery.counted for each in outcome.struck), default=0.0)
    return (
        f"{findings.lost} lost, {findings.doubled} doubled, {len(findings.differing)} differing of"
        f" {rows:,} rows; counted again after at most {slowest:.1f} s"
    )
