"""The report of a verification: what was found, for machines and for people."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from console.conservation import Gaps
from verification.checks import Found

NOTHING = Found(0, [], [], [])


class Report(NamedTuple):
    """What a verification found.

    found    What the store says of itself; NOTHING where it could not be asked.
    gaps     Conservation, as the log and the store tell it; None: not known.
    trouble  Why something isn't known; None when all is.
    """

    found: Found
    gaps: Gaps | None
    trouble: str | None

    @property
    def lost(self) -> dict[str, int]:
        """By source topic, or "store": events that were read and never counted, rows amiss."""
        if self.gaps is None:
            return {}
        found = {**self.gaps.events, "store": self.gaps.rows}
        return {place: count for place, count in found.items() if count}

    @property
    def whole(self) -> bool | None:
        """Whether nothing is wrong; None: nothing was found, but not all could be looked at."""
        if self.lost or not self.found.well:
            return False
        return True if self.trouble is None else None

    @property
    def status(self) -> int:
        """As a program ends: 0 whole, 1 not, 2 not known."""
        return {True: 0, False: 1, None: 2}[self.whole]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = self.found
        return {
            "whole": self.whole,
            "events": found.events,
            "states": [
                {
                    **each.key._asdict(),
                    "span": each.key.span.isoformat(),
                    "stored": each.stored._asdict(),
                    "made_of_rows": each.made._asdict(),
                }
                for each in found.states
            ],
            "ledger": [each._asdict() for each in found.ledger],
            "repeated": [each._asdict() for each in found.repeated],
            "conservation": None
            if self.gaps is None
            else {"events": dict(self.gaps.events), "rows": self.gaps.rows},
            "trouble": self.trouble,
            "repaired": found.repaired,
            "unrepaired": found.unrepaired,
        }

    def lines(self) -> Iterator[str]:
        """All that is wrong, in words."""
        for each in self.found.states:
            key = each.key
            sides = zip(each.stored._fields, each.stored, each.made, strict=True)
            parts = [f"{name} {stored} instead of {made}" for name, stored, made in sides
                     if stored != made]  # fmt: skip
            yield (
                f"{key.account} {key.feature_id} {key.external_customer_id}"
                f" {key.span:%Y-%m-%d %H:%M} {key.group_key}:"
                f" {', '.join(parts) or 'other distinct values'}"
            )
        for flaw in self.found.ledger:
            yield f"block partition {flaw.block_partition}: {flaw.kind}: {flaw.detail}"
        for again in self.found.repeated:
            yield (
                f"{again.account} {again.event_id} counts {again.times} times, for"
                f" {', '.join(again.customers)}"
            )
        for place, count in self.lost.items():
            yield f"{place}: {count:+,} events"


def unknown(gaps: Gaps) -> str | None:
    """What conservation doesn't know, for want of a figure; None: it knows all."""
    names = [topic for topic, gap in gaps.events.items() if gap is None]
    if gaps.rows is None:
        names.append("the store")
    if not names:
        return None
    return f"an older packer or counter kept no figures of {', '.join(names)}"
