"""Packing any records in any way, and folding what lands, gives each event exactly one row."""

import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.block import Block
from schemas.limits import BLOCK_BYTES_MAX
from schemas.position import Log
from stream_workers.packing import Record
from tests.stream_workers.worlds import (
    Counted,
    Packing,
    Remembered,
    Row,
    count_all,
    make_catalog,
    make_event,
    make_feature,
    origin,
    point,
)

LOGS = [Log("gateway-events", 0, 0), Log("gateway-events", 0, 1), Log("events.acme", 2, 1)]
BAD = [None, b"", b"rubbish", b"[]", b'{"event_name": 1}']
CATALOG = make_catalog(make_feature("SUM", "v"))
EXHAUSTIVE = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    """Records of three logs in an order of reading; few ids, so that many come back."""
    found = []
    offsets = dict.fromkeys(LOGS, 0)
    for _ in range(draw(st.integers(1, 14))):
        log = draw(st.sampled_from(LOGS))
        offset = offsets[log] + draw(st.integers(0, 2))
        offsets[log] = offset + 1
        value: bytes | None
        if draw(st.integers(0, 5)) == 0:
            value = draw(st.sampled_from(BAD))
        else:
            events: list[dict[str, Any]] = []
            for number in draw(st.lists(st.integers(0, 12), min_size=1, max_size=6)):
                if number == 12:
                    events.append({"event_name": ""})  # one bad event among good ones
                elif number == 11:
                    events.append(make_event(customer_id="x", external_customer_id=None))
                else:
                    event_id = None if number == 10 else f"id{number}"
                    events.append(make_event(event_id, properties={"v": number, "p": "x" * 40}))
            value = json.dumps(events).encode()
        found.append(Record(log, offset, "acme", 1_763_700_000_000 + offset, value))
    return found


def expected(all_records: list[Record]) -> Counter[tuple[str, int, int, int, int]]:
    """Where every event and every dead letter stands."""
    places: Counter[tuple[str, int, int, int, int]] = Counter()
    for record in all_records:
        count = 1
        if record.value not in BAD:
            count = len(json.loads(record.value or b""))
        for index in range(count):
            places[
                record.log.topic, record.log.epoch, record.log.partition, record.offset, index
            ] += 1
    return places


def check(counters: list[Counted], all_records: list[Record]) -> None:
    rows = [row for counter in counters for row in counter.events()]
    assert Counter(map(origin, rows)) == expected(all_records)
    firsts: Counter[str] = Counter()
    for row in rows:
        if row["verdict"] not in ("duplicate", "dead_letter"):
            firsts[row["event_id"]] += 1
    assert set(firsts) == {row["event_id"] for row in rows if row["verdict"] != "dead_letter"}
    assert set(firsts.values()) <= {1}


@EXHAUSTIVE
@given(all_records=records(), data=st.data())
def test_each_event_has_one_row_however_packers_fail_restart_and_overlap(
    all_records: list[Record], data: st.DataObject
) -> None:
    """Packers start from the commit at any time; a zombie goes on sending; blocks get lost."""
    partitions = data.draw(st.integers(1, 3), "partitions")
    bytes_max = data.draw(st.sampled_from([1, 300, 900, BLOCK_BYTES_MAX]), "bytes_max")
    commit, log_of_blocks = 0, list[tuple[int, Block]]()
    packers: list[Packing] = []
    outboxes: list[list[tuple[tuple[int, Block] | None, int]]] = []

    def new_packer() -> None:
        packers.append(Packing(all_records, commit, partitions, bytes_max))
        outboxes.append([])

    def deliver(number: int) -> None:
        """Send the oldest thing of an outbox: a block, or the commit after a flush."""
        nonlocal commit
        sent, read = outboxes[number].pop(0)
        packer = packers[number]
        if sent is not None:
            if data.draw(st.integers(0, 5)) == 0:
                packer.failed = True
            else:
                log_of_blocks.append(sent)
                if data.draw(st.integers(0, 9)) == 0:
                    log_of_blocks.append(sent)  # sent twice
        elif not packer.failed and number == len(packers) - 1:
            commit = read

    new_packer()
    for _ in range(data.draw(st.integers(0, 25), "steps")):
        step = data.draw(st.integers(0, 9))
        if step == 0:
            new_packer()
            continue
        number = data.draw(st.integers(max(0, len(packers) - 2), len(packers) - 1))
        if step <= 4 or not outboxes[number]:
            packer = packers[number]
            blocks = list(packer.flush(data.draw(st.integers(1, 4)), lambda: True))
            outboxes[number] += [(block, 0) for block in blocks] + [(None, packer.read)]
        else:
            deliver(number)

    new_packer()  # one that works, while what the others still have under way may come in between
    last = packers[-1]
    while last.read < len(all_records):
        log_of_blocks += last.flush(data.draw(st.integers(1, 5)), lambda: True)
        for other in range(len(outboxes) - 1):
            if outboxes[other] and data.draw(st.sampled_from([False, True])):
                deliver(other)
    check(count_all(log_of_blocks, CATALOG, partitions), all_records)


@EXHAUSTIVE
@given(all_records=records(), data=st.data())
def test_a_replay_of_any_suffix_gives_identical_rows(
    all_records: list[Record], data: st.DataObject
) -> None:
    """Also when its claims are ahead: a claim at or behind an event's own place is its own."""
    packer = Packing(all_records, 0, 1, 600)
    blocks: list[Block] = []
    while packer.read < len(all_records):
        blocks += [block for _, block in packer.flush(data.draw(st.integers(1, 4)), lambda: True)]
    counter = Counted(CATALOG)
    states = []
    rows_of: list[list[Row]] = []
    for block in blocks:
        states.append((counter.coverage, counter.balance, Remembered(counter.claims)))
        rows_of.append(counter.fold(block).rows.to_pylist())
    if not blocks:
        return
    start = data.draw(st.integers(0, len(blocks) - 1))
    coverage, balance, claims_then = states[start]
    for claims in (claims_then, Remembered(counter.claims)):
        again = Counted(CATALOG, 0, coverage, balance, claims, start)
        for block, rows in zip(blocks[start:], rows_of[start:], strict=True):
            assert again.fold(block).rows.to_pylist() == rows
        assert (again.coverage, again.balance) == (counter.coverage, counter.balance)
        assert again.claims == counter.claims


@EXHAUSTIVE
@given(all_records=records(), data=st.data())
def test_a_row_stands_where_its_claim_says(all_records: list[Record], data: st.DataObject) -> None:
    """The sweep names a row by its place in the log of blocks: the claim has to be the same."""
    packer = Packing(all_records, 0, 2, data.draw(st.sampled_from([400, BLOCK_BYTES_MAX])))
    blocks = list(packer.flush(len(all_records), lambda: True))
    for counter in count_all(blocks * 2, CATALOG, 2):
        owners = [row for row in counter.events() if row["verdict"] in ("counted", "filtered")]
        assert {point(row) for row in owners} == {claim.point for claim in counter.claims.values()}
        for row in counter.events():
            if row["verdict"] == "duplicate":
                first = (row["first_epoch"], row["first_offset"], row["first_index"])
                assert first in {tuple(point(owner)) for owner in owners}
