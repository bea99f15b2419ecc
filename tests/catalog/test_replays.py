"""Replays: what the first says of a dead letter holds, however many are asked for at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

from catalog import replays
from catalog.database import Catalog
from catalog.replays import Said


def test_the_first_replay_says_what_all_send(catalog: Catalog) -> None:
    with catalog.writing("ada") as writing:
        first = replays.settle(writing, "acme", {"a": Said(None, ("1",))})
    with catalog.writing("bob") as writing:
        wanted = {"a": Said("{}", ("2",)), "b": Said("{}", ())}
        both = replays.settle(writing, "acme", wanted)
    assert both == first | {"b": both["b"]}
    assert (both["a"].said, both["b"].said) == (Said(None, ("1",)), Said("{}", ()))
    with catalog.reading() as session:
        assert replays.find(session, "acme", ["a", "b", "c"]) == both
        assert replays.find(session, "other", ["a", "b"]) == {}


def test_of_replays_at_once_one_is_first(catalog: Catalog) -> None:
    together = threading.Barrier(4)

    def replay(number: int) -> Said:
        together.wait(20)
        with catalog.writing("ada") as writing:
            wanted = {"a": Said(str(number), (str(number),))}
            return replays.settle(writing, "acme", wanted)["a"].said

    with ThreadPoolExecutor(4) as pool:
        said = set(pool.map(replay, range(4)))
    assert len(said) == 1
    with catalog.reading() as session:
        assert {replays.find(session, "acme", ["a"])["a"].said} == said
