"""Matching: what an accepted event counts for, by the catalog at the block's version. Pure."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import UNSET, Raw, UnsetType

from schemas.catalog import Aggregation, Feature, Window
from schemas.limits import FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX
from schemas.value import canonical, number
from schemas.verdict import Verdict, Warn

NUMERIC = frozenset(
    {
        Aggregation.SUM,
        Aggregation.AVG,
        Aggregation.SUM_WITH_MULTIPLIER,
        Aggregation.MAX,
        Aggregation.WEIGHTED_SUM,
    }
)
HOUR = 3600
GRAINS = {Window.MINUTE: 60, Window.MIN_15: 900, Window.MIN_30: 900}
"""Seconds of a state's span for small buckets: 15 minutes fit zones with :30 and :45 as well."""
ZERO = bytes(16)
_ESCAPED = re.compile(r'[\\"\x00-\x1f]')
"""What a key in JSON needs a backslash for: msgspec's structs take no such names."""


class Match(NamedTuple):
    """What became of one event.

    value    value * 10^18 as 16 bytes, little-endian, two's complement.
    text     Canonical text for COUNT_UNIQUE, and for LATEST when the value is a text.
    group    "=" and the canonical text of the group of a bucketed MAX; empty without one.
    special  Whether there is more to it than being counted with a value.
    """

    verdict: Verdict
    detail: str = ""
    warnings: tuple[Warn, ...] = ()
    value: bytes = ZERO
    text: str = ""
    is_text: bool = False
    group: str = ""
    special: bool = True


COUNTED = Match(Verdict.COUNTED, special=False)


@lru_cache(maxsize=1 << 17)
def _numeric(raw: bytes) -> Match:
    """The match of a numeric property by its JSON text; `_named` adds which property it was."""
    read = number(raw)
    if read.verdict is not Verdict.COUNTED:
        return Match(read.verdict, f"is {_shown(raw)}")
    value = read.scaled.to_bytes(16, "little", signed=True)
    return Match(Verdict.COUNTED, warnings=read.warnings, value=value, special=bool(read.warnings))


def _named(match: Match, field: str) -> Match:
    return match._replace(detail=f"{field} {match.detail}") if match.detail else match


def _shown(raw: bytes) -> str:
    text = raw[:80].decode("utf-8", "replace")
    return text if len(raw) <= 80 else f"{text}…"


Values = npt.NDArray[np.int64]
"""value * 10^18 of each event: two little-endian words, in two's complement."""

_PLAIN = b"0123456789.-,"


def _plain_values(raws: list[Raw | UnsetType]) -> Values | None:
    """The values of JSON texts when each is a number without exponent that needs no rounding."""
    try:
        text = b",".join(raws)  # type: ignore[arg-type]  # a missing one is the TypeError
        if text.translate(None, _PLAIN):
            return None
        column = pa.array(text.decode().split(","), pa.utf8()).cast(_EXACT)
    except (TypeError, pa.ArrowInvalid):
        return None
    return np.frombuffer(column.buffers()[1], dtype="<i8", count=2 * len(column)).reshape(-1, 2)


_EXACT = pa.decimal128(INTEGER_DIGITS_MAX + FRACTION_DIGITS_MAX, FRACTION_DIGITS_MAX)


