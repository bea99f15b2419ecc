"""A storm's outcome: as a table for people, as JSON for the page."""

import os
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from tests.storm.parts import PARTS
from tests.storm.plan import FAILPOINTS, WEIGHTS
from tests.storm.storm import Outcome, Struck

RECOVERY_MAX_S = 30.0


def passed(outcome: Outcome) -> bool:
    """Whether nothing was lost, doubled or different, and every recovery was quick enough."""
    return not outcome.failure and outcome.findings.well and not slow(outcome)


def slow(outcome: Outcome) -> list[Struck]:
    """Faults that took too long to get over."""
    return [each for each in outcome.struck if _longest(each) > RECOVERY_MAX_S]


def document(outcome: Outcome) -> dict[str, Any]:
    """All figures, as JSON."""
    options, findings = outcome.options, outcome.findings
    return {
        "seed": options.seed,
        "kinds": [kind for kind in options.kinds if kind not in outcome.left_out],
        "left_out": outcome.left_out,
        "session_timeout_s": options.session_s,
        "machine": machine(),
        "seconds": round(outcome.seconds),
        "rounds": outcome.rounds,
        "faults": _faults(outcome),
        "kills": {part: outcome.kills[part] for part in PARTS},
        "failpoints": _failpoints(outcome),
        "recovery_s": {
            part: _times([each for each in outcome.struck if part in _hurt(each)]) for part in PARTS
        },
        "sent": {"acked": 0, "refused": 0, "unknown": 0} | dict(outcome.sends),
        "verdicts": dict(sorted(findings.verdicts.items())),
        "usage_compared": findings.asked,
        "lost": findings.lost,
        "doubled": findings.doubled,
        "differing": findings.differing,
        "fenced": outcome.fenced,
        "inserts_given_up": outcome.given_up,
        "landed_after_all": outcome.landed,
        "resent": outcome.resent,
        "failure": outcome.failure,
        "passed": passed(outcome),
    }


def machine() -> str:
    """What kind of machine this is."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def shown(outcome: Outcome) -> RenderableType:
    """The outcome as tables."""
    found = document(outcome)
    hurt = Table("part", "killed", "faults", "recovered, s: median", "max")
    for part in PARTS:
        times = found["recovery_s"][part]
        faults = ", ".join(f"{kind} {count}" for kind, count in found["faults"][part].items())
        middle, most = ("", "") if times is None else (times["median"], times["max"])
        hurt.add_row(part, str(found["kills"][part]), faults, str(middle), str(most))
    points = Table("failpoint", "hit", "nobody came by")
    for name, (hit, missed) in found["failpoints"].items():
        points.add_row(name, str(hit), str(missed))
    rest = Table("what", "how many")
    for name in ("acked", "refused", "unknown"):
        rest.add_row(f"events sent, {name}", f"{found['sent'][name]:,}")
    for verdict, count in found["verdicts"].items():
        rest.add_row(f"rows {verdict}", f"{count:,}")
    rest.add_row("questions of usage compared", f"{found['usage_compared']:,}")
    rest.add_row("late events sent again by the sweep", f"{found['resent']:,}")
    rest.add_row("counters that ended as another owned their partition", str(found["fenced"]))
    rest.add_row("inserts given up after their timeout", str(found["inserts_given_up"]))
    rest.add_row("blocks that were in all the same", str(found["landed_after_all"]))
    for name in ("lost", "doubled"):
        rest.add_row(name, _marked(found[name]))
    rest.add_row("differing", _marked(len(found["differing"])))
    rest.add_row(f"recoveries over {RECOVERY_MAX_S:g} s", _marked(len(slow(outcome))))
    return Group(hurt, *([points] if found["failpoints"] else []), rest)


def _marked(count: int) -> str:
    return f"[green]{count}" if count == 0 else f"[red]{count}"


def _faults(outcome: Outcome) -> dict[str, dict[str, int]]:
    """By part and kind, how many faults hit it."""
    counts: Counter[tuple[str, str]] = Counter()
    for each in outcome.struck:
        killed = set(each.killed)
        if each.hit and each.fault.kind != "kill":
            counts[each.fault.part, each.fault.kind] += 1
            killed.discard(each.fault.part)
        counts.update((part, "kill") for part in killed)
    return {
        part: {kind: counts[part, kind] for kind in WEIGHTS if counts[part, kind]} for part in PARTS
    }


def _failpoints(outcome: Outcome) -> dict[str, tuple[int, int]]:
    """By failpoint, how often it was hit, and armed for nothing."""
    armed = [each for each in outcome.struck if each.fault.kind == "failpoint"]
    counts = Counter((each.fault.name, each.hit) for each in armed)
    return {
        name: (counts[name, True], counts[name, False])
        for name in FAILPOINTS
        if any(each.fault.name == name for each in armed)
    }


def _hurt(each: Struck) -> tuple[str, ...]:
    return (each.fault.part, each.fault.beside)


def _longest(each: Struck) -> float:
    return max(each.recovery)


def _times(struck: Sequence[Struck]) -> dict[str, float] | None:
    """Median and greatest time until all was well again, s."""
    if not struck:
        return None
    times = [_longest(each) for each in struck]
    return {"median": round(statistics.median(times), 1), "max": round(max(times), 1)}
