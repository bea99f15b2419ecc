"""Property values: from the text that a client sent to exact numbers and canonical texts.

Rules: "Values" in the semantics. A float never appears on the way.
"""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from typing import NamedTuple

import msgspec

from schemas.limits import EXPONENT_DIGITS_MAX, FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX
from schemas.verdict import Verdict, Warn

SCALE = 10**FRACTION_DIGITS_MAX
_QUANTUM = Decimal(1).scaleb(-FRACTION_DIGITS_MAX)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE]([+-]?[0-9]+))?")
_text = msgspec.json.Decoder(str)
_CANONICAL_LENGTH_MAX = 400
_CONTEXT = Context(prec=100, rounding=ROUND_HALF_EVEN)


class Number(NamedTuple):
    """A value read as a number: `scaled` is value * 10^18; the verdict says whether it counts."""

    verdict: Verdict
    warnings: tuple[Warn, ...]
    scaled: int


class Text(NamedTuple):
    """A value read as canonical text, for COUNT_UNIQUE, LATEST and groups."""

    verdict: Verdict
    text: str
    is_text: bool


_WRONG_TYPE = Number(Verdict.WRONG_TYPE, (), 0)
_OUT_OF_RANGE = Number(Verdict.OUT_OF_RANGE, (), 0)


def number(raw: bytes) -> Number:
    """Read the JSON text of one property as an exact number.

    More than 18 digits after the point are rounded half even (warning `rounded`), more than 20
    before it are out of range; a string with JSON's number grammar counts (`numeric_string`).
    """
    return _number_cached(raw) if len(raw) <= 32 else _number(raw)


def _number(raw: bytes) -> Number:
    quoted = raw[:1] == b'"'
    text = _text.decode(raw) if quoted else raw.decode()
    match = _NUMBER.fullmatch(text)
    if match is None:
        return _WRONG_TYPE
    value = _decimal(text, match.group(1))
    if value is None:
        return _OUT_OF_RANGE
    rounded = value.quantize(_QUANTUM, context=_CONTEXT) if value else Decimal(0)
    if rounded and rounded.adjusted() >= INTEGER_DIGITS_MAX:
        return _OUT_OF_RANGE
    warnings = ((Warn.NUMERIC_STRING,) if quoted else ()) + (
        (Warn.ROUNDED,) if rounded != value else ()
    )
    return Number(Verdict.COUNTED, warnings, int(rounded.scaleb(FRACTION_DIGITS_MAX, _CONTEXT)))


_number_cached = lru_cache(maxsize=1 << 16)(_number)


def _decimal(text: str, exponent: str | None) -> Decimal | None:
    """The number of a JSON number's text; None when it is beyond 20 digits before the point."""
    if exponent is not None and len(exponent.lstrip("+-").lstrip("0")) > EXPONENT_DIGITS_MAX:
        mantissa = text[: re.search("[eE]", text).start()]  # type: ignore[union-attr]
        if not mantissa.strip("-0."):
            return Decimal(0)
        if not exponent.startswith("-"):
            return None
        # As small as it gets; its digits no longer matter, only that it isn't zero.
        return Decimal("-1e-99" if text.startswith("-") else "1e-99")
    value = Decimal(text)
    if value and value.adjusted() >= INTEGER_DIGITS_MAX:
        return None
    return value


def canonical(raw: bytes) -> Text:
    """Read the JSON text of one property as canonical text.

    A number is plain decimal without exponent, trailing zeros or -0; a string is itself: so 1, 1.0
    and "1" are one value, "1.0" another. Booleans are `true` and `false` (filters only: their
    verdict is wrong_type). Objects, arrays and null have none.
    """
    head = raw[:1]
    if head == b'"':
        return Text(Verdict.COUNTED, _text.decode(raw), True)
    if raw in (b"true", b"false"):
        return Text(Verdict.WRONG_TYPE, raw.decode(), False)
    if head in (b"{", b"[", b"n"):
        return Text(Verdict.WRONG_TYPE, "", False)
    return _canonical_number(raw)


@lru_cache(maxsize=1 << 14)
def _canonical_number(raw: bytes) -> Text:
    text = raw.decode()
    match = _NUMBER.fullmatch(text)
    if match is None or len(text) > _CANONICAL_LENGTH_MAX:
        return Text(Verdict.OUT_OF_RANGE, "", False)
    exponent = match.group(1)
    if exponent is not None and len(exponent.lstrip("+-").lstrip("0")) > EXPONENT_DIGITS_MAX:
        mantissa = re.split("[eE]", text)[0]
        return Text(
            *((Verdict.OUT_OF_RANGE, "") if mantissa.strip("-0.") else (Verdict.COUNTED, "0")),
            False,
        )
    value = Decimal(text)
    if not value:
        return Text(Verdict.COUNTED, "0", False)
    if abs(value.adjusted()) > _CANONICAL_LENGTH_MAX:
        return Text(Verdict.OUT_OF_RANGE, "", False)
    with localcontext(prec=2 * _CANONICAL_LENGTH_MAX + len(text)):
        return Text(Verdict.COUNTED, f"{value.normalize():f}", False)


def to_decimal(scaled: int) -> Decimal:
    """A scaled number as Decimal with 18 places, exactly."""
    return Decimal(scaled).scaleb(-FRACTION_DIGITS_MAX, _CONTEXT)