class Matcher:
    """Matches the events of one feature: made once a feature, used for whole groups of events."""

    def __init__(self, feature: Feature) -> None:
        self.feature = feature
        self.grain = GRAINS.get(feature.bucket_size, HOUR) if feature.bucket_size else HOUR
        names = dict.fromkeys(key for key, _ in feature.filters)
        for name in (feature.field, feature.group_by):
            if name is not None:
                names[name] = None
        self._names = list(names)
        self._plain = not any(_ESCAPED.search(name) for name in self._names)
        self._only_number = (
            feature.aggregation in NUMERIC and not feature.filters and feature.group_by is None
        )
        self._needed: Any = msgspec.defstruct(
            "Needed",
            [(f"p{i}", Raw | UnsetType, UNSET) for i in range(len(self._names))],
            rename={f"p{i}": name for i, name in enumerate(self._names)} if self._plain else None,
            gc=False,
        )
        row = self._needed if self._plain else dict[str, Raw]
        self._decoder: Any = msgspec.json.Decoder(list[row])  # type: ignore[valid-type]

    def match(self, properties: Sequence[bytes]) -> list[Match] | Match:
        """The match of each event by its properties' JSON text (empty: none); one for all alike."""
        if not self._names:
            return COUNTED
        return self._match_each(self._rows(properties))

    def columns(self, properties: Sequence[bytes]) -> Values | list[Match] | Match:
        """As `match`, but the values alone where all are counted for a plain number each."""
        if not self._only_number:
            return self.match(properties)
        rows = self._rows(properties)
        values = _plain_values([row.p0 for row in rows])
        return self._match_each(rows) if values is None else values

    def _rows(self, properties: Sequence[bytes]) -> list[Any]:
        """The texts of the properties that matter, one struct an event."""
        rows: list[Any] = self._decoder.decode(
            b"[" + b",".join([p or b"{}" for p in properties]) + b"]"
        )
        if self._plain:
            return rows
        return [self._needed(*(row.get(n, UNSET) for n in self._names)) for row in rows]

    def _match_each(self, rows: list[Any]) -> list[Match]:
        if self._only_number:
            field = self.feature.field or ""
            missing = Match(Verdict.MISSING_PROPERTY, "is missing")
            found = [missing if row.p0 is UNSET else _numeric(bytes(row.p0)) for row in rows]
            return [_named(match, field) if match.special else match for match in found]
        slots = {name: f"p{i}" for i, name in enumerate(self._names)}
        return [self._match_one(row, slots) for row in rows]

    def _missing(self, field: str) -> Match:
        return Match(Verdict.MISSING_PROPERTY, f"{field} is missing")

    def _match_one(self, row: Any, slots: dict[str, str]) -> Match:
        feature = self.feature
        for key, values in feature.filters:
            raw = getattr(row, slots[key])
            if raw is UNSET:
                return Match(Verdict.FILTERED, f"{key} is missing")
            text = canonical(bytes(raw))
            no_text = text.verdict is Verdict.WRONG_TYPE and not text.text
            if no_text or text.text not in values:
                return Match(Verdict.FILTERED, f"{key} is {_shown(bytes(raw))}")
        if feature.field is None:
            return COUNTED
        raw = getattr(row, slots[feature.field])
        if raw is UNSET:
            return self._missing(feature.field)
        match = self._value(bytes(raw))
        if feature.group_by is None or match.verdict is not Verdict.COUNTED:
            return match
        group = getattr(row, slots[feature.group_by])
        if group is UNSET:
            return match
        text = canonical(bytes(group))
        group_key = "=" + (text.text or _group_text(text, bytes(group)))
        return match._replace(group=group_key, special=True)

    def _value(self, raw: bytes) -> Match:
        field = self.feature.field or ""
        if self.feature.aggregation in NUMERIC:
            return _named(_numeric(raw), field)
        text = canonical(raw)
        if self.feature.aggregation is Aggregation.LATEST and not text.is_text:
            return _named(_numeric(raw), field)
        if text.verdict is not Verdict.COUNTED:
            return Match(text.verdict, f"{field} is {_shown(raw)}")
        return Match(Verdict.COUNTED, text=text.text, is_text=text.is_text)


def _group_text(text: Any, raw: bytes) -> str:
    """The group of a value without canonical text (an object, null): its JSON text."""
    return "" if text.is_text else raw.decode()


@lru_cache(maxsize=4096)
def matcher(feature: Feature) -> Matcher:
    """The matcher of a feature, made once."""
    return Matcher(feature)
