"""Usage by brute force, and the answers to measures that it gives: every event is looked at."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from zoneinfo import ZoneInfo

from billing.aggregation import Quantity
from billing.measures import Measure, Measured
from schemas.catalog import Feature
from tests.billing.sold import at


@dataclass(frozen=True)
class Event:
    """A counted event; `position` is its offset in the only block partition, one a block."""

    feature: str
    time: datetime
    value: Decimal | str = Decimal(1)
    group: str = ""
    position: int = 0

    @property
    def ms(self) -> int:
        """Its time in milliseconds since 1970."""
        return round(self.time.timestamp() * 1000)


def event(time: str, value: str | int = 1, group: str = "", feature: str = "feat_1") -> Event:
    """An event from texts; a value that is no number stays a text."""
    text = str(value)
    is_number = text.replace("-", "").replace(".", "").isdigit()
    return Event(feature, at(time), Decimal(text) if is_number else text, group)


def those_of(
    events: Iterable[Event], feature: Feature, start: int, end: int, upto: int | None = None
) -> list[Event]:
    """The events that make up a quantity over `[start, end)` in ms, by time and position."""
    since = 0 if feature.reset_usage.value == "NEVER" else start
    found = [
        one
        for one in events
        if one.feature == feature.id
        and since <= one.ms < end
        and (upto is None or one.position <= upto)
    ]
    return sorted(found, key=lambda one: (one.ms, one.position))


def parts_of(
    feature: Feature, events: Iterable[Event], zone: str
) -> list[tuple[str, str, Decimal]]:
    """Bucket, group and greatest value of each, in order; buckets are local days, or UTC hours."""
    greatest: dict[tuple[str, str], Decimal] = {}
    for one in events:
        assert isinstance(one.value, Decimal)
        local = one.time.astimezone(ZoneInfo(zone))
        by_day = feature.bucket_size is not None and feature.bucket_size.value == "DAY"
        bucket = f"{local:%Y%m%d}" if by_day else str(one.ms // 3_600_000).zfill(12)
        place = (bucket, one.group)
        greatest[place] = max(greatest.get(place, one.value), one.value)
    return [(*place, value) for place, value in sorted(greatest.items())]


def used(
    feature: Feature, events: list[Event], start: int, end: int, length: int, zone: str
) -> tuple[Fraction | None, int]:
    """The quantity of these events as numerator and denominator; None of nothing, or of a text."""
    values = [one.value for one in events]
    numbers = [Fraction(value) for value in values if isinstance(value, Decimal)]
    match feature.aggregation.value:
        case "COUNT":
            return Fraction(len(values)), 1
        case "COUNT_UNIQUE":
            return Fraction(len(set(map(str, values)))), 1
        case "LATEST":
            is_number = bool(values) and isinstance(values[-1], Decimal)
            return (numbers[-1] if is_number else None), 1
        case "AVG":
            return (sum(numbers, Fraction(0)), len(numbers)) if numbers else (None, 1)
        case "MAX" if feature.bucket_size is not None:
            return sum(
                (Fraction(part[2]) for part in parts_of(feature, events, zone)), Fraction(0)
            ), 1
        case "MAX":
            return max(numbers, default=None), 1
        case "WEIGHTED_SUM":
            lasted = [end - max(one.ms, start) for one in events]
            products = (v * t for v, t in zip(numbers, lasted, strict=True))
            return sum(products, Fraction(0)), length
        case _:
            return sum(numbers, Fraction(0)) * Fraction(feature.multiplier or 1), 1


def measure(
    measures: Iterable[Measure], events: Iterable[Event], upto: int | None = None
) -> Measured:
    """The answers to some measures, with the events up to a position."""
    known = list(events)
    last = max((one.position for one in known), default=0) if upto is None else upto
    quantities = {}
    parts = {}
    for one in measures:
        feature = one.feature
        among = those_of(known, feature, one.start, one.end, upto)
        length = one.length or one.end - one.start
        numerator, denominator = used(feature, among, one.start, one.end, length, one.zone)
        last_value = among[-1].value if among else None
        text = last_value if isinstance(last_value, str) else None
        exact = None if numerator is None else decimal(numerator)
        quantities[one] = Quantity(exact, denominator, text if numerator is None else None)
        if feature.bucket_size is not None:
            parts[one] = tuple(value for *_, value in parts_of(feature, among, one.zone))
    return Measured(quantities, parts, {(0, 0): last})


def decimal(value: Fraction) -> Decimal:
    """A fraction that ends after some digits, with all of them."""
    return Context(prec=300, traps=[Inexact]).divide(
        Decimal(value.numerator), Decimal(value.denominator)
    )
