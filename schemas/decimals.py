"""Exact numbers as people write them: read from JSON numbers or texts, written plainly."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from schemas.limits import FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX

_NUMBER = re.compile(r"-?[0-9]{1,64}(?:\.[0-9]{1,64})?(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)


def read_decimal(value: object) -> Decimal:
    """An exact number from a JSON number or its text; up to 20 digits, and 18 after the point.

    Raises PydanticCustomError for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise _no_number()
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise _no_number()
    number = Decimal(value)
    if not number.is_finite():
        raise _no_number()
    if number.adjusted() >= INTEGER_DIGITS_MAX or _fraction_digits(number) > FRACTION_DIGITS_MAX:
        raise PydanticCustomError(
            "out_of_range",
            "has too many digits: at most {integer} before the point and {fraction} after it",
            {"integer": INTEGER_DIGITS_MAX, "fraction": FRACTION_DIGITS_MAX},
        )
    return number


def plain(number: Decimal) -> str:
    """The shortest plain text of a number: no exponent, no trailing zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _above_zero(value: object) -> Decimal:
    number = read_decimal(value)
    if number <= 0:
        raise PydanticCustomError("out_of_range", "has to be above zero")
    return number


def _not_negative(value: object) -> Decimal:
    number = read_decimal(value)
    if number < 0:
        raise PydanticCustomError("out_of_range", "can't be negative")
    return number.copy_abs()


def _no_number() -> PydanticCustomError:
    return PydanticCustomError("wrong_type", 'is not a number: write it as a text, like "0.001"')


def _fraction_digits(number: Decimal) -> int:
    """How many digits after the point say something; without arithmetic, which would round."""
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return -exponent - zeros


Multiplier = Annotated[Decimal, BeforeValidator(_above_zero)]
Amount = Annotated[Decimal, BeforeValidator(_not_negative)]
"""Money, or money per unit: exact, without a currency's precision."""
