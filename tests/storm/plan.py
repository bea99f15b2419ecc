"""Which faults a storm has, and when: a function of its seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.storm.parts import PARTS

KINDS = ("kill", "stop", "restart", "failpoint", "rebalance", "slow", "full")
FAILPOINTS = {
    "gateway.sending": "gateway",
    "gateway.sent": "gateway",
    "gateway.acked": "gateway",
    "packer.read": "packer",
    "packer.sending": "packer",
    "packer.sent": "packer",
    "packer.committed": "packer",
    "counter.owned": "counter",
    "counter.read": "counter",
    "counter.folded": "counter",
    "counter.inserted": "counter",
    "counter.claimed": "counter",
    "counter.acked": "counter",
    "counter.doubted": "counter",
}
"""Every failpoint of the product, and the part that comes by it."""
NEEDS = {"counter.owned": "counter", "counter.doubted": "engine"}
"""Failpoints that nobody comes by unless this part is killed as well."""
WEIGHTS = {
    "kill": 10,
    "stop": 3,
    "restart": 1,
    "failpoint": 4,
    "rebalance": 1,
    "slow": 1,
    "full": 1,
}
FOLDERS = ("kafka", "engine", "counter")
"""Parts that have a folder of their own, which can be full."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    kind     One of KINDS.
    part     Whom it hits.
    after_s  How long after the one before it has been got over.
    lasts_s  How long it goes on; 0: it is a moment.
    name     Of a failpoint.
    stops    A failpoint's: whether it stops rather than kills.
    beside   Another part that is killed at the same moment.
    """

    kind: str
    part: str
    after_s: float
    lasts_s: float = 0.0
    name: str = ""
    stops: bool = False
    beside: str = ""

    @property
    def killed(self) -> list[str]:
        """The parts that die by SIGKILL of it."""
        dies = self.kind == "kill" or (self.kind == "failpoint" and not self.stops)
        return ([self.part] if dies else []) + ([self.beside] if self.beside else [])


def plan(seed: int, kinds: Sequence[str], session_s: float) -> Iterator[Fault]:
    """Faults without end. Within ten of them every part is hit; failpoints take turns."""
    chance = random.Random(f"{seed}/faults")
    weights = [WEIGHTS[kind] for kind in kinds]
    points = _turns(chance, list(FAILPOINTS))
    turns = {kind: _turns(chance, list(_parts(kind))) for kind in kinds}
    while True:
        kind = chance.choices(list(kinds), weights)[0]
        after_s = chance.uniform(0.2, 1.5)
        if kind == "failpoint":
            name = next(points)
            stops = name not in NEEDS and chance.random() < 0.2
            lasts_s = chance.uniform(0.3, 2) * session_s if stops else 0.0
            yield Fault(kind, FAILPOINTS[name], after_s, lasts_s, name, stops, NEEDS.get(name, ""))
            continue
        part = next(turns[kind])
        beside = ""
        lasts_s = 0.0
        if kind == "kill" and chance.random() < 0.3:
            beside = chance.choice([each for each in PARTS if each != part])
        elif kind == "stop":
            short = chance.random() < 0.6
            lasts_s = chance.uniform(0.3, 0.8) * session_s if short else 1.6 * session_s
        elif kind == "rebalance":
            lasts_s = chance.uniform(3, 5)
        elif kind in ("slow", "full"):
            lasts_s = chance.uniform(2, 4)
        yield Fault(kind, part, after_s, lasts_s, beside=beside)


def _parts(kind: str) -> Sequence[str]:
    """Whom a kind of fault can hit."""
    if kind == "rebalance":
        return ("packer", "counter")
    return FOLDERS if kind == "full" else PARTS


def _turns(chance: random.Random, each: list[str]) -> Iterator[str]:
    """All of them, in an order by chance, again and again."""
    while True:
        yield from chance.sample(each, len(each))
