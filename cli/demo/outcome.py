"""What a run of the demo came to: expected against found, line by line, as tables and as JSON."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby, zip_longest
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.demo.meters import Metered
from schemas.verdict import Verdict, Warn

EXAMPLES = {
    Verdict.COUNTED: "matches a feature",
    Verdict.DUPLICATE: "an event_id seen before",
    Verdict.UNKNOWN_EVENT_NAME: "Demo.Model.Usage",
    Verdict.FEATURE_ARCHIVED: "demo.faxes is archived",
    Verdict.FILTERED: "region us, not eu or uk",
    Verdict.MISSING_PROPERTY: "Credits, not credits",
    Verdict.WRONG_TYPE: 'credits: "two", true, null',
    Verdict.OUT_OF_RANGE: "1e30; three days ahead",
}
WARNINGS = {
    Warn.NUMERIC_STRING: 'credits: "2.5" counts',
    Warn.ROUNDED: "19 digits after the point",
    Warn.UNKNOWN_CUSTOMER: "nobody created it yet",
    Warn.CUSTOMER_ARCHIVED: "counted nevertheless",
    Warn.CONTENT_DIFFERS: "same id, other content",
}
REASONS = {
    "invalid_json": "a record of rubbish",
    "empty": "no value, no bytes, []",
    "missing_field": "no event_name",
    "wrong_type": "one bad event among good",
}
REFUSED = "no events, a bad time"
PLACES_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Quantity:
    """A customer's usage of a feature: as computed from what was sent, and as answered."""

    feature: Metered
    customer: str
    expected: Decimal | None
    answer: Decimal | None

    @property
    def right(self) -> bool:
        """Whether both are the same number, to the last digit."""
        return self.expected == self.answer


@dataclass(frozen=True, slots=True)
class Count:
    """How many of a kind were expected, and how many there are."""

    kind: str
    name: str
    expected: int
    found: int
    example: str = ""

    @property
    def right(self) -> bool:
        """Whether the two agree."""
        return self.expected == self.found


@dataclass(frozen=True)
class Outcome:
    """Everything that a person can check."""

    run: str
    quantities: list[Quantity]
    counts: list[Count]
    sent: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def wrong(self) -> int:
        """How many lines are not right."""
        return sum(not line.right for line in self.quantities) + sum(
            not line.right for line in self.counts
        )

    def document(self) -> dict[str, Any]:
        """For `--json`; quantities as texts."""
        return {
            "right": not self.wrong,
            "run": self.run,
            "sent": dict(self.sent),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "usage": [
                {
                    "feature": line.feature.name,
                    "event_name": line.feature.event_name,
                    "aggregation": line.feature.aggregation,
                    "customer": line.customer,
                    "expected": _exact(line.expected),
                    "answer": _exact(line.answer),
                    "right": line.right,
                }
                for line in self.quantities
            ],
            "counts": [
                {
                    "kind": line.kind,
                    "name": line.name,
                    "expected": line.expected,
                    "found": line.found,
                    "right": line.right,
                }
                for line in self.counts
            ],
        }

    def show(self, console: Console) -> None:
        """Print both tables and what they come to."""
        console.print(self._usage_table())
        console.print(self._counts_table())
        if self.wrong:
            console.print(f"[bold red]✗ {self.wrong} lines are wrong.")
        else:
            events = sum(self.sent.values())
            lines = len(self.quantities) + len(self.counts)
            console.print(
                f"[bold green]✓ All {lines} lines are right:[/] {events:,} events sent in"
                f" {self.seconds['sending']:.1f} s, each accounted for"
                f" {self.seconds['storing']:.1f} s later."
            )

    def _usage_table(self) -> Table:
        table = _table("Usage")
        table.add_column("Feature")
        table.add_column("Customer")
        table.add_column("Expected", justify="right")
        table.add_column("Tallylog says", justify="right")
        table.add_column("")
        for feature, lines in groupby(self.quantities, key=lambda line: line.feature):
            if table.row_count:
                table.add_section()
            notes = [Text(feature.lines[0], "bold")]
            notes += [Text(note, "dim") for note in feature.lines[1:]]
            for note, line in zip_longest(notes, lines):
                if line is None:
                    table.add_row(note)
                else:
                    numbers = _shown(line.expected), _shown(line.answer)
                    table.add_row(note, line.customer, *numbers, _tick(line.right))
        return table

    def _counts_table(self) -> Table:
        table = _table("What became of every event")
        table.add_column("")
        table.add_column("For example", style="dim")
        table.add_column("Expected", justify="right")
        table.add_column("Stored", justify="right")
        table.add_column("")
        for kind, lines in groupby(self.counts, key=lambda line: line.kind):
            if table.row_count:
                table.add_section()
            table.add_row(Text(kind, "bold"))
            for line in lines:
                numbers = f"{line.expected:,}", f"{line.found:,}"
                table.add_row(line.name, line.example, *numbers, _tick(line.right))
        return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.ROUNDED,
        border_style="dim",
    )


def verdict_counts(
    expected: Mapping[tuple[str, str], int], found: Mapping[tuple[str, str], int]
) -> Iterator[Count]:
    """Lines for verdicts and for warnings, from counts by (verdict, warnings)."""
    yield from _compare("Verdicts", _verdicts(expected), _verdicts(found), EXAMPLES)
    yield from _compare("Warnings beside them", _warnings(expected), _warnings(found), WARNINGS)


def dead_letter_counts(expected: Mapping[Any, str], found: Mapping[Any, str]) -> Iterator[Count]:
    """Lines for dead letters by reason, from reasons by place: each has to be where it belongs."""
    there = Counter(
        reason if expected.get(place) == reason else f"{reason}, unexpected"
        for place, reason in found.items()
    )
    yield from _compare("Dead letters", Counter(expected.values()), there, REASONS)


def _compare(
    kind: str, expected: Mapping[str, int], found: Mapping[str, int], examples: Mapping[Any, str]
) -> Iterator[Count]:
    """A line for each name that was expected or found, in the order of the examples."""
    names = [str(name) for name in examples]
    names += sorted((set(expected) | set(found)) - set(names))
    for name in names:
        wanted, there = expected.get(name, 0), found.get(name, 0)
        if wanted or there:
            yield Count(kind, name, wanted, there, examples.get(name, ""))


def _verdicts(counts: Mapping[tuple[str, str], int]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (verdict, _), count in counts.items():
        total[str(verdict)] += count
    return total


def _warnings(counts: Mapping[tuple[str, str], int]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (_, warnings), count in counts.items():
        for warning in filter(None, warnings.split(",")):
            total[warning] += count
    return total


def _exact(number: Decimal | None) -> str | None:
    if number is None:
        return None
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(number: Decimal | None) -> str:
    """For a person: thousands, and an ellipsis where digits are left out."""
    text = _exact(number)
    if number is None or text is None:
        return "none"
    whole, point, places = text.partition(".")
    shown = f"{int(whole):,}" if whole != "-0" else "-0"
    more = "…" if len(places) > PLACES_SHOWN else ""
    return f"{shown}{point}{places[:PLACES_SHOWN]}{more}"


def _tick(right: bool) -> Text:
    return Text("✓", "green") if right else Text("✗", "bold red")
