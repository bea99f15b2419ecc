"""Runs of claims: what is in them is found, and nothing else; merging keeps the youngest."""

import secrets
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_workers import claim_runs
from stream_workers.claim_runs import (
    FAN,
    SMALL,
    Run,
    Unreadable,
    bits_of,
    due,
    lay_out,
    look_up,
    merged,
    one_of,
    size_of,
)
from stream_workers.claims import Claim, Claims, Keys, is_there, later, listed
from tests.stream_workers.worlds import Remembered, claim, found_in

HALVES = [bytes(8), b"\x01" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7), b"\xff" * 8]
KEYS = st.builds(bytes.__add__, st.sampled_from(HALVES), st.sampled_from(HALVES))
"""Few, many of which share their first half, and some of which have the ends of the order."""
CLAIMS = st.builds(claim, st.integers(0, 5), st.integers(0, 3))


def run_of(pairs: dict[bytes, Claim]) -> Run:
    return Run.of(Claims.of(pairs.items()).firsts())


def random_keys(count: int) -> Keys:
    keys = Keys.of(secrets.token_bytes(16 * count))
    return keys.take(np.argsort(keys.heads))


def laid_out(pieces: Sequence[Claims], room: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    content = np.zeros(size_of(room), dtype=np.uint8)
    lay_out(pieces, room, content)
    return content


@given(st.lists(st.dictionaries(KEYS, CLAIMS, max_size=12), max_size=4), st.lists(KEYS))
def test_a_key_is_found_in_the_first_run_that_has_it(
    known: list[dict[bytes, Claim]], asked: list[bytes]
) -> None:
    model = Remembered()
    for pairs in reversed(known):
        model.update(pairs)
    keys = Keys.of(b"".join(asked))
    runs = [run_of(pairs) for pairs in known if pairs]
    assert found_in(look_up(runs, keys)) == [model.get(key) for key in asked]
    assert found_in(look_up([one_of(runs)] if runs else [], keys)) == [model.get(k) for k in asked]
    whole = Claims.joined([Claims.of(()), *merged(runs)]) if runs else Claims.of(())
    assert whole.pairs() == sorted(model.items())


@settings(deadline=None)
@given(st.lists(st.dictionaries(KEYS, CLAIMS, max_size=12), min_size=1, max_size=4))
def test_pieces_make_up_the_same_run(known: list[dict[bytes, Claim]]) -> None:
    runs = [run_of(pairs) for pairs in known]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim_runs, "PIECE", 2)
        pieces = list(merged(runs))
    whole = one_of(runs)
    room = sum(map(len, runs))
    read = Run.read(laid_out(pieces, room))
    assert len(read) == len(whole)
    assert read.part(0, len(read)).pairs() == whole.part(0, len(whole)).pairs()
    keys = read.part(0, len(read)).keys
    assert is_there(look_up([read], keys)).all()


def test_thousands_of_claims_are_found_and_few_foreign_keys_asked_for() -> None:
    keys = random_keys(100_000)
    claims = Claims(keys, np.zeros(len(keys), dtype=Claims.of(()).table.dtype))
    run = Run.of(claims)
    assert run.may_hold(keys, bits_of(keys)).all()
    assert (run.find(keys) == np.arange(len(keys))).all()
    foreign = random_keys(100_000)
    assert (run.find(foreign) == -1).all()
    assert run.may_hold(foreign, bits_of(foreign)).mean() < 0.01


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ([], 0),
        ([1] * (FAN - 1), 0),
        ([1] * FAN, FAN),
        ([SMALL + 1] * FAN, FAN),
        ([SMALL + 1] * (FAN - 1) + [SMALL * FAN + 1], 0),
        ([1, 1] + [SMALL + 1] * FAN, FAN + 2),
        ([SMALL * FAN + 1] + [SMALL + 1] * (FAN - 1), 0),
        ([SMALL * FAN] * FAN + [SMALL * FAN * FAN] * FAN, FAN),
        ([1] * (FAN - 1) + [SMALL * FAN**4] * FAN, 2 * FAN - 1),
    ],
)
def test_runs_are_merged_when_there_are_enough_of_one_size(sizes: list[int], count: int) -> None:
    assert due(sizes) == count


def test_a_claim_is_written_once_for_each_power_and_few_runs_are_left() -> None:
    sizes: list[int] = []
    written = 0
    for _ in range(20_000):
        sizes.insert(0, 4000)
        written += 4000
        while count := due(sizes):
            sizes[:count] = [sum(sizes[:count])]
            written += sizes[0]
    assert sum(sizes) == 80_000_000
    assert len(sizes) <= (FAN - 1) * 6
    assert written / sum(sizes) < 6


def test_what_is_no_run_is_not_read() -> None:
    content = laid_out([Claims.of([(b"a" * 16, claim(1))])], 1)
    assert len(Run.read(content)) == 1
    for broken in (content[:0], content[:16], content[:-1], np.zeros_like(content)):
        with pytest.raises(Unreadable):
            Run.read(broken)


def test_of_two_claims_the_later_stays_wherever_it_stands() -> None:
    nothing = Remembered().look_up(Keys.of(b"a" * 16))
    pairs = [(Claim(claim(1).point, 5, 0), claim(1, 1)), (claim(1, 9), claim(2)),
             (claim(9, 9), Claim(claim(0).point._replace(epoch=1), 5, 0))]  # fmt: skip
    for earlier, latest in pairs:
        one, other = (Claims.of([(b"a" * 16, each)]).table for each in (earlier, latest))
        assert listed(later(one, other)) == listed(later(other, one)) == [latest]
        assert listed(later(one, nothing)) == listed(later(nothing, one)) == [earlier]
    assert found_in(later(nothing, nothing)) == [None]


@given(st.lists(st.tuples(KEYS, CLAIMS)))
def test_the_latest_claims_of_many(pairs: list[tuple[bytes, Claim]]) -> None:
    latest: dict[bytes, Claim] = {}
    for key, one in sorted(pairs, key=lambda pair: pair[1].point):
        latest[key] = one
    assert Claims.of(pairs).latest().pairs() == sorted(latest.items())


@given(st.lists(KEYS))
def test_the_first_of_equal_keys(keys: list[bytes]) -> None:
    known = Keys.of(b"".join(keys))
    firsts = known.firsts(np.argsort(known.heads))
    wanted = [keys.index(key) for key in keys]
    assert wanted == (list(range(len(keys))) if firsts is None else firsts.tolist())
    assert known.texts() == keys
