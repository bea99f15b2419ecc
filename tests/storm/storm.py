"""A storm: faults upon a Tallylog under load, and after every few of them a judgement."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.e2e.running import Tallylog, tallylog_up
from tests.storm.doubts import given_up, landed
from tests.storm.events import World, now
from tests.storm.faults import Disks, Faults
from tests.storm.findings import Findings
from tests.storm.journal import Journal
from tests.storm.judge import Judge
from tests.storm.load import Load
from tests.storm.parts import Parts
from tests.storm.plan import Fault, plan
from tests.storm.probe import Probe, Recovery

FAULTS_A_ROUND = 10
WARM_UP_S = 1.0
LATE_AT = 4
"""Right before which fault of a round a late feature is created."""


@dataclass(frozen=True)
class Options:
    """What kind of storm.

    seed       Decides faults, their moments, and what is sent.
    minutes    No round begins after so many; 0: `faults` decides alone.
    faults     It ends after so many that hit, or twice as many in all; 0: `minutes` decides alone.
    kinds      Of plan.KINDS.
    session_s  After how long without a heartbeat a worker is given up.
    pace       How much load: 1 is about 250 events a second.
    """

    seed: int
    minutes: float
    faults: int
    kinds: Sequence[str]
    session_s: float
    pace: float = 1.0


@dataclass(frozen=True)
class Struck:
    """A fault, whether it hit, how long it took to get over it, and which parts it killed."""

    fault: Fault
    hit: bool
    recovery: Recovery
    killed: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a storm did, and what it found."""

    options: Options
    struck: list[Struck] = field(default_factory=list)
    rounds: int = 0
    sends: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)
    seconds: float = 0.0
    start_s: float = 0.0
    """How much of that until there was a Tallylog with its features: what a machine makes of it."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Kinds of fault that this machine doesn't allow, and why."""
    fenced: int = 0
    """How often a counter ended itself because its partition had another owner."""
    given_up: int = 0
    """Inserts of blocks that the engine hadn't answered in time."""
    landed: int = 0
    """Blocks of which such an insert landed all the same."""
    resent: int = 0
    """Events that the sweep sent again, as their feature was created after them."""
    failure: str = ""
    """Why it could not be ended."""

    @property
    def kills(self) -> Counter[str]:
        """By part, how often it was killed with SIGKILL."""
        return Counter(part for each in self.struck for part in each.killed)

    @property
    def hits(self) -> Counter[str]:
        """By kind of fault, how many hit."""
        return Counter(each.fault.kind for each in self.struck if each.hit)


@dataclass(frozen=True)
class Field:
    """A running Tallylog with everything that a storm needs."""

    tallylog: Tallylog
    world: World
    journal: Journal
    parts: Parts
    faults: Faults
    load: Load
    probe: Probe
    judge: Judge


@contextmanager
def prepared(folder: Path, options: Options, left_out: dict[str, str]) -> Iterator[Field]:
    """Start a Tallylog, its features and the producers, who wait."""
    failpoints = folder / "failpoints"
    failpoints.mkdir(parents=True)
    env = {
        "TALLYLOG_SESSION_TIMEOUT_S": str(options.session_s),
        "TALLYLOG_INSERT_TIMEOUT_S": str(options.session_s),  # shorter than a stop can be
        "TALLYLOG_FAILPOINTS": str(failpoints),
    }
    with ExitStack() as stack:
        disks = Disks(folder / "data")
        if "full" in options.kinds:
            stack.enter_context(disks)
            if disks.why_not:
                left_out["full"] = disks.why_not
        tallylog = stack.enter_context(tallylog_up(folder, env=env))
        world, journal = World(options.seed, now()), Journal()
        parts = Parts(tallylog, options.session_s)
        faults = Faults(tallylog, parts, disks, failpoints)
        judge = Judge(tallylog, world, journal)
        probe = Probe(tallylog, world, journal)
        stack.callback(probe.close)
        load = stack.enter_context(Load(tallylog, world, journal, options.pace))
        yield Field(tallylog, world, journal, parts, faults, load, probe, judge)


