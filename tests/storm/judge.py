"""Whether Tallylog has counted what it was sent, as the journal and the oracle have it."""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from tests import oracle
from tests.e2e.running import Tallylog
from tests.e2e.test_oracle import create, create_feature
from tests.e2e.test_verify import verify
from tests.oracle import Counted, Rule
from tests.storm.events import CUSTOMERS, KINDS, NAMELESS, Name, World, late_rule, moments, rules
from tests.storm.findings import Findings
from tests.storm.journal import Journal, Round
from tests.storm.nameless import compare
from verification import states
from verification.states import Scope

QUIET_S = 300.0
POLL_S = 0.1
RANGES = 2
SHOWN_MAX = 50
STORM_MAX = timedelta(days=1)
"""No storm goes on for longer."""
Rows = dict[str, dict[str, int]]
"""By event id, how many rows have which verdict."""


class Question(NamedTuple):
    """Of one customer's usage."""

    event_name: str
    customer: str
    start: datetime
    end: datetime


class Judge:
    """Compares a Tallylog that has come to rest with what the oracle says of the journal."""

    def __init__(self, tallylog: Tallylog, world: World, journal: Journal) -> None:
        self._tallylog = tallylog
        self._world = world
        self._journal = journal
        self._rules = rules(tallylog.account)
        self._meters = {rule.event_name: create(tallylog, rule) for rule in self._rules}
        self.resent = 0
        """Events that were sent again, as their feature came after them."""
        self._found: dict[Question, Any] = {}
        """Usage as the oracle has it."""
        self._late: dict[int, str] = {}
        """By round, the feature that was created in the middle of it."""
        self._said: dict[Name, str] = {}
        """The verdict of each event's first copy, as the oracle has it."""

    def begin(self, round_: int) -> None:
        """Create the customer of a round's events without ids."""
        customer = {"external_id": self._world.customer(round_, "nameless")}
        answer = self._tallylog.http.post("/v1/customers", json=customer)
        answer.raise_for_status()
        self._world.customer_ids[round_] = answer.json()["id"]

    def create_late(self, round_: int) -> None:
        """Create the round's feature of which events were sent already, if it has one."""
        if (rule := late_rule(self._tallylog.account, round_)) is not None:
            feature = create_feature(self._tallylog, rule)
            self._rules.append(rule)
            self._meters[rule.event_name] = feature["meter"]["id"]
            self._late[round_] = feature["id"]

    def look(self, round_: int) -> Findings:
        """Judge a round that is over, and what it repeated of those before it.

        Load has to be paused. Raises TimeoutError when what waits in the log is not counted.
        """
        paused = datetime.now(UTC)
        self._rest(paused)
        if round_ in self._late:
            self._sweep(self._late[round_])
            self._rest(datetime.now(UTC))
        recent = self._journal.recent(round_)
        rows = self._rows(recent)
        judged = self._judged(recent[round_])
        self._said.update(
            (name, one.verdict) for name, one in zip(recent[round_].events, judged, strict=True)
        )
        landed = [one for one in judged if one.sent.event["event_id"] in rows]
        findings = self._verdicts(recent, rows)
        self._usage(round_, landed, findings)
        self._nameless(round_, findings)
        whose = [*self._customers([round_]), self._world.customer(round_, "nameless")]
        customers = [(self._tallylog.account, each) for each in whose]
        differences = states.differences(self._tallylog.store, Scope.of(customers))
        findings.differing += [f"states: {each}" for each in differences]
        self._conservation(paused, findings)
        return findings

    def look_at_all(self) -> Findings:
        """The verdict of every event, usage of every round, and `tallylog verify`, once more."""
        findings = self._verdicts(self._journal.rounds, self._rows(self._journal.rounds))
        findings.differing += self._journal.wronged[:SHOWN_MAX]
        for question, wanted in self._found.items():
            self._compare(question, wanted, findings)
        for round_ in self._journal.rounds:
            self._nameless(round_, findings)
        self._verify(findings)
        return findings

    def _verify(self, findings: Findings) -> None:
        """States, ledger, ids and running totals of all that is stored."""
        status, found = verify(self._tallylog)
        if status or found.get("trouble"):
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

    def _sweep(self, feature: str) -> None:
        """Wait until nothing is left to be sent again for a feature."""
        deadline = time.monotonic() + QUIET_S
        while True:
            seen = self._tallylog.http.get(f"/v1/features/{feature}/sweep").json()
            if seen.get("done"):
                self.resent += seen["resent"]
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sweep goes on after {QUIET_S:g} s: {seen}")
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

    def _nameless(self, round_: int, findings: Findings) -> None:
        """Rows and usage of a round's events without ids."""
        customer = self._world.customer(round_, "nameless")
        answers = self._tallylog.rows(
            "SELECT JSONExtractString(properties, 'serial'), verdict, count() FROM metered_events"
            " WHERE account = {account:String} AND external_customer_id = {customer:String}"
            " GROUP BY ALL",
            account=self._tallylog.account,
            customer=customer,
        )
        total = compare(self._journal.rounds[round_].nameless, _by_verdict(answers), findings)
        end = self._world.began + STORM_MAX  # their time is when they were received
        self._compare(Question(NAMELESS, customer, self._world.start, end), total, findings)

    def _rows(self, rounds: Iterable[int]) -> Rows:
        answers = self._tallylog.rows(
            "SELECT event_id, verdict, count() FROM metered_events"
            " WHERE account = {account:String} AND external_customer_id IN {them:Array(String)}"
            " GROUP BY event_id, verdict",
            account=self._tallylog.account,
            them=self._customers(rounds),
        )
        return _by_verdict(answers)

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
            known = of[rule.event_name, customer]
            seed = f"{self._world.seed}/{number}/{rule.event_name}/{customer}"
            for start, end in moments(self._world, seed, RANGES - 1):
                wanted = oracle.usage(known, rule, customer, start, end)
                wanted = None if isinstance(wanted, str) else wanted
                question = Question(rule.event_name, customer, start, end)
                if (start, end) == (self._world.start, self._world.began):
                    self._found[question] = wanted
                self._compare(question, wanted, findings)

    def _questions(self, number: int) -> Iterator[tuple[Rule, str]]:
        late = late_rule(self._tallylog.account, number)
        for rule in self._rules:
            if rule.event_name in KINDS or rule == late:
                for customer in self._customers([number]):
                    yield rule, customer

    def _compare(self, question: Question, wanted: Any, findings: Findings) -> None:
        value = self._ask(question)
        findings.asked += 1
        if value != wanted:
            findings.differing.append(
                f"usage of {question.event_name} by {question.customer} from {question.start} to"
                f" {question.end} is {value}, not {wanted}"
            )

    def _ask(self, question: Question) -> Any:
        body = {
            "meter_id": self._meters[question.event_name],
            "external_customer_id": question.customer,
            "start_time": question.start.isoformat(timespec="milliseconds"),
            "end_time": question.end.isoformat(timespec="milliseconds"),
        }
        answer = self._tallylog.http.post("/v1/events/usage/meter", json=body)
        answer.raise_for_status()
        return json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)["value"]


def _after(moment: str | None, paused: datetime) -> bool:
    return moment is not None and datetime.fromisoformat(moment) > paused


def _by_verdict(answers: Iterable[Any]) -> Rows:
    """Rows of (id, verdict, count)."""
    found: Rows = defaultdict(dict)
    for key, verdict, count in answers:
        found[key][verdict] = count
    return found
