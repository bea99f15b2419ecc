"""Whether Tallylog has counted what it was sent, as the journal and the oracle have it."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests import oracle
from tests.e2e.running import Tallylog
from tests.e2e.test_oracle import create
from tests.e2e.test_verify import verify
from tests.oracle import Counted, Rule
from tests.storm.events import CUSTOMERS, Name, World, moments, rules
from tests.storm.journal import Journal, Round
from verification import states
from verification.states import Scope

QUIET_S = 300.0
POLL_S = 0.1
RANGES = 2
SHOWN_MAX = 50
Rows = dict[str, dict[str, int]]
"""By event id, how many rows have which verdict."""


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


class Judge:
    """Compares a Tallylog that has come to rest with what the oracle says of the journal."""

    def __init__(self, tallylog: Tallylog, world: World, journal: Journal) -> None:
        self._tallylog = tallylog
        self._world = world
        self._journal = journal
        self._rules = rules(tallylog.account)
        self._meters = {rule.event_name: create(tallylog, rule) for rule in self._rules}
        self._found: dict[tuple[int, str, str], Any] = {}
        """By round, event name and customer: usage as the oracle has it."""
        self._said: dict[Name, str] = {}
        """The verdict of each event's first copy, as the oracle has it."""

    def look(self, round_: int) -> Findings:
        """Judge a round that is over, and what it repeated of those before it.

        Load has to be paused. Raises TimeoutError when what waits in the log is not counted.
        """
        paused = datetime.now(UTC)
        self._rest(paused)
        recent = self._journal.recent(round_)
        rows = self._rows(recent)
        judged = self._judged(recent[round_])
        self._said.update(
            (name, one.verdict) for name, one in zip(recent[round_].events, judged, strict=True)
        )
        landed = [one for one in judged if one.sent.event["event_id"] in rows]
        findings = self._verdicts(recent, rows)
        self._usage(round_, landed, findings)
        customers = [(self._tallylog.account, each) for each in self._customers([round_])]
        differences = states.differences(self._tallylog.store, Scope.of(customers))
        findings.differing += [f"states: {each}" for each in differences]
        self._conservation(paused, findings)
        return findings

    def look_at_all(self) -> Findings:
        """The verdict of every event, usage of every round, and `tallylog verify`, once more."""
        findings = self._verdicts(self._journal.rounds, self._rows(self._journal.rounds))
        findings.differing += self._journal.wronged[:SHOWN_MAX]
        for (_, event_name, customer), wanted in self._found.items():
            range_ = self._world.start, self._world.began
            value = self._ask(event_name, customer, *range_)
            findings.asked += 1
            if value != wanted:
                findings.differing.append(
                    f"usage of {event_name} by {customer} was {wanted}, and is {value} at the end"
                )
        self._verify(findings)
        return findings

    def _verify(self, findings: Findings) -> None:
        """States, ledger, ids and running totals of all that is stored."""
        status, found = verify(self._tallylog)
        if status:
            findings.differing.append(f"tallylog verify ends with {status}: {found}"[:1000])

    def _rest(self, paused: datetime) -> None:
        """Wait until nothing waits in the log."""
        deadline = time.monotonic() + QUIET_S
        while True:
            seen = self._monitoring()
            if seen is not None and "trouble" not in seen and _after(seen["looked_at"], paused):
                if not any(stage["lag_offsets"] for stage in seen["stages"]):
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {QUIET_S:g} s: {seen}")
            time.sleep(POLL_S)

    def _conservation(self, paused: datetime, findings: Findings) -> None:
        """That nothing of what was read is missing, as the running totals tell."""
        deadline = time.monotonic() + QUIET_S
        gaps: Any = None
        while time.monotonic() < deadline:
            if (seen := self._monitoring()) is not None:
                gaps = seen["conservation"]
                if _after(gaps["until"], paused):
                    if (gaps["gap_events"], gaps["gap_rows"]) != (0, 0):
                        findings.differing.append(f"conservation: {gaps}")
                    return
            time.sleep(POLL_S)
        raise TimeoutError(f"whether anything is missing isn't known after {QUIET_S:g} s: {gaps}")

    def _monitoring(self) -> dict[str, Any] | None:
        answer = self._tallylog.http.get("/v1/events/monitoring")
        found: dict[str, Any] = answer.json()
        return found if answer.status_code == 200 else None

    def _customers(self, rounds: Iterable[int]) -> list[str]:
        return [self._world.customer(each, which) for each in rounds for which in CUSTOMERS]

    def _rows(self, rounds: Iterable[int]) -> Rows:
        found: Rows = defaultdict(dict)
        for event_id, verdict, count in self._tallylog.rows(
            "SELECT event_id, verdict, count() FROM metered_events"
            " WHERE account = {account:String} AND external_customer_id IN {them:Array(String)}"
            " GROUP BY event_id, verdict",
            account=self._tallylog.account,
            them=self._customers(rounds),
        ):
            found[event_id][verdict] = count
        return found

    def _verdicts(self, rounds: dict[int, Round], rows: Rows) -> Findings:
        """Every event of some rounds has the rows and the verdict that it must have."""
        findings = Findings()
        for each in rows.values():
            findings.verdicts.update(each)
        for round_ in rounds.values():
            for name, (_, copies) in round_.events.items():
                seen = dict(rows.pop(str(name), {}))
                total = sum(seen.values())
                repeated = seen.pop("duplicate", 0)
                first = total - repeated
                lost = max(copies.acked - total, 0) or int(total > 0 and first == 0)
                doubled = max(total - copies.acked - copies.unknown, first - 1, 0)
                wrong = first == 1 and self._said[name] not in seen
                findings.lost += lost
                findings.doubled += doubled
                if wrong:
                    findings.differing.append(f"{name} is {seen}, not {self._said[name]}")
                if lost or doubled or wrong:
                    findings.names.append(name)
        for event_id, seen in rows.items():
            findings.doubled += sum(seen.values())
            findings.differing.append(f"{event_id} is {seen}, and was never sent")
        self._letters(rounds.values(), findings)
        return findings

    def _letters(self, rounds: Iterable[Round], findings: Findings) -> None:
        """Every record that can't be read is kept, with its bytes."""
        wanted = {letter: copies for each in rounds for letter, copies in each.letters.items()}
        stored = {
            bytes_.encode() if isinstance(bytes_, str) else bytes_: count
            for bytes_, count in self._tallylog.rows(
                "SELECT bytes, count() FROM dead_letters WHERE account = {account:String}"
                " GROUP BY bytes",
                account=self._tallylog.account,
            )
        }
        for letter, copies in wanted.items():
            seen = stored.get(letter, 0)
            findings.verdicts["dead_letter"] += seen
            findings.lost += max(copies.acked - seen, 0)
            findings.doubled += max(seen - copies.acked - copies.unknown, 0)

    def _judged(self, round_: Round) -> list[Counted]:
        """What the oracle says of the first copy of each event of a round, in their order."""
        now = datetime.now(UTC)
        log = [
            oracle.Sent(self._tallylog.account, event.fields, now, (0, index, 0))
            for index, (event, _) in enumerate(round_.events.values())
        ]
        return oracle.judge(log, self._rules)

    def _usage(self, number: int, landed: list[Counted], findings: Findings) -> None:
        """Usage of each feature by each customer of a round is what its events that are in make."""
        of: dict[tuple[str, str], list[Counted]] = defaultdict(list)
        for one in landed:
            event = one.sent.event
            of[event["event_name"], event["external_customer_id"]].append(one)
        for rule, customer in self._questions(number):
            seed = f"{self._world.seed}/{number}/{rule.event_name}/{customer}"
            for start, end in moments(self._world, seed, RANGES - 1):
                known = of[rule.event_name, customer]
                wanted = oracle.usage(known, rule, customer, start, end)
                wanted = None if isinstance(wanted, str) else wanted
                value = self._ask(rule.event_name, customer, start, end)
                findings.asked += 1
                if (start, end) == (self._world.start, self._world.began):
                    self._found[number, rule.event_name, customer] = wanted
                if value != wanted:
                    findings.differing.append(
                        f"usage of {rule.event_name} by {customer} from {start} to {end}"
                        f" is {value}, not {wanted}"
                    )

    def _questions(self, number: int) -> Iterator[tuple[Rule, str]]:
        for rule in self._rules:
            for customer in self._customers([number]):
                yield rule, customer

    def _ask(self, event_name: str, customer: str, start: datetime, end: datetime) -> Any:
        question = {
            "meter_id": self._meters[event_name],
            "external_customer_id": customer,
            "start_time": start.isoformat(timespec="milliseconds"),
            "end_time": end.isoformat(timespec="milliseconds"),
        }
        answer = self._tallylog.http.post("/v1/events/usage/meter", json=question)
        answer.raise_for_status()
        return json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)["value"]


def _after(moment: str | None, paused: datetime) -> bool:
    return moment is not None and datetime.fromisoformat(moment) > paused
