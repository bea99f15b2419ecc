"""Events without ids: each send of one is a row, and nothing but its properties says which."""

from collections.abc import Mapping

from tests.storm.events import Name, Nameless
from tests.storm.findings import Findings
from tests.storm.journal import Copies

Stored = Mapping[str, Mapping[str, int]]
"""By serial, how many rows have which verdict."""


def compare(
    sent: Mapping[Name, tuple[Nameless, Copies]], stored: Stored, findings: Findings
) -> int:
    """Note what is lost, doubled or judged wrongly; what the rows that are in have to sum to.

    There are as many rows of an event as sends were acked, and no more than were acked or unknown.
    """
    left = {serial: dict(verdicts) for serial, verdicts in stored.items()}
    total = 0
    for name, (event, copies) in sent.items():
        seen = left.pop(str(name), {})
        findings.verdicts.update(seen)
        rows = sum(seen.values())
        findings.lost += max(copies.acked - rows, 0)
        findings.doubled += max(rows - copies.acked - copies.unknown, 0)
        if seen.keys() - {"counted"}:
            findings.differing.append(f"{name}, which has no id, is {seen}")
        total += event.n * seen.get("counted", 0)
    for serial, seen in left.items():
        findings.doubled += sum(seen.values())
        findings.differing.append(f"{serial}, which has no id, is {seen}, and was never sent")
    return total
