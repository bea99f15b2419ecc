"""The engine: ClickHouse as far as the counter's exactness rests on it, one step of a statement
after the other.

An INSERT goes into the source first and into the view's target afterwards; it can stop at each
step, or land after its client has given up. A part is in whole or not at all. Deduplication tokens
are noted before their part: an engine that dies in between keeps a token without a part, or
forgets the token of one that is in. A constraint is looked at once, before the source is written,
and once more before the target.
"""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple
from zlib import crc32

import pyarrow as pa
from clickhouse_connect.driver.exceptions import OperationalError

from clickhouse.client import InsertFailed
from schemas.position import Point
from stream_workers.claims import Claim, Claims
from stream_workers.partition import VIOLATED_CONSTRAINT
from stream_workers.store import Store
from tests.simulation.fibers import Process, current, effect, wait
from tests.stream_workers.worlds import Row, point

MEMORY_LIMIT_EXCEEDED = 241
PAGE_ROWS = 3
"""Small, so that reading claims back takes several pages."""
NO_CLAIM = ("duplicate", "dead_letter", "marker")
Usage = tuple[str, str, str]  # account, feature, customer


class State(NamedTuple):
    """What one part of the states holds: number and sum by usage, and the block's marker.

    reached  Its markers: by block partition, the last block. A repair makes states without one.
    """

    reached: dict[int, int]
    usage: dict[Usage, tuple[int, Decimal]]


