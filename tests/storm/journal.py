"""What producers sent in a storm, and what they know became of it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.storm.events import ROUNDS_BACK, Event, Name, Nameless, Sent

Outcome = Literal["acked", "refused", "unknown"]
"""acked: 202, or the broker's ack. refused: it can't be in. unknown: timeout, reset, 5xx."""


@dataclass(slots=True)
class Copies:
    """How often something was sent: so often for sure, and maybe so many times more."""

    acked: int = 0
    unknown: int = 0

    def add(self, outcome: Outcome) -> None:
        """One more was sent."""
        self.acked += outcome == "acked"
        self.unknown += outcome == "unknown"

    def allow(self, seen: int) -> bool:
        """Whether the store may hold so many."""
        return self.acked <= seen <= self.acked + self.unknown


@dataclass
class Round:
    """What was sent of the events that belong to one round, in whichever round."""

    events: dict[Name, tuple[Event, Copies]] = field(default_factory=dict)
    letters: dict[bytes, Copies] = field(default_factory=dict)
    nameless: dict[Name, tuple[Nameless, Copies]] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One send."""

    at: float
    round: int
    producer: str
    outcome: Outcome
    why: str
    ids: list[str]


class Journal:
    """Every send of a storm. Producers write it from their threads."""

    def __init__(self) -> None:
        self.rounds: dict[int, Round] = {}
        self.outcomes: Counter[str] = Counter()
        """Events by the outcome of their send, each time that they were sent."""
        self.wronged: list[str] = []
        """What was said where a request got an answer that none should get."""
        self._lines: list[Line] = []
        self._lock = threading.Lock()

    def note(
        self,
        round_: int,
        producer: str,
        sent: Sent,
        outcome: Outcome,
        why: str = "",
        wrong: bool = False,
    ) -> None:
        """One request or record was sent, and this is known of it; `wrong`: it should not be so."""
        with self._lock:
            if wrong:
                self.wronged.append(f"{producer}: {why}")
            count = len(sent.events) + len(sent.letters) + len(sent.nameless)
            self.outcomes[outcome] += count
            for event in sent.events:
                of = self.rounds.setdefault(event.name.round, Round())
                of.events.setdefault(event.name, (event, Copies()))[1].add(outcome)
            of = self.rounds.setdefault(round_, Round())
            for letter in sent.letters:
                of.letters.setdefault(letter, Copies()).add(outcome)
            for each in sent.nameless:
                of.nameless.setdefault(each.name, (each, Copies()))[1].add(outcome)
            ids = [str(event.name) for event in sent.events]
            ids += [str(each.name) for each in sent.nameless]
            self._lines.append(Line(time.time(), round_, producer, outcome, why, ids))

    def settled(self, name: Name) -> bool:
        """Whether an event is in for sure."""
        of = self.rounds.get(name.round)
        return of is not None and name in of.events and of.events[name][1].acked > 0

    def recent(self, round_: int) -> dict[int, Round]:
        """The rounds of which something may have been sent in a round."""
        first = round_ - ROUNDS_BACK
        return {number: of for number, of in self.rounds.items() if first <= number <= round_}

    def write(self, path: Path) -> None:
        """Every send as a line of JSON, in the order in which their ends were known."""
        with path.open("w") as file:
            file.writelines(json.dumps(line.__dict__) + "\n" for line in self._lines)

    def contents(self, path: Path, names: Iterable[Name]) -> None:
        """Some events as they were sent, a line of JSON each."""
        with path.open("w") as file:
            for name in names:
                event, copies = self.rounds[name.round].events[name]
                shown = event.fields | {"acked": copies.acked, "unknown": copies.unknown}
                file.write(json.dumps(shown, default=str) + "\n")
