"""Replays of dead letters: what each one says, fixed by the first.

A replay is an entity of `changes` alone: who replayed what, when, and with which content. All
writers of the catalog come one after the other, so of two replays of one dead letter one is first,
and the other sends what the first has fixed. That, and the ids it fixes, is why a dead letter
counts once whatever is repeated.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.database import Writing
from catalog.tables import Change

CHUNK = 500


class Said(NamedTuple):
    """What a replay sends: a text in the dead letter's place, or None for its own bytes."""

    content: str | None
    event_ids: tuple[str, ...]


@dataclass
class Replay:
    """The replay of one dead letter, named by its position."""

    kind: ClassVar[str] = "replay"

    dead_letter: str
    said: Said
    version: int = 0

    @property
    def id(self) -> str:
        """Short enough for every database, whatever the topic is called."""
        return _entity_id(self.dead_letter)

    def document(self) -> dict[str, Any]:
        """The replay as `changes` keeps it."""
        return {"dead_letter": self.dead_letter, **self.said._asdict()}


class Replayed(NamedTuple):
    """A replay that was asked for: when, by which key, and what it sends."""

    at: datetime
    actor: str
    said: Said


def find(session: Session, account: str, dead_letters: Iterable[str]) -> dict[str, Replayed]:
    """The replays of those of these dead letters that were replayed, by their positions."""
    wanted = list(dead_letters)
    found: dict[str, Replayed] = {}
    for at in range(0, len(wanted), CHUNK):
        rows = session.execute(
            select(Change.at, Change.actor, Change.after).where(
                Change.account == account,
                Change.kind == Replay.kind,
                Change.entity_id.in_(map(_entity_id, wanted[at : at + CHUNK])),
            )
        )
        for moment, actor, after in rows:
            document = _decoder.decode(after)
            said = Said(document.content, document.event_ids)
            found[document.dead_letter] = Replayed(moment, actor, said)
    return found


def settle(writing: Writing, account: str, wanted: Mapping[str, Said]) -> dict[str, Replayed]:
    """What the replay of each dead letter says from now on: the first that was ever asked for."""
    known = find(writing.session, account, wanted)
    for dead_letter, said in wanted.items():
        if dead_letter not in known:
            writing.record(account, Replay(dead_letter, said), before=None)
            known[dead_letter] = Replayed(writing.at, writing.actor, said)
    return known


class _Document(msgspec.Struct):
    dead_letter: str
    content: str | None
    event_ids: tuple[str, ...]


_decoder = msgspec.json.Decoder(_Document)


def _entity_id(dead_letter: str) -> str:
    return hashlib.sha256(dead_letter.encode()).hexdigest()[:32]
