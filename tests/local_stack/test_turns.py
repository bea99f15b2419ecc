"""Turns by account."""

import asyncio

import pytest

from local_stack.turns import NoPlace, Turns


class Line:
    """Everybody who asked, by name: account and number."""

    def __init__(self, places: int = 1, waiting_max: int = 16, of_one_max: int = 4) -> None:
        self.turns = Turns(places, waiting_max, of_one_max)
        self.asked: dict[str, asyncio.Future[None]] = {}

    def ask(self, *names: str) -> None:
        for name in names:
            self.asked[name] = self.turns.ask(name[0])

    def end(self, *names: str) -> None:
        for name in names:
            self.turns.end(name[0], self.asked.pop(name))

    def has(self) -> list[str]:
        """Who holds a place."""
        return [
            name
            for name, turn in self.asked.items()
            if turn.done() and not turn.cancelled() and turn.exception() is None
        ]

    def served(self) -> list[str]:
        """Everybody from here on, in the order of their turns; each ends at once."""
        order = []
        while holds := self.has():
            order += holds
            self.end(*holds)
        return order


async def test_accounts_take_turns_whoever_asked_first() -> None:
    line = Line()
    line.ask("a1", "a2", "a3", "b1", "b2", "c1")
    assert line.has() == ["a1"]
    assert line.served() == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_who_has_just_had_a_place_comes_after_who_comes_later() -> None:
    line = Line()
    line.ask("a1", "a2")
    line.ask("b1")
    line.end("a1")
    assert line.has() == ["b1"]
    line.ask("c1")
    assert line.served() == ["b1", "a2", "c1"]
    line.ask("b1")
    assert line.has() == ["b1"]  # nothing of before is remembered


async def test_nobody_waits_for_ever_for_those_who_come_again_and_again() -> None:
    line = Line()
    line.ask("b1", "a1", "a2", "a3")
    order = []
    for number in range(2, 10):
        line.ask(f"c{number}" if number % 2 else f"b{number}")
        [holder] = line.has()
        order.append(holder)
        line.end(holder)
    assert [name for name in order if name[0] == "a"] == ["a1", "a2", "a3"], order


async def test_places_are_taken_together() -> None:
    line = Line(places=2)
    line.ask("a1", "a2", "a3", "b1")
    assert line.has() == ["a1", "a2"]
    line.end("a1")
    assert line.has() == ["a2", "b1"]


async def test_who_goes_away_waits_no_more() -> None:
    line = Line()
    line.ask("a1", "b1", "c1")
    line.end("b1")
    line.end("a1")
    assert line.has() == ["c1"]
    line.ask("c2", "c3", "c4")
    with pytest.raises(NoPlace):
        line.ask("c5")
    line.end("c4")
    line.ask("c5")


async def test_one_account_has_four() -> None:
    line = Line()
    line.ask("a1", "a2", "a3", "a4")
    with pytest.raises(NoPlace):
        line.ask("a5")
    line.end("a1")
    line.ask("a5")


async def test_when_all_wait_the_longest_queue_gives_way_to_a_shorter_one() -> None:
    line = Line(waiting_max=6)
    line.ask("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    line.ask("d1")
    assert isinstance(line.asked["a4"].exception(), NoPlace)
    line.end("a4")
    line.ask("e1")
    assert isinstance(line.asked["a3"].exception(), NoPlace)
    line.end("a3")
    with pytest.raises(NoPlace):  # it would have as many waiting as the longest queue
        line.ask("d2")
    assert line.served() == ["a1", "b1", "c1", "d1", "e1", "a2", "b2"]
