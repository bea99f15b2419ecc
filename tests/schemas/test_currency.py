"""Currencies and exact numbers as people write them."""

from decimal import Decimal

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.currency import MINOR_DIGITS, Currency
from schemas.decimals import Amount, plain, read_decimal
from schemas.plans import BillingPeriod, LimitReset, is_longer

_currency: TypeAdapter[str] = TypeAdapter(Currency)
_amount: TypeAdapter[Decimal] = TypeAdapter(Amount)


def test_a_currency_is_lower_case_however_it_was_written() -> None:
    assert {_currency.validate_python(code) for code in ("USD", "usd", "Usd")} == {"usd"}
    for wrong in ("", "us", "usdx", "xau", "xxx", "ﬁd", None, 840, ["usd"]):
        with pytest.raises(ValidationError, match="ISO 4217"):
            _currency.validate_python(wrong)


def test_currencies_have_the_minor_digits_of_iso_4217() -> None:
    digits = {"usd": 2, "eur": 2, "jpy": 0, "krw": 0, "isk": 0, "bhd": 3, "tnd": 3, "clf": 4}
    assert {code: MINOR_DIGITS[code] for code in digits} == digits
    assert len(MINOR_DIGITS) == 164
    assert all(len(code) == 3 and code.islower() for code in MINOR_DIGITS)


@pytest.mark.parametrize("text", ["0", "0.05", "1e-18", "12345678901234567890.000000000000000001"])
def test_an_amount_is_kept_to_its_last_digit(text: str) -> None:
    assert _amount.validate_python(text) == Decimal(text)
    assert Decimal(plain(_amount.validate_python(text))) == Decimal(text)
    assert "e" not in plain(Decimal(text)).lower()


@pytest.mark.parametrize(
    "value",
    ["", " 1", "1 ", "+1", "1_000", "１", "0x10", "NaN", "Infinity", "1e", ".5", "5.", None, True,
     0.1, "1e99", "1e-19", "123456789012345678901", "1e99999", [], {}],
)  # fmt: skip
def test_what_is_no_exact_number_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        _amount.validate_python(value)


def test_zero_has_no_sign() -> None:
    assert str(_amount.validate_python("-0.0")) == "0.0"
    assert read_decimal(7) == Decimal(7)


def test_a_limit_is_longer_than_a_period_by_their_mean_lengths() -> None:
    month = BillingPeriod.MONTHLY
    assert is_longer(LimitReset.NEVER, BillingPeriod.ANNUAL, 100)
    assert is_longer(LimitReset.QUARTERLY, month, 2)
    assert not is_longer(LimitReset.QUARTERLY, month, 3)
    assert is_longer(LimitReset.MONTHLY, BillingPeriod.DAILY, 30)
    assert not is_longer(LimitReset.MONTHLY, BillingPeriod.DAILY, 31)
    assert is_longer(LimitReset.MONTHLY, BillingPeriod.WEEKLY, 4)
    assert not is_longer(LimitReset.WEEKLY, BillingPeriod.DAILY, 7)
    assert not is_longer(LimitReset.ANNUAL, BillingPeriod.HALF_YEARLY, 2)
