"""A block and what came before it give rows, claims and coverage."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import resent
from schemas.block import COLUMNS, Block, ipc
from schemas.catalog import Status
from schemas.limits import FUTURE_MS_MAX
from schemas.position import Log
from stream_workers.coverage import from_text
from stream_workers.folding import MARKER_INDEX
from stream_workers.packing import Pool, Record
from tests.stream_workers.worlds import (
    HORIZON_MS,
    NOW,
    Counted,
    FakeCatalog,
    Row,
    cut,
    make_catalog,
    make_event,
    make_feature,
    make_record,
    origin,
    point,
    pool_of,
    resend,
)

RESENT = Log("resent", 0, 0)


def block_of(*events: dict[str, Any], offset: int = 0, version: int = 1, **more: Any) -> Block:
    [(_, block)] = cut(pool_of([make_record(offset, events, **more)]), catalog_version=version)
    return block


def block_of_resent(*rows: Row, offset: int = 0, version: int = 1) -> Block:
    pool = Pool()
    value = resent.encode([resend(row) for row in rows])
    pool.add_resent(Record(RESENT, offset, "", NOW, value))
    [(_, block)] = cut(pool, catalog_version=version)
    return block


def marker_of(counter: Counted) -> Row:
    return counter.rows[-1]


def test_a_block_ends_with_its_marker_and_the_marker_says_what_is_covered() -> None:
    counter = Counted(make_catalog(make_feature()))
    counter.fold(block_of(make_event("a"), make_event("b")))
    assert [row["verdict"] for row in counter.rows] == ["counted", "counted", "marker"]
    marker = marker_of(counter)
    assert (marker["account"], marker["event_name"], marker["feature_id"]) == ("", "", "")
    assert marker["block_index"] == MARKER_INDEX
    assert from_text(bytes(marker["properties"]).decode()) == counter.coverage
    assert counter.coverage == {Log("gateway-events", 0, 0): ((0, 1 << 20),)}


def test_a_block_that_comes_twice_leaves_a_marker_alone() -> None:
    counter = Counted(make_catalog(make_feature()))
    block = block_of(make_event("a"), {"event_name": ""})
    counter.fold(block)
    again = counter.fold(block)
    assert [row["verdict"] for row in again.rows.to_pylist()] == ["marker"]
    assert len(again.claims) == 0
    assert dict(again.tally) == {}


def test_a_duplicate_says_where_the_first_is_and_whether_it_differs() -> None:
    counter = Counted(make_catalog(make_feature()))
    first = make_event("a", properties={"v": 1})
    counter.fold(block_of(first))
    counter.fold(block_of(first, make_event("a", properties={"v": 2}), offset=1))
    accepted, same, differs = counter.events()
    assert (same["verdict"], same["warnings"]) == ("duplicate", "")
    assert (differs["verdict"], differs["warnings"]) == ("duplicate", "content_differs")
    for row in (same, differs):
        assert (row["first_epoch"], row["first_offset"], row["first_index"]) == point(accepted)
        assert row["feature_id"] == ""


def test_an_id_counts_again_after_the_horizon_by_the_time_of_blocks() -> None:
    counter = Counted(make_catalog(make_feature()))
    for offset, time in enumerate(
        [NOW, NOW + HORIZON_MS, NOW + HORIZON_MS + 1, NOW + 2 * HORIZON_MS]
    ):
        counter.fold(block_of(make_event("a"), offset=offset), time)
    assert counter.verdicts() == ["counted", "duplicate", "counted", "duplicate"]


def test_an_event_matches_the_catalog_at_its_blocks_version() -> None:
    counter = Counted(make_catalog(make_feature(), since=5))
    counter.fold(block_of(make_event("a"), version=4))
    counter.fold(block_of(make_event("b"), offset=1, version=5))
    assert [(row["verdict"], row["catalog_version"]) for row in counter.events()] == [
        ("unknown_event_name", 4), ("counted", 5),
    ]  # fmt: skip


def test_rows_carry_value_feature_position_and_owner() -> None:
    counter = Counted(make_catalog(make_feature("SUM", "v")), partition=3, next_offset=9)
    event = make_event(
        "a", timestamp="2025-01-02T03:04:05.678Z", source="api", properties={"v": -1.5}
    )
    counter.fold(block_of(event, offset=7), owner=77)
    [row] = counter.events()
    assert row["timestamp"] == datetime(2025, 1, 2, 3, 4, 5, 678000, UTC)
    assert str(row["value"]) == "-1.500000000000000000"
    assert origin(row) == ("gateway-events", 0, 0, 7, 0)
    assert (row["block_epoch"], row["block_partition"], row["block_offset"]) == (0, 3, 9)
    assert (row["owner"], row["feature_id"], row["aggregation"]) == (77, "feat_calls", "SUM")
    assert (row["source"], row["grain"], row["superseded_offset"]) == ("api", 3600, -1)
    assert json.loads(row["properties"]) == {"v": -1.5}


def test_an_archived_feature_counts_nothing_but_says_whose_it_was() -> None:
    counter = Counted(make_catalog(make_feature(status=Status.ARCHIVED)))
    counter.fold(block_of(make_event("a")))
    [row] = counter.events()
    assert (row["verdict"], row["feature_id"], row["aggregation"]) == (
        "feature_archived", "feat_calls", "",
    )  # fmt: skip


def test_customers_are_warned_of_beside_the_verdict() -> None:
    catalog = FakeCatalog(
        {"calls": (0, make_feature("SUM", "v"))}, {"new": "unknown", "gone": "archived"}
    )
    counter = Counted(catalog)
    counter.fold(
        block_of(
            make_event("a", external_customer_id="new", properties={"v": "1"}),
            make_event("b", external_customer_id="gone", properties={"v": 1}),
            make_event("c", properties={"v": 1}),
            make_event("d", external_customer_id="new"),
        )
    )
    assert [row["warnings"] for row in counter.events()] == [
        "numeric_string,unknown_customer", "customer_archived", "", "",
    ]  # fmt: skip


def test_a_timestamp_a_day_ahead_of_its_receipt_is_out_of_range() -> None:
    def at(ms: int) -> str:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat()

    counter = Counted(make_catalog(make_feature("SUM", "v", filters=(("r", frozenset({"eu"})),))))
    good = {"v": 1, "r": "eu"}
    counter.fold(
        block_of(
            make_event("a", timestamp=at(NOW + FUTURE_MS_MAX), properties=good),
            make_event("b", timestamp=at(NOW + FUTURE_MS_MAX + 1), properties=good),
            make_event("c", timestamp=at(NOW + FUTURE_MS_MAX + 1), properties={"v": 1}),
            make_event("d", timestamp="9999-12-31T23:59:59Z", properties=good),
        )
    )
    assert counter.verdicts() == ["counted", "out_of_range", "filtered", "out_of_range"]
    assert [int(row["value"]) for row in counter.events()] == [1, 0, 0, 0]


def test_accounts_and_names_of_one_block_are_matched_apart() -> None:
    catalog = make_catalog(make_feature("SUM", "v"), make_feature(event_name="other"))
    counter = Counted(catalog)
    names = ["calls", "other", "none", "calls", "other"]
    counter.fold(
        block_of(
            *(
                make_event(str(n), event_name=name, properties={"v": n})
                for n, name in enumerate(names)
            )
        )
    )
    assert [(row["event_name"], row["verdict"], int(row["value"])) for row in counter.events()] == [
        ("calls", "counted", 0), ("other", "counted", 0), ("none", "unknown_event_name", 0),
        ("calls", "counted", 3), ("other", "counted", 0),
    ]  # fmt: skip


def test_a_block_of_dead_letters_alone_has_no_events() -> None:
    counter = Counted(make_catalog())
    counter.fold(block_of({"event_name": ""}))
    empty = ipc(pa.RecordBatch.from_pylist([], schema=COLUMNS))
    counter.fold(Block(1, 0, 1, [], [], empty))
    assert [row["verdict"] for row in counter.rows] == ["dead_letter", "marker", "marker"]


# Re-sent events


def late(*ids: str) -> Counted:
    """A counter whose catalog has the feature from version 2 on, with events from version 1."""
    counter = Counted(make_catalog(make_feature("SUM", "v"), since=2))
    counter.fold(block_of(*(make_event(each, properties={"v": 5}) for each in ids)))
    return counter


def test_a_resent_event_is_counted_and_names_the_row_that_it_supersedes() -> None:
    counter = late("a")
    [before] = counter.events()
    counter.fold(block_of_resent(before, version=2))
    row = counter.events()[1]
    assert (row["verdict"], int(row["value"])) == ("counted", 5)
    assert (row["superseded_epoch"], row["superseded_offset"], row["superseded_index"]) == point(
        before
    )
    assert origin(row) == origin(before)
    for name in ("event_id", "timestamp", "ingested_at", "timestamp_given", "source", "properties"):
        assert row[name] == before[name]


def test_the_content_of_a_resent_event_is_what_it_was() -> None:
    counter = late("a")
    counter.fold(block_of_resent(counter.events()[0], version=2))
    counter.fold(block_of(make_event("a", properties={"v": 5}), offset=1, version=2))
    assert (counter.verdicts()[2], counter.events()[2]["warnings"]) == ("duplicate", "")


def test_a_second_resend_of_a_row_leaves_nothing() -> None:
    counter = late("a", "b")
    rows = counter.events()
    counter.fold(block_of_resent(*rows, rows[0], version=2))
    counter.fold(block_of_resent(*rows, offset=1, version=2))
    assert counter.verdicts() == ["unknown_event_name"] * 2 + ["counted"] * 2


def test_an_id_that_came_twice_before_its_feature_counts_twice_when_it_may() -> None:
    """Its second row is no duplicate behind the horizon; both are late, in whatever order."""
    for order in ((0, 1), (1, 0)):
        for wait_ms in (0, HORIZON_MS + 1):
            counter = late("a")
            again = block_of(make_event("a", properties={"v": 7}), offset=1)
            counter.fold(again, NOW + HORIZON_MS + 1)
            rows = counter.events()
            then = NOW + HORIZON_MS + 2 + wait_ms
            for offset, number in enumerate((*order, *order)):
                counter.fold(block_of_resent(rows[number], offset=offset, version=2), then)
            assert counter.verdicts() == ["unknown_event_name"] * 2 + ["counted"] * 2
            assert sorted(int(row["value"]) for row in counter.events()[2:]) == [5, 7]


def test_an_id_behind_the_horizon_leaves_the_row_before_it_to_be_sent_again() -> None:
    counter = late("a")
    [before] = counter.events()
    matched = block_of(make_event("a", properties={"v": 7}), offset=1, version=2)
    counter.fold(matched, NOW + HORIZON_MS + 1)
    counter.fold(block_of_resent(before, version=2), NOW + HORIZON_MS + 2)
    assert counter.verdicts() == ["unknown_event_name", "counted", "counted"]


def test_a_row_that_is_unmatched_again_can_be_resent_again() -> None:
    counter = late("a")
    for offset, version in enumerate([1, 1, 2]):
        counter.fold(block_of_resent(counter.events()[-1], offset=offset, version=version))
    assert counter.verdicts() == ["unknown_event_name"] * 3 + ["counted"]


def test_duplicates_around_a_resent_event_stay_duplicates() -> None:
    counter = late("a")
    [before] = counter.events()
    pool = pool_of([make_record(1, [make_event("a", properties={"v": 9})])])
    pool.add_resent(Record(RESENT, 0, "", NOW, resent.encode([resend(before)])))
    pool.add([make_record(2, [make_event("a", properties={"v": 9})])], lambda *_: None)
    [(_, block)] = cut(pool, catalog_version=2)
    counter.fold(block)
    assert counter.verdicts() == ["unknown_event_name", "duplicate", "counted", "duplicate"]
    assert int(counter.events()[2]["value"]) == 5


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_late_event_is_counted_once_whatever_is_sent_again_and_when(
    data: st.DataObject,
) -> None:
    """A sweep that re-sends any rows any number of times, with producers' repeats in between."""
    counter = late(*"abcdef")
    for offset in range(data.draw(st.integers(1, 6))):
        unmatched = [row for row in counter.events() if row["verdict"] == "unknown_event_name"]
        chosen = data.draw(st.lists(st.sampled_from(unmatched), max_size=8))
        version = data.draw(st.integers(1, 2))
        pool = pool_of([make_record(offset + 1, [make_event(data.draw(st.sampled_from("abcxy")))])])
        pool.add_resent(Record(RESENT, offset, "", NOW, resent.encode([resend(r) for r in chosen])))
        for _, block in cut(pool, catalog_version=version):
            counter.fold(block)
    open_rows = pending(counter)
    pool = Pool()
    pool.add_resent(Record(RESENT, 99, "", NOW, resent.encode([resend(row) for row in open_rows])))
    for _, block in cut(pool, catalog_version=2):
        counter.fold(block)
    assert pending(counter) == []
    ids = [
        row["event_id"]
        for row in counter.events()
        if row["verdict"] in ("counted", "missing_property")
    ]
    assert len(ids) == len(set(ids)) and set(ids) >= set("abcdef")
    swept = [
        row
        for row in counter.events()
        if row["event_id"] in "abcdef" and row["verdict"] == "counted"
    ]
    assert [int(row["value"]) for row in swept] == [5] * 6


def pending(counter: Counted) -> list[Row]:
    gone = {
        (row["superseded_epoch"], row["superseded_offset"], row["superseded_index"])
        for row in counter.events()
    }
    return [
        row
        for row in counter.events()
        if row["verdict"] == "unknown_event_name" and tuple(point(row)) not in gone
    ]


@pytest.mark.parametrize("field", ["log_offset", "log_index"])
def test_positions_fill_their_columns(field: str) -> None:
    counter = Counted(make_catalog(make_feature()))
    counter.fold(block_of(*(make_event(str(n)) for n in range(3)), offset=(1 << 43) + 1))
    found = [row[field] for row in counter.events()]
    assert found == ([(1 << 43) + 1] * 3 if field == "log_offset" else [0, 1, 2])