class Refused(Exception):
    """The engine's answer to a statement that it can't do."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


@dataclass(eq=False)
class Statement:
    """One statement on its way through the engine.

    asleep   It hangs, and its client has given up; it goes on when somebody waits for it.
    running  It is listed in system.processes.
    outcome  None while it runs; then whether it is done, or an error code, or no answer at all.
    """

    client: Process
    name: str
    query_id: str
    steps: Generator[str, None, None] = field(init=False)
    effect: str = ""
    asleep: bool = False
    running: bool = False
    over: bool = False
    answered: bool = False
    code: int | None = None
    tokens: list[tuple[set[str], str]] = field(default_factory=list)

    def begin(self, steps: Generator[str, None, None]) -> None:
        """Stand before the first step."""
        self.steps = steps
        self.effect = next(steps)

    def resume(self, fault: str | None = None) -> None:
        """Do the step at hand."""
        if fault == "refuse":
            self.end(MEMORY_LIMIT_EXCEEDED)
            return
        try:
            self.effect = next(self.steps)
        except StopIteration:
            self.end(None)
        except Refused as error:
            self.end(error.code)

    def end(self, code: int | None) -> None:
        """Answer."""
        self.answered = not self.asleep
        self.code = code
        self._leave()

    def vanish(self) -> None:
        """The engine died."""
        self._leave()

    def _leave(self) -> None:
        self.over, self.running, self.asleep = True, False, False
        self.steps.close()


class Engine:
    """Tables, tokens and the statements under way."""

    def __init__(self) -> None:
        self.events: list[list[Row]] = []
        self.states: list[State] = []
        self.owners: dict[int, int] = {}
        self.event_tokens: set[str] = set()
        self.state_tokens: set[str] = set()
        self.statements: list[Statement] = []

    def rows(self) -> Iterator[Row]:
        """All rows of `events`."""
        for part in self.events:
            yield from part

    def execute(self, name: str, query_id: str, steps: Callable[[Statement], Any]) -> Statement:
        """Send a statement and wait for what becomes of it."""
        effect(f"send {name}")
        statement = Statement(current().process, name, query_id)
        statement.begin(steps(statement))
        self.statements.append(statement)
        wait(lambda: statement.over or statement.asleep)
        return statement

    def restart(self) -> None:
        """Every statement is gone, whatever it had done."""
        for statement in self.statements:
            statement.vanish()
        self.statements.clear()

    def insert(self, rows: list[Row], token: str) -> Callable[[Statement], Any]:
        """Rows into `events`, and through the view into the states."""

        def steps(statement: Statement) -> Generator[str, None, None]:
            yield f"arrival of {statement.name}"
            statement.running = True
            self._check_owners(rows)
            yield f"events token of {statement.name}"
            if token not in self.event_tokens:
                self.event_tokens.add(token)
                statement.tokens.append((self.event_tokens, token))
                yield f"events part of {statement.name}"
                self.events.append(rows)
            self._check_owners(rows)
            yield f"states token of {statement.name}"
            if token not in self.state_tokens:
                self.state_tokens.add(token)
                statement.tokens.append((self.state_tokens, token))
                yield f"states part of {statement.name}"
                self.states.append(_state(rows))
            yield f"answer to {statement.name}"

        return steps

    def fill(self, partition: int, offset: int, owner: int) -> Callable[[Statement], Any]:
        """The view's SELECT over the stored rows of one block, into the states."""

        def steps(statement: Statement) -> Generator[str, None, None]:
            yield f"arrival of {statement.name}"
            statement.running = True
            stored = [row for row in self.rows() if _of(row, partition, offset)]
            rows = [row | {"owner": owner} for row in stored]
            self._check_owners(rows)
            yield f"states part of {statement.name}"
            self.states.append(_state(rows))
            yield f"answer to {statement.name}"

        return steps

    def reached(self) -> dict[int, int]:
        """By block partition, the last block in the states."""
        last: dict[int, int] = {}
        for state in self.states:
            for partition, upto in state.reached.items():
                last[partition] = max(upto, last.get(partition, -1))
        return last

    def differing(self) -> list[Usage]:
        """Of which usages the states aren't what the rows of the blocks in them come to."""
        found, wanted = total(self.states), total([self.made_of(self.reached())])
        usages = sorted({*found, *wanted})
        return [usage for usage in usages if found.get(usage) != wanted.get(usage)]

    def made_of(self, last: Mapping[int, int], usages: Collection[Usage] | None = None) -> "State":
        """What the view makes of all rows up to these blocks."""

        def is_in(row: Row) -> bool:
            return bool(row["block_offset"] <= last.get(row["block_partition"], -1))

        usage = _usage([row for row in self.rows() if is_in(row)])
        chosen = {each: usage[each] for each in usage if usages is None or each in usages}
        return State({}, chosen)

    def delete(
        self, usages: Collection[Usage], owners: Mapping[int, int]
    ) -> Callable[[Statement], Any]:
        """No states of some usages any more, while partitions have these owners."""

        def steps(statement: Statement) -> Generator[str, None, None]:
            yield f"arrival of {statement.name}"
            statement.running = True
            yield f"states part of {statement.name}"
            if self.holds(owners):
                for state in self.states:
                    for usage in usages:
                        state.usage.pop(usage, None)
            yield f"answer to {statement.name}"

        return steps

    def make_anew(
        self, usages: Collection[Usage], cut: Mapping[int, int], owners: Mapping[int, int]
    ) -> Callable[[Statement], Any]:
        """The states of some usages from the rows before a cut, while partitions have owners."""

        def steps(statement: Statement) -> Generator[str, None, None]:
            yield f"arrival of {statement.name}"
            statement.running = True
            made = self.made_of({slot: before - 1 for slot, before in cut.items()}, usages)
            holds = self.holds(owners)
            yield f"states part of {statement.name}"
            if holds:
                self.states.append(made)
            yield f"answer to {statement.name}"

        return steps

    def holds(self, owners: Mapping[int, int]) -> bool:
        """The condition of a repair's statements."""
        return all(self.owners.get(slot, 0) == owner for slot, owner in owners.items())

    def own(self, slot: int, owner: int) -> Callable[[Statement], Any]:
        """A row into `owners`."""

        def steps(statement: Statement) -> Generator[str, None, None]:
            yield f"arrival of {statement.name}"
            self.owners[slot] = owner

        return steps

    def permits(self, owner: int, current_owner: int) -> bool:
        """The constraint of both tables."""
        return owner == current_owner

    def _check_owners(self, rows: list[Row]) -> None:
        for row in rows:
            if not self.permits(row["owner"], self.owners.get(row["block_partition"], 0)):
                raise Refused(VIOLATED_CONSTRAINT)


