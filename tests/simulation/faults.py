"""Faults: what can go wrong at an effect.

kill       The process dies right before it; what it has sent to the engine goes on by itself.
lose, age  The same, and its disk is new afterwards, or an older copy.
pause      The process stops, others take over, and it goes on when they are done.
no_answer, deny, unknown, late, away
           A question isn't answered; a send or commit isn't done, or is done without an answer, or
           will be done after everything else; the catalog is away.
hang       The statement stops here: no answer comes, and it goes on later.
refuse     The statement ends here with an error.
engine     The engine dies; with `amnesia` the tokens of the statement at hand are forgotten.
"""

from tests.simulation.world import Step

_ENGINE: dict[str, tuple[str, ...]] = {
    "arrival": ("kill", "hang", "refuse", "engine"),
    "events token": ("hang", "refuse", "engine"),
    "events part": ("hang", "refuse", "engine", "pause"),
    "states token": ("kill", "hang", "refuse", "engine", "amnesia"),
    "states part": ("hang", "refuse", "engine", "pause"),
    "answer": ("kill", "hang", "engine", "amnesia"),
}
_PROCESS: dict[str, tuple[str, ...]] = {
    "ask": ("kill", "lose", "pause", "no_answer"),
    "send": ("kill", "lose", "pause"),
    "claims": ("kill", "lose", "age"),
    "deliver": ("kill", "deny", "unknown", "late", "pause"),
    "commit of sources": ("kill", "deny", "unknown", "pause"),
    "commit of blocks": ("kill", "lose", "pause"),
    "catalog": ("kill", "away", "pause"),
}


def possible(step: Step) -> tuple[str, ...]:
    """What can go wrong at this effect."""
    table = _ENGINE if step.who == "engine" else _PROCESS
    return next(faults for start, faults in table.items() if step.what.startswith(start))
