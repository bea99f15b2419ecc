"""Which event of an id is the first."""

from itertools import permutations

import numpy as np
import pytest

from schemas.position import Point
from stream_workers.claims import Claim, Keys, listed, resent_key
from stream_workers.dedupe import Decision, Place, Standing, decide
from tests.stream_workers.worlds import HORIZON_MS, NOW, Remembered, claim

A, B = b"a" * 16, b"b" * 16
ACCEPTED, DUPLICATE, DROPPED = Standing.ACCEPTED, Standing.DUPLICATE, Standing.DROPPED


def judge(
    keys: list[bytes],
    found: dict[bytes, Claim] | None = None,
    resent: list[bool] | None = None,
    *,
    epoch: int = 0,
    offset: int = 10,
    contents: list[int] | None = None,
) -> Decision:
    known = Keys.of(b"".join(keys))
    return decide(
        known,
        np.array(contents or [0] * len(keys), dtype=np.uint32),
        np.arange(len(keys), dtype=np.uint32),
        None if resent is None else np.array(resent),
        Remembered(found or {}).look_up(known),
        Place(epoch, 0, offset, NOW),
        HORIZON_MS,
        np.argsort(known.heads),
    )


def first_of(decision: Decision) -> dict[int, tuple[Point, bool]]:
    """Of each duplicate where the first is, and whether it differs."""
    rows = np.flatnonzero(decision.standings == DUPLICATE).tolist()
    firsts = [one.point for one in listed(decision.first)]
    return {row: (firsts[row], bool(decision.differs[row])) for row in rows}


def test_an_id_that_comes_back_inside_a_block_counts_once() -> None:
    decision = judge([A, B, A], contents=[1, 2, 3])
    assert decision.standings.tolist() == [ACCEPTED, ACCEPTED, DUPLICATE]
    assert first_of(decision) == {2: (Point(0, 10, 0), True)}


def test_an_earlier_claim_makes_a_duplicate_that_names_the_first() -> None:
    decision = judge([A], {A: claim(7, 3)})
    assert decision.standings.tolist() == [DUPLICATE]
    assert first_of(decision) == {0: (Point(0, 7, 3), False)}


def test_a_claim_at_the_own_place_or_later_is_the_own() -> None:
    assert judge([A], {A: claim(10, 0)}).standings.tolist() == [ACCEPTED]
    assert judge([A], {A: claim(11, 0)}).standings.tolist() == [ACCEPTED]
    assert judge([B, A], {A: claim(10, 0)}).standings.tolist() == [ACCEPTED, DUPLICATE]


@pytest.mark.parametrize(("age", "standing"), [(HORIZON_MS, DUPLICATE), (HORIZON_MS + 1, ACCEPTED)])
def test_a_claim_expires_by_the_time_of_blocks(age: int, standing: Standing) -> None:
    assert judge([A], {A: claim(1, time=NOW - age)}).standings.tolist() == [standing]


def test_an_expired_claim_gives_way_once() -> None:
    old = {A: claim(1, time=NOW - HORIZON_MS - 1)}
    assert judge([A, A], old).standings.tolist() == [ACCEPTED, DUPLICATE]


def test_a_row_is_superseded_by_the_first_that_is_sent_again_for_it() -> None:
    assert judge([A], {}, [True]).standings.tolist() == [ACCEPTED]
    assert judge([A], {A: claim(9, 0)}, [True]).standings.tolist() == [DROPPED]
    assert judge([A], {A: claim(10, 0)}, [True]).standings.tolist() == [ACCEPTED]


def test_a_second_resend_leaves_no_row_in_the_same_block_either() -> None:
    assert judge([A, A, B], {}, [True, True, False]).standings.tolist() == [
        ACCEPTED, DROPPED, ACCEPTED,
    ]  # fmt: skip


def test_who_claims_a_row_has_a_key_of_that_row_alone() -> None:
    keys = {resent_key(key, Point(*place)) for key in (A, B) for place in permutations(range(3))}
    assert len(keys) == 12
    assert {len(key) for key in keys} == {16}


def test_duplicates_around_a_resent_event_of_their_id_stay_duplicates() -> None:
    was = Point(0, 4, 2)
    decision = judge([A, resent_key(A, was), A], {A: claim(4, 2)}, [False, True, False])
    assert decision.standings.tolist() == [DUPLICATE, ACCEPTED, DUPLICATE]
    assert first_of(decision) == {0: (was, False), 2: (was, False)}


def test_the_claim_of_another_epoch_comes_before() -> None:
    decision = judge([A], {A: claim(999)}, epoch=1, offset=0)
    assert decision.standings.tolist() == [DUPLICATE]