def _of(row: Row, partition: int, offset: int) -> bool:
    return bool(row["block_partition"] == partition and row["block_offset"] == offset)


def _state(rows: list[Row]) -> State:
    """What the view makes of the rows of one block, or of several of different partitions."""
    markers = [row for row in rows if row["verdict"] == "marker"]
    return State({row["block_partition"]: row["block_offset"] for row in markers}, _usage(rows))


def _usage(rows: list[Row]) -> dict[Usage, tuple[int, Decimal]]:
    counts: Counter[Usage] = Counter()
    sums: dict[Usage, Decimal] = {}
    for row in rows:
        if row["verdict"] == "counted":
            usage = row["account"], row["feature_id"], row["external_customer_id"]
            counts[usage] += 1
            sums[usage] = sums.get(usage, Decimal()) + row["value"]
    return {usage: (counts[usage], sums[usage]) for usage in counts}


def total(states: Iterable[State]) -> dict[Usage, tuple[int, Decimal]]:
    """What parts of the states come to when they are merged."""
    found: dict[Usage, tuple[int, Decimal]] = {}
    for state in states:
        for usage, (count, sum_) in state.usage.items():
            n, value = found.get(usage, (0, Decimal()))
            found[usage] = n + count, value + sum_
    return found


class SimulatedStore(Store):
    """The store's own protocol, on the simulated engine: its statements are replaced, no more."""

    def __init__(self, engine: Engine, epoch: int = 0) -> None:
        super().__init__(None, epoch)
        self._engine = engine

    @property
    def identity(self) -> str:
        return "simulated/0"

    def _owner_of(self, slot: int) -> int:
        ask("owner")
        return self._engine.owners.get(slot, 0)

    def _set_owner(self, slot: int, owner: int) -> None:
        self._execute(f"owner of {slot}", "", self._engine.own(slot, owner))

    def _is_inserting(self, partition: int) -> bool:
        ask("inserts running")
        mark = self.mark(partition)
        running = [
            each for each in self._engine.statements
            if each.running and mark in each.query_id
        ]  # fmt: skip
        for statement in running:
            statement.asleep = False
        return bool(running)

    def _last_marker(self, partition: int) -> Sequence[Sequence[Any]]:
        ask("last marker")
        markers = [row for row in self._engine.rows() if _of_marker(row, partition)]
        last = sorted(markers, key=lambda row: int(row["block_offset"]))[-1:]
        return [
            (row["block_offset"], row["properties"].decode(), _ms(row["block_time"]), row["detail"])
            for row in last
        ]

    def states_upto(self, partition: int) -> int:
        ask("marker of the states")
        return self._engine.reached().get(partition, -1)

    def _blocks(self, partition: int, after: int, upto: int) -> list[int]:
        ask("blocks to fill")
        rows = (row for row in self._engine.rows() if _of_marker(row, partition))
        return sorted({row["block_offset"] for row in rows if after < row["block_offset"] <= upto})

    def _fill_block(self, partition: int, offset: int, owner: int, query_id: str) -> None:
        name = f"fill {partition}/{offset}"
        self._execute(name, query_id, self._engine.fill(partition, offset, owner))

    def page_end(self, partition: int, after: int, upto: int, since: int) -> int:
        ask("end of a page")
        offsets = sorted(claim[0].offset for claim in self._claims(partition, after, upto, since))
        return offsets[PAGE_ROWS] if len(offsets) > PAGE_ROWS else upto

    def claims(
        self, partition: int, after: int, upto: int, since: int
    ) -> Generator[Claims, None, None]:
        ask("a page of claims")
        for _, key, claim in reversed(list(self._claims(partition, after, upto, since))):
            yield Claims.of([(key, claim)])

    def claims_of(
        self, ids: pa.RecordBatch, partition: int, after: int, upto: int, since: int
    ) -> Claims:
        ask("claims of ids")
        pairs = {(row["account"], row["event_id"]) for row in ids.to_pylist()}
        rows = self._claims(partition, after, upto, since, pairs)
        return Claims.of((key, claim) for _, key, claim in rows)

    def _claims(
        self,
        partition: int,
        after: int,
        upto: int,
        since: int,
        pairs: Collection[tuple[str, str]] | None = None,
    ) -> Iterator[tuple[Point, bytes, Claim]]:
        for row in self._engine.rows():
            time = _ms(row["block_time"])
            if (
                row["block_partition"] == partition
                and after < row["block_offset"] <= upto
                and row["verdict"] not in NO_CLAIM
                and time >= since
                and (pairs is None or (row["account"], row["event_id"]) in pairs)
            ):
                claim = Claim(point(row), time, content_of(row))
                yield claim.point, _claimed(row), claim

    def _execute(self, name: str, query_id: str, steps: Callable[[Statement], Any]) -> None:
        refused(self._engine.execute(name, query_id, steps))


