"""Simulations by hand, from the root of the repository:

python -m tests.simulation late 25:pause     a history again, with faults at effects
python -m tests.simulation --pairs late      a history with every two faults
python -m tests.simulation --seed 7          what chance did with a seed again
python -m tests.simulation --minutes 10      one seed after the other (from --seed on)
"""

import argparse
import sys
import time
from itertools import count

from tests.simulation.deeds import chaos
from tests.simulation.histories import HISTORIES
from tests.simulation.runs import Failed, from_text, further_faults, run, single_faults
from tests.simulation.world import told


def main() -> None:
    """See above; the status is 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("history", nargs="?", choices=sorted(HISTORIES))
    parser.add_argument("faults", nargs="*", help="effect:fault")
    parser.add_argument("--pairs", action="store_true", help="every two faults of the history")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deeds", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=0.0)
    given = parser.parse_args()
    try:
        if given.history is None:
            _seeds(given.seed, given.deeds, given.minutes)
        elif given.pairs:
            _pairs(given.history)
        else:
            _say(told(run(given.history, from_text(given.faults))))
    except Failed as error:
        _say(str(error))
        sys.exit(1)


def _seeds(first: int, deeds: int, minutes: float) -> None:
    until, effects = time.monotonic() + 60 * minutes, 0
    for seed in count(first):
        effects += chaos(seed, deeds)
        if time.monotonic() >= until:
            _say(f"{seed + 1 - first} seeds from {first} on, {effects} effects: nothing wrong")
            return


def _pairs(name: str) -> None:
    runs = 0
    for plan in single_faults(name):
        for further in further_faults(name, plan):
            run(name, further)
            runs += 1
    _say(f"{runs} pairs of faults: nothing wrong")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
