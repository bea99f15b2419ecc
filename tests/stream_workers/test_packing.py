"""Records in, blocks out: ids and times, sizes, dead letters, keys."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from random import Random

import pytest

from schemas import resent
from schemas.block import Block, encode, ipc
from schemas.limits import BLOCK_BYTES_MAX, MESSAGE_BYTES_MAX
from schemas.position import Log, Point, position
from stream_workers.packing import Pool, Record
from tests.stream_workers.worlds import (
    NOW,
    SOURCE,
    Counted,
    Row,
    count_all,
    cut,
    make_catalog,
    make_event,
    make_feature,
    make_record,
    no_customer,
    pool_of,
)

ULID = "01K3ABCDEFGHJKMNPQRSTVWXYZ"  # two after it: …XZ1


def only(blocks: list[tuple[int, Block]]) -> Block:
    [(_, block)] = blocks
    return block


def rows_of(pool: Pool, bytes_max: int = BLOCK_BYTES_MAX) -> list[Row]:
    [counter] = count_all(cut(pool, bytes_max=bytes_max), make_catalog(), 1)
    return counter.events()


def test_what_a_producer_leaves_out_is_filled_from_the_record() -> None:
    record = make_record(7, [make_event("a", timestamp="2025-01-02T03:04:05.678Z"), make_event()])
    table = only(cut(pool_of([record]))).table()
    assert table.column("event_id").to_pylist() == ["a", "gateway-events-0-0-7-1"]
    assert table.column("timestamp").to_pylist() == [1735787045678, NOW]
    assert table.column("timestamp_given").to_pylist() == [True, False]
    assert table.column("ingested_at").to_pylist() == [NOW, NOW]


def test_missing_ids_count_up_from_the_gateways_first_id() -> None:
    value = json.dumps([make_event(), make_event("b"), make_event()]).encode()
    pool = pool_of([Record(SOURCE, 0, "acme", NOW, value, first_id=ULID)])
    ids = only(cut(pool)).table().column("event_id").to_pylist()
    assert ids == [f"event_{ULID}", "b", "event_01K3ABCDEFGHJKMNPQRSTVWXZ1"]


def test_a_claim_key_is_half_a_sha256_of_account_and_id() -> None:
    table = only(cut(pool_of([make_record(0, [make_event("a")])]))).table()
    assert table.column("key").to_pylist() == [sha256(b"acme\0a").digest()[:16]]


def test_an_id_goes_to_the_same_partition_in_every_block() -> None:
    events = [make_event(f"id{number}") for number in range(200)]
    homes: dict[str, set[int]] = {}
    for offset in range(3):
        for partition, block in cut(pool_of([make_record(offset, events)]), 4):
            for event_id in block.table().column("event_id").to_pylist():
                homes.setdefault(event_id, set()).add(partition)
    assert len(homes) == 200
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert {next(iter(partitions)) for partitions in homes.values()} == {0, 1, 2, 3}


def test_ids_of_two_accounts_are_two_ids() -> None:
    records = [make_record(0, [make_event("a")]), make_record(1, [make_event("a")], account="b")]
    assert [row["verdict"] for row in rows_of(pool_of(records))] == ["unknown_event_name"] * 2


@pytest.mark.parametrize("field", ["event_name", "external_customer_id", "source", "properties"])
def test_the_content_tells_what_was_sent_apart(field: str) -> None:
    one = make_event("a", source="s", properties={"v": 1}, timestamp="2025-01-01T00:00:00Z")
    other = one | {field: {"v": 2} if field == "properties" else "other"}
    contents = only(cut(pool_of([make_record(0, [one, other, dict(one)])]))).table()
    first, second, third = contents.column("content").to_pylist()
    assert first == third != second


def test_the_content_takes_no_default_for_what_was_sent() -> None:
    without, later = make_record(0, [make_event("a")]), make_record(1, [make_event("a")])
    table = only(cut(pool_of([without, Record(SOURCE, 1, "acme", NOW + 5, later.value)]))).table()
    first, second = table.column("content").to_pylist()
    assert first == second


def test_40_000_events_of_10_mb_become_blocks_within_the_limit() -> None:
    events = [make_event(f"id{n}", properties={"v": n, "pad": "x" * 120}) for n in range(40_000)]
    value = json.dumps(events).encode()
    assert 8 << 20 < len(value) <= 10 << 20
    blocks = cut(pool_of([make_record(0, value)]), 2)
    assert len(blocks) == 2
    assert max(len(encode(block)) for _, block in blocks) < BLOCK_BYTES_MAX
    assert sum(block.table().num_rows for _, block in blocks) == 40_000
    assert {block.ranges[0].stop for _, block in blocks[-1:]} == {position(1)}


@pytest.mark.parametrize("letter", ["x", "\N{GRINNING FACE}"])
def test_long_texts_weigh_as_much_as_they_take(letter: str) -> None:
    """Every text of an event may be long, and another in each."""

    chance = Random(1)

    def text() -> str:
        return letter * 223 + f"{chance.getrandbits(128):032x}"

    events = [
        make_event(
            text(),
            event_name=text(),
            external_customer_id=text(),
            source=text(),
        )
        for _ in range(8_000)
    ]
    records = [make_record(n, events[n : n + 500]) for n in range(0, len(events), 500)]
    pool = pool_of(records)
    for partitions in (1, 3):
        blocks = cut(pool_of(records), partitions)
        assert sum(block.table().num_rows for _, block in blocks) == len(events)
        assert max(len(encode(block)) for _, block in blocks) < BLOCK_BYTES_MAX
    plain = sum(len(ipc(block.table(), compression=None)) for _, block in blocks)
    assert 0.9 * plain < pool.weight < 1.3 * plain


def test_a_block_has_those_texts_in_its_dictionaries_that_its_events_have() -> None:
    events = [make_event(f"id{n}", event_name=f"name{n % 7}") for n in range(40)]
    for _, block in cut(pool_of([make_record(0, events)]), 8):
        names = block.table().column("event_name")
        assert sorted(names.dictionary.to_pylist()) == sorted(set(names.to_pylist()))


def test_one_heavy_event_makes_a_block_alone() -> None:
    heavy = make_event("big", properties={"pad": "x" * 1_000_000})
    events = [make_event("a"), heavy, make_event("b")]
    blocks = cut(pool_of([make_record(0, events)]), bytes_max=2000)
    assert [block.table().column("event_id").to_pylist() for _, block in blocks] == [
        ["a"], ["big"], ["b"],
    ]  # fmt: skip
    assert all(len(encode(block)) < MESSAGE_BYTES_MAX for _, block in blocks)


def test_dead_letters_between_events_survive_any_cut() -> None:
    """In pieces each range ends where its piece ends: nothing behind it is covered before it."""
    events = [
        make_event(f"id{n}") if n % 3 else {"event_name": "", "n": "y" * n} for n in range(40)
    ]
    for bytes_max in (1, 200, 500, 1000, 3000, 1 << 20):
        rows = rows_of(pool_of([make_record(0, events), make_record(1, events)]), bytes_max)
        places = [(row["log_offset"], row["log_index"]) for row in rows]
        assert sorted(places) == [(offset, n) for offset in (0, 1) for n in range(40)]
        assert [row["verdict"] for row in rows].count("dead_letter") == 28


def test_dead_letters_of_unlike_weight_stay_in_order() -> None:
    records = [make_record(offset, b"x" * size) for offset, size in enumerate([900, 10, 500, 20])]
    rows = rows_of(pool_of(records), bytes_max=1)
    assert [row["log_offset"] for row in rows] == [0, 1, 2, 3]


def test_a_gap_is_a_dead_letter_beside_the_first_record_behind_it() -> None:
    for bytes_max in (1, 1 << 20):
        pool = Pool()
        first = make_record(5, [make_event("a"), make_event("b")])
        pool.add([first], no_customer)
        pool.note_gap(first, "log_truncated: offsets 0 to 4 were deleted")
        pool.add([make_record(6, [make_event("c")])], no_customer)
        rows = rows_of(pool, bytes_max)
        assert sorted(row["detail"] or row["event_id"] for row in rows) == [
            "a", "b", "c", "log_truncated: offsets 0 to 4 were deleted",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"[]", "empty"),
        (b"rubbish", "invalid_json"),
        (b'{"event_name": "\xff"}', "invalid_utf8"),
        (b'{"events": []}', "empty"),
        (b"[" + b" " * (10 << 20) + b"]", "too_large"),
    ],
)
def test_an_unreadable_record_is_one_dead_letter(value: bytes | None, code: str) -> None:
    [row] = rows_of(pool_of([make_record(3, value)]))
    assert (row["verdict"], row["detail"].split(":")[0]) == ("dead_letter", code)
    assert (row["log_offset"], row["account"]) == (3, "acme")
    assert row["properties"] == (value or b"")


def test_one_bad_event_among_99_good_ones_is_one_dead_letter_with_its_text() -> None:
    events = [make_event(f"id{n}") for n in range(100)]
    events[41] = {"event_name": "calls"}
    rows = rows_of(pool_of([make_record(0, events)]))
    letters = [row for row in rows if row["verdict"] == "dead_letter"]
    assert len(rows) == 100
    assert [(row["log_index"], row["properties"]) for row in letters] == [
        (41, b'{"event_name": "calls"}')
    ]


def test_a_record_too_large_to_be_set_aside_whole_is_cut_and_says_so() -> None:
    [row] = rows_of(pool_of([make_record(0, b"x" * (13 << 20))]))
    assert len(row["properties"]) == 12 << 20
    assert "cut from 13631488 bytes" in row["detail"]


def test_a_customer_id_of_ours_is_resolved_or_set_aside() -> None:
    pool = Pool()
    events = [
        {"event_name": "calls", "customer_id": "cust_1", "event_id": "a"},
        {"event_name": "calls", "customer_id": "cust_2", "event_id": "b"},
    ]
    names = {"cust_1": "theirs"}
    pool.add([make_record(0, events)], lambda account, customer_id: names.get(customer_id))
    rows = rows_of(pool)
    assert [row["external_customer_id"] for row in rows] == ["theirs", ""]
    assert rows[1]["detail"] == "unknown_customer_id: no customer has the id 'cust_2'"


def test_records_without_an_account_are_set_aside() -> None:
    [row] = rows_of(pool_of([make_record(0, [make_event("a")], account="")]))
    assert row["detail"].startswith("no_account")


def test_a_resent_event_keeps_identity_times_and_home() -> None:
    home = Log("events.acme", 3, 2)
    event = resent.Resent(
        account="acme", event_id="a", event_name="calls", external_customer_id="cust",
        timestamp=5_000, timestamp_given=True, ingested_at=9_000, source="s", properties='{"v":1}',
        home=home, home_position=position(8, 4), superseded=Point(0, 11, 6),
    )  # fmt: skip
    pool = Pool()
    pool.add([make_record(1, [make_event("other")])], no_customer)
    pool.add_resent(Record(Log("resent", 0, 0), 2, "", NOW, resent.encode([event])))
    counter = Counted(make_catalog(make_feature()))
    for _, block in cut(pool):
        counter.fold(block)
    other, row = counter.events()
    assert (other["log_topic"], other["superseded_offset"]) == ("gateway-events", -1)
    assert row["timestamp"] == datetime.fromtimestamp(5, UTC)
    assert row["ingested_at"] == datetime.fromtimestamp(9, UTC)
    assert [row[f"log_{part}"] for part in ("topic", "epoch", "partition", "offset", "index")] == [
        "events.acme", 3, 2, 8, 4,
    ]  # fmt: skip
    assert (row["superseded_epoch"], row["superseded_offset"], row["superseded_index"]) == (
        0,
        11,
        6,
    )
    assert row["verdict"] == "counted"


def test_what_the_console_never_wrote_to_resent_is_a_dead_letter() -> None:
    pool = Pool()
    pool.add_resent(Record(Log("resent", 0, 0), 2, "", NOW, b"[{}]"))
    [row] = rows_of(pool)
    assert row["verdict"] == "dead_letter"
