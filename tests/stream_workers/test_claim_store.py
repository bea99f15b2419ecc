"""Claims on disk."""

from functools import partial
from pathlib import Path

import pytest

from stream_workers.claim_store import ClaimStore
from stream_workers.claims import Claim, Claims, Keys
from tests.stream_workers.worlds import claim, found_in

DAY = 24 * 3_600_000
HORIZON = 35 * DAY
KEYS = [bytes([number]) * 16 for number in range(4)]
A, B, C, D = KEYS


def opened(folder: Path, identity: str = "store/0") -> ClaimStore:
    return ClaimStore(folder / "claims", identity=identity, horizon_ms=HORIZON)


def written(*pairs: tuple[bytes, Claim]) -> Claims:
    return Claims.of(pairs).firsts()


def seen(store: ClaimStore, keys: list[bytes], time: int = DAY) -> list[Claim | None]:
    """What the store says of keys, in any order."""
    return found_in(store.look_up(Keys.of(b"".join(keys)), time))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_claims_and_the_offset_reached_survive_a_restart(folder: Path) -> None:
    store = opened(folder)
    assert (store.reached, seen(store, [A, B], DAY)) == (-1, [None, None])
    store.write(0, DAY, written((A, claim(0))))
    store.write(1, DAY, written())
    store.close()
    store = opened(folder)
    assert store.reached == 1
    assert seen(store, [B, A], DAY) == [None, claim(0)]
    store.close()


def test_a_block_without_claims_moves_the_offset(folder: Path) -> None:
    store = opened(folder)
    store.write(0, DAY, written())
    assert store.reached == 0
    assert seen(store, [A], DAY) == [None]
    store.close()


def test_a_claim_is_found_until_its_horizon_and_the_newer_one_wins(folder: Path) -> None:
    store = opened(folder)
    time = 10 * HORIZON + DAY
    store.write(1, time, written((A, claim(1)), (B, claim(1, 1))))
    store.write(2, time + HORIZON - DAY, written((C, claim(2))))
    later = time + HORIZON - 1
    store.write(3, later, written((B, claim(3))))
    assert seen(store, KEYS, later) == [claim(1), claim(3), claim(2), None]
    store.close()


def test_generations_beyond_the_horizon_are_dropped_and_stay_dropped(folder: Path) -> None:
    store = opened(folder)
    for number, key in enumerate(KEYS):
        store.write(number, number * HORIZON + 1, written((key, claim(number))))
    assert seen(store, KEYS, 3 * HORIZON + 1) == [None, None, claim(2), claim(3)]
    store.close()
    store = opened(folder)
    assert seen(store, KEYS, 3 * HORIZON + 1) == [None, None, claim(2), claim(3)]
    assert seen(store, KEYS, 1) == [None] * 4
    store.close()


def test_a_block_from_before_the_turn_of_a_generation_sees_what_came_after(folder: Path) -> None:
    """The broker's clock may step back a little."""
    store = opened(folder)
    store.write(1, 2 * HORIZON + 1, written((A, claim(1))))
    assert seen(store, [A], 2 * HORIZON - 1) == [claim(1)]
    store.close()


def test_claims_read_back_count_once_they_are_complete(folder: Path) -> None:
    store = opened(folder)
    older, latest, other = (
        claim(1, time=DAY), claim(3, time=HORIZON + DAY), claim(2, time=HORIZON + DAY),
    )  # fmt: skip
    store.add(Claims.of([(A, older), (B, other), (A, latest)]))
    assert store.reached == -1
    store.complete(3)
    store.close()
    store = opened(folder)
    assert store.reached == 3
    assert seen(store, [A, B], HORIZON + DAY) == [latest, other]
    store.close()


def test_blocks_counted_before_all_older_claims_are_in_do_not_hide_that_some_lack(
    folder: Path,
) -> None:
    """Whoever dies in the middle of reading claims back has to go on reading."""
    store = opened(folder)
    store.write(7, DAY, written((A, claim(7))))
    store.complete(3)
    store.write(8, DAY, written((B, claim(8))))
    assert store.reached == 3
    store.close()
    store = opened(folder)
    assert store.reached == 3
    assert seen(store, [A, B], DAY) == [claim(7), claim(8)]
    store.write(9, DAY, written())
    store.complete(8)
    assert store.reached == 9
    store.write(10, DAY, written())
    assert store.reached == 10
    store.close()
    store = opened(folder)
    assert store.reached == 10
    store.close()


def test_of_claims_read_back_and_written_the_later_position_stays(folder: Path) -> None:
    store = opened(folder)
    at = partial(claim, time=DAY)
    store.write(7, DAY, written((A, at(7)), (B, at(7, 1))))
    store.add(Claims.of([(A, at(3)), (B, at(8)), (C, at(4)), (C, at(2))]))
    store.add(Claims.of([(D, at(5, 1)), (D, at(5, 2))]))
    assert seen(store, KEYS, DAY) == [at(7), at(8), at(4), at(5, 2)]
    store.close()


def test_the_claims_of_another_store_are_of_no_use(folder: Path) -> None:
    store = opened(folder)
    store.write(7, DAY, written((A, claim(7))))
    store.close()
    store = opened(folder, "another/0")
    assert (store.reached, seen(store, [A], DAY)) == (-1, [None])
    store.close()
    store = opened(folder, "store/0")
    assert store.reached == -1
    store.close()


def test_thousands_of_claims_at_once(folder: Path) -> None:
    store = opened(folder)
    keys = [number.to_bytes(16, "big") for number in range(20_000)]
    store.write(1, DAY, written(*((key, claim(1, number)) for number, key in enumerate(keys))))
    assert seen(store, keys[::-1], DAY) == [claim(1, n) for n in range(20_000)][::-1]
    store.close()
