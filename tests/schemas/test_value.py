"""Values against Python's own json and Decimal."""

import json
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.value import canonical, number, to_decimal
from schemas.verdict import Verdict, Warn

WIDE = Context(prec=20_000, rounding=ROUND_HALF_EVEN)
NUMBERS = st.from_regex(
    re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII),
    fullmatch=True,
)


@given(NUMBERS, st.booleans())
def test_a_number_is_read_exactly_or_refused(text: str, quoted: bool) -> None:
    read = number((json.dumps(text) if quoted else text).encode())
    exact = Decimal(text)
    rounded = exact.quantize(Decimal("1e-18"), context=WIDE)
    if abs(rounded) >= 10**20:
        assert read == (Verdict.OUT_OF_RANGE, (), 0)
        return
    assert read.verdict is Verdict.COUNTED
    assert to_decimal(read.scaled) == rounded
    warnings = [Warn.NUMERIC_STRING] * quoted + [Warn.ROUNDED] * (rounded != exact)
    assert list(read.warnings) == warnings


@given(NUMBERS)
def test_a_number_has_one_canonical_text_however_it_is_written(text: str) -> None:
    read = canonical(text.encode())
    exact = Decimal(text)
    if read.verdict is Verdict.OUT_OF_RANGE:
        assert abs(exact.adjusted()) > 400
        return
    assert Decimal(read.text) == exact
    assert re.fullmatch(r"0|-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", read.text)
    assert read.text != "-0"
    assert canonical(read.text.encode()) == read


@given(st.text())
def test_a_string_is_itself(text: str) -> None:
    assert canonical(json.dumps(text).encode()) == (Verdict.COUNTED, text, True)


@given(st.text(max_size=12))
def test_a_string_is_a_number_when_json_says_so(text: str) -> None:
    read = number(json.dumps(text).encode())
    try:
        is_number = isinstance(json.loads(text, parse_constant=str), int | float)
    except ValueError:
        is_number = False
    is_number = is_number and text == text.strip() and not text.startswith(("t", "f"))
    assert (read.verdict is not Verdict.WRONG_TYPE) == is_number


@pytest.mark.parametrize(
    "raw", ["true", "false", "null", "[]", "{}", '""', '"abc"', '"NaN"', '"Infinity"', '"1_0"',
            '"٣"', '" 1"', '"1 "', '"0x10"', '"1."', '".5"', '"+1"', '"01"']
)  # fmt: skip
def test_what_is_no_number_is_never_zero(raw: str) -> None:
    assert number(raw.encode()) == (Verdict.WRONG_TYPE, (), 0)


@pytest.mark.parametrize(
    "raw", ["1e99999999999", "-1e99999", "1e10000", "9" * 21, "1" + "0" * 5000]
)
def test_a_number_beyond_20_digits_is_out_of_range_at_once(raw: str) -> None:
    assert number(raw.encode()).verdict is Verdict.OUT_OF_RANGE


@pytest.mark.parametrize("raw", ["0e99999999999", "-0.0e-99999999", "0", "-0", "0.000", "-0.0E5"])
def test_zero_is_zero_however_it_is_written(raw: str) -> None:
    assert number(raw.encode()) == (Verdict.COUNTED, (), 0)
    assert canonical(raw.encode()) == (Verdict.COUNTED, "0", False)


@pytest.mark.parametrize("raw", ["1e-99999999999", "-1e-20000", "0." + "0" * 5000 + "1", "1e-401"])
def test_a_number_too_small_is_rounded_to_zero_and_says_so(raw: str) -> None:
    assert number(raw.encode()) == (Verdict.COUNTED, (Warn.ROUNDED,), 0)
    assert canonical(raw.encode()).verdict is Verdict.OUT_OF_RANGE


def test_halves_go_to_the_even_neighbour() -> None:
    halves = ["0.0000000000000000005", "0.0000000000000000015", "-0.0000000000000000025"]
    assert [number(half.encode()).scaled for half in halves] == [0, 2, -2]
    assert number(b"99999999999999999999.9999999999999999995").verdict is Verdict.OUT_OF_RANGE


def test_one_is_one_value_in_three_spellings_and_another_in_a_fourth() -> None:
    texts = [canonical(raw).text for raw in (b"1", b"1.0", b'"1"', b"10e-1", b'"1.0"')]
    assert texts == ["1", "1", "1", "1", "1.0"]


def test_booleans_have_a_text_for_filters_only() -> None:
    assert canonical(b"true") == (Verdict.WRONG_TYPE, "true", False)
    assert [canonical(raw).text for raw in (b"null", b"[1]", b"{}")] == ["", "", ""]
