"""What is wrong with a Tallylog after a storm."""

from collections import Counter
from dataclasses import dataclass, field

from tests.storm.events import Name


@dataclass
class Findings:
    """What was found wrong; nothing, when all is well.

    lost       Copies of events and dead letters that were acked and are nowhere.
    doubled    Rows that count again what was counted, or that nobody sent.
    differing  Everything else, in words: usage, states, verdicts, ledger, conservation.
    verdicts   Of every row that was looked at.
    asked      How many questions of usage were compared.
    names      The events that are lost, doubled or judged wrongly.
    """

    lost: int = 0
    doubled: int = 0
    differing: list[str] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    names: list[Name] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.differing)