def storm(folder: Path, options: Options, console: Console) -> Outcome:
    """Run one in a folder, telling line by line what happens.

    Ends early when something is wrong: the folder has the journal then, beside the logs.
    """
    outcome = Outcome(options)
    started = time.monotonic()
    with prepared(folder, options, outcome.left_out) as field_, Bar(console, outcome) as bar:
        outcome.start_s = time.monotonic() - started
        for kind, why in outcome.left_out.items():
            console.print(f"Left out: {kind}, for {why}")
        kinds = [kind for kind in options.kinds if kind not in outcome.left_out]
        faults = plan(options.seed, kinds, options.session_s)
        try:
            while goes_on(outcome, time.monotonic() - started):
                _round(field_, faults, outcome, bar)
            findings = field_.judge.look_at_all()
            findings.differing = outcome.findings.differing + findings.differing
            findings.asked += outcome.findings.asked
            outcome.findings = findings
        except Exception as error:
            outcome.failure = f"{type(error).__name__}: {error}"
        outcome.sends = field_.journal.outcomes
        outcome.resent = field_.judge.resent
        _read_log(field_, outcome)
        outcome.seconds = time.monotonic() - started
        if outcome.failure or not outcome.findings.well:
            field_.journal.write(folder / "journal.jsonl")
            field_.journal.contents(folder / "wrong.jsonl", outcome.findings.names)
    return outcome


def _read_log(field_: Field, outcome: Outcome) -> None:
    """What only the counter's log tells."""
    log = field_.parts.log("counter")
    outcome.fenced = log.count("store.NotOwner:")
    doubts = given_up(log)
    outcome.given_up = len(doubts)
    with suppress(ClickHouseError):  # then the outcome is a failure already
        rows = field_.tallylog.rows("SELECT block_partition, block_offset, owner FROM ledger")
        outcome.landed = len(landed(doubts, {(part, at): owner for part, at, owner in rows}))


def goes_on(outcome: Outcome, seconds: float) -> bool:
    """Whether there is another round."""
    options = outcome.options
    late = options.minutes and seconds > options.minutes * 60
    return not enough(outcome) and not late and outcome.findings.well


def enough(outcome: Outcome) -> bool:
    """Whether there were as many faults as were wanted; those that miss are tried again."""
    wanted = outcome.options.faults
    return wanted > 0 and (outcome.hits.total() >= wanted or len(outcome.struck) >= 2 * wanted)


def _round(field_: Field, faults: Iterator[Fault], outcome: Outcome, bar: "Bar") -> None:
    """Some faults under load, then rest and judgement."""
    outcome.rounds += 1
    field_.probe.begin(outcome.rounds)
    field_.judge.begin(outcome.rounds)
    with field_.load.on(outcome.rounds):
        time.sleep(WARM_UP_S)
        for number in range(FAULTS_A_ROUND):
            fault = next(faults)
            time.sleep(fault.after_s)
            if number == LATE_AT:
                field_.judge.create_late(outcome.rounds)
            blow = field_.faults.strike(fault)
            recovery = field_.probe.wait(time.monotonic())
            outcome.struck.append(Struck(fault, blow.hit, recovery, blow.killed))
            bar.tell(_line(outcome, outcome.struck[-1]))
            if field_.probe.slow:
                bar.tell(f"     meanwhile: {field_.probe.slow}")
            if enough(outcome):
                break
    judging = time.monotonic()
    found = field_.judge.look(outcome.rounds)
    bar.tell(
        f"round {outcome.rounds}: {sum(field_.journal.outcomes.values())} sent,"
        f" {found.lost} lost, {found.doubled} doubled, {len(found.differing)} differ"
        f" ({time.monotonic() - judging:.1f} s)"
    )
    for line in found.differing[:10]:
        bar.tell(f"  {line}")
    found.asked += outcome.findings.asked
    outcome.findings = found


class Bar:
    """Tells what happens, and how far the storm is."""

    def __init__(self, console: Console, outcome: Outcome) -> None:
        self._outcome = outcome
        self._started = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("storm", total=1)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, line: str) -> None:
        """Print a line, and move on."""
        options, outcome = self._outcome.options, self._outcome
        parts = [outcome.hits.total() / options.faults] if options.faults else []
        if options.minutes:
            parts.append((time.monotonic() - self._started) / 60 / options.minutes)
        kills = sum(outcome.kills.values())
        about = f"round {outcome.rounds}, {len(outcome.struck)} faults, {kills} kills"
        self._progress.update(self._task, completed=max(parts), description=about)
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _line(outcome: Outcome, struck: Struck) -> str:
    fault, recovery = struck.fault, struck.recovery
    what = f"{fault.kind} {fault.name or fault.part}"
    if fault.stops:
        what += " (stopped)"
    if fault.lasts_s:
        what += f" for {fault.lasts_s:.1f} s"
    if fault.beside:
        what += f" and kill {fault.beside}"
    missed = "" if struck.hit else ", missed"
    return (
        f"{len(outcome.struck):4} {what}{missed}: 202 after {recovery.answered:.1f} s,"
        f" counted after {recovery.counted:.1f} s"
    )