class SimulatedInserts:
    """The counter's way to insert."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def insert(self, table: str, stream: bytes, *, token: str, query_id: str = "") -> None:
        rows = list(_rows(stream))
        markers = [row for row in rows if row["verdict"] == "marker"]
        blocks = [f"{row['block_partition']}/{row['block_offset']}" for row in markers]
        name = f"insert {' and '.join(blocks)}"
        statement = self._engine.execute(name, query_id, self._engine.insert(rows, token))
        if not statement.answered:
            raise InsertFailed(None, "no answer")
        if statement.code is not None:
            raise InsertFailed(statement.code, "refused")


@lru_cache(maxsize=1024)
def _rows(stream: bytes) -> tuple[Row, ...]:
    """The rows of an INSERT; many runs have the same ones."""
    with pa.ipc.open_stream(stream) as reader:
        return tuple(reader.read_all().to_pylist())


def refused(statement: Statement) -> None:
    """Raises OperationalError when a statement wasn't answered with success."""
    if not statement.answered:
        raise OperationalError("no answer")
    if statement.code is not None:
        raise OperationalError(f"code {statement.code}")


def ask(question: str) -> None:
    """A question put to the store. Raises OperationalError when no answer comes."""
    if effect(f"ask: {question}") is not None:
        raise OperationalError("no answer")


def _of_marker(row: Row, partition: int) -> bool:
    return bool(row["verdict"] == "marker" and row["block_partition"] == partition)


def _ms(moment: Any) -> int:
    return int(moment.timestamp() * 1000)


def _claimed(row: Row) -> bytes:
    """What a row claims, as claims.sql has it: its id, or the row that it supersedes."""
    key = sha256(f"{row['account']}\0{row['event_id']}".encode()).digest()[:16]
    if row["superseded_offset"] < 0:
        return key
    names = ("superseded_epoch", "superseded_offset", "superseded_index")
    place = ":".join(str(row[name]) for name in names)
    return sha256(key + place.encode()).digest()[:16]


def content_of(row: Row) -> int:
    """The content's checksum, as claims.sql computes it from a row."""
    given = _ms(row["timestamp"]) if row["timestamp_given"] else 0
    texts: Sequence[str] = (row["event_name"], row["source"])
    name, source = (crc32(text.encode()) for text in texts)
    customer = crc32(row["external_customer_id"].encode())
    mixed = (name * 3 ^ source * 5 ^ given) & 0xFFFFFFFF
    return crc32(row["properties"]) ^ customer ^ mixed
