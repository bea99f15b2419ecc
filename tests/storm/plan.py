"""Which faults a storm has, and when: a function of its seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.storm.parts import PARTS

KINDS = ("kill", "stop", "restart", "failpoint", "rebalance", "slow", "full")
SPECIAL = ("zombie", "forget", "older")
"""Kinds that make a storm of their own.

zombie  A counter is stopped for twice the session timeout, in half of the cases right before or
        after an insert, while another is there to take its partitions; then it goes on.
forget  A counter is killed, and the claims on its disk are deleted.
older   A counter is killed, and the claims on its disk are an older copy of them when it is back.
"""
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
    "kill": 14,
    "stop": 3,
    "restart": 1,
    "failpoint": 4,
    "rebalance": 1,
    "slow": 1,
    "full": 1,
    "zombie": 1,
    "forget": 1,
    "older": 1,
}
BESIDE = 0.45
"""So many kills are of two parts at once."""
FOLDERS = ("kafka", "engine", "counter")
"""Parts that have a folder of their own, which can be full."""


KILLS = ("kill", "forget", "older")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    kind     One of KINDS or SPECIAL.
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
        dies = self.kind in KILLS or (self.kind == "failpoint" and not self.stops)
        return ([self.part] if dies else []) + ([self.beside] if self.beside else [])


def plan(seed: int, kinds: Sequence[str], session_s: float) -> Iterator[Fault]:
    """Faults without end. Within ten of them every part is hit; failpoints take turns."""
    chance = random.Random(f"{seed}/faults")
    weights = [WEIGHTS[kind] for kind in kinds]
    points = _turns(chance, list(FAILPOINTS))
    turns = {kind: _turns(chance, list(_parts(kind))) for kind in kinds}
    while True:
        kind = chance.choices(list(kinds), weights)[0]
        after_s = chance.uniform(0.1, 1.0)
        if kind == "failpoint":
            name = next(points)
            stops = name not in NEEDS and chance.random() < 0.2
            lasts_s = chance.uniform(0.3, 2) * session_s if stops else 0.0
            yield Fault(kind, FAILPOINTS[name], after_s, lasts_s, name, stops, NEEDS.get(name, ""))
            continue
        part = next(turns[kind])
        beside = ""
        lasts_s = 0.0
        if kind == "kill" and chance.random() < BESIDE:
            beside = chance.choice([each for each in PARTS if each != part])
        elif kind == "stop":
            short = chance.random() < 0.6
            lasts_s = chance.uniform(0.3, 0.8) * session_s if short else 1.6 * session_s
        elif kind == "rebalance":
            lasts_s = chance.uniform(3, 5)
        elif kind in ("slow", "full", "older"):
            lasts_s = chance.uniform(2, 4)
        elif kind == "zombie":
            lasts_s = 2 * session_s
            stops = chance.random() < 0.5
            name = chance.choice(["counter.folded", "counter.inserted"]) if stops else ""
            yield Fault(kind, part, after_s, lasts_s, name, stops)
            continue
        yield Fault(kind, part, after_s, lasts_s, beside=beside)


def _parts(kind: str) -> Sequence[str]:
    """Whom a kind of fault can hit."""
    if kind == "rebalance":
        return ("packer", "counter")
    if kind in SPECIAL:
        return ("counter",)
    return FOLDERS if kind == "full" else PARTS


def _turns(chance: random.Random, each: list[str]) -> Iterator[str]:
    """All of them, in an order by chance, again and again."""
    while True:
        yield from chance.sample(each, len(each))
