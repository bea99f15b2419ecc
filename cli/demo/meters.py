"""What the demo meters, and how much that is.

`usage` computes it from what was sent, plainly, and shares no code with what it checks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

HOUR_MS = 3_600_000
ZERO = Decimal(0)
PLACES = Decimal(1).scaleb(-18)
Value = Decimal | str | None


@dataclass(frozen=True, slots=True)
class Metered:
    """A feature of the demo.

    late     Created after its first events were stored.
    retired  Archived before its events arrive.
    """

    name: str
    event_name: str
    aggregation: str
    field: str | None = None
    multiplier: str | None = None
    bucket_size: str | None = None
    group_by: str | None = None
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    reset_usage: str = "BILLING_PERIOD"
    unit: tuple[str, str] = ("", "")
    late: bool = False
    retired: bool = False

    def request(self) -> dict[str, Any]:
        """The body of POST /v1/features."""
        wanted = ("field", "multiplier", "bucket_size", "group_by")
        aggregation = {"type": self.aggregation} | {
            name: getattr(self, name) for name in wanted if getattr(self, name) is not None
        }
        return {
            "name": self.name,
            "type": "metered",
            "unit_singular": self.unit[0],
            "unit_plural": self.unit[1],
            "meter": {
                "event_name": self.event_name,
                "aggregation": aggregation,
                "filters": [{"key": key, "values": list(values)} for key, values in self.filters],
                "reset_usage": self.reset_usage,
            },
        }

    @property
    def lines(self) -> list[str]:
        """What it is, in a few short lines: name and unit, aggregation, and the rest."""
        lines = [f"{self.name}, {self.unit[1]}" if self.unit[1] == "GB" else self.name]
        if self.multiplier is not None:
            lines += [self.aggregation, f"{self.field} × {self.multiplier}"]
        elif self.field is not None:
            lines.append(f"{self.aggregation} {self.field}")
        else:
            lines.append(self.aggregation)
        if self.bucket_size is not None:
            lines.append(f"per {self.bucket_size} and {self.group_by}")
        lines += [f"{key} is {' or '.join(values)}" for key, values in self.filters]
        if self.reset_usage == "NEVER":
            lines.append("cumulative")
        if self.late:
            lines.append("created after them")
        return lines


@dataclass(frozen=True, slots=True)
class Use:
    """What one counted event says: v at time t (ms), for a group of a bucketed MAX."""

    time_ms: int
    value: Value = None
    group: str | None = None


def usage(feature: Metered, uses: Sequence[Use], start: int, end: int) -> Decimal | None:
    """The quantity of a feature over `[start, end)`, in ms, from everything used."""
    cumulative = feature.reset_usage == "NEVER"
    inside = [use for use in uses if (cumulative or use.time_ms >= start) and use.time_ms < end]
    values = [use.value for use in inside if isinstance(use.value, Decimal)]
    with localcontext(prec=100):
        match feature.aggregation:
            case "COUNT":
                return Decimal(len(inside))
            case "SUM":
                return sum(values, ZERO)
            case "AVG":
                return _shown(sum(values, ZERO) / len(values)) if values else None
            case "COUNT_UNIQUE":
                return Decimal(len({use.value for use in inside}))
            case "LATEST":
                last = max(inside, key=lambda use: use.time_ms, default=None)
                return last.value if last and isinstance(last.value, Decimal) else None
            case "SUM_WITH_MULTIPLIER":
                return Decimal(feature.multiplier or 1) * sum(values, ZERO)
            case "MAX" if feature.bucket_size is None:
                return max(values, default=None)
            case "MAX":
                greatest: dict[tuple[int, str | None], Decimal] = {}
                for use, value in zip(inside, values, strict=True):
                    bucket = (use.time_ms // HOUR_MS, use.group)
                    greatest[bucket] = max(value, greatest.get(bucket, value))
                return sum(greatest.values(), ZERO)
            case "WEIGHTED_SUM":
                weighted = sum(
                    value * (end - max(use.time_ms, start))
                    for use, value in zip(inside, values, strict=True)
                )
                return _shown(Decimal(weighted) / (end - start))
            case other:
                raise ValueError(f"unknown aggregation {other}")


def _shown(quotient: Decimal) -> Decimal:
    """A quotient as the API shows it: 18 places, half up."""
    return quotient.quantize(PLACES, rounding=ROUND_HALF_UP)


def features(run: str) -> list[Metered]:
    """All eight aggregations. Only what a run creates for itself carries the run in its name."""
    return [
        Metered("API calls", "demo.api.calls", "COUNT", unit=("call", "calls")),
        Metered("Credits", "demo.model.usage", "SUM", "credits", unit=("credit", "credits")),
        Metered("Response time", "demo.responses", "AVG", "ms", unit=("ms", "ms")),
        Metered(
            "Active users", "demo.user.login", "COUNT_UNIQUE", "user_id", unit=("user", "users")
        ),
        Metered("Seats", "demo.seats", "LATEST", "seats", unit=("seat", "seats")),
        Metered(
            "Traffic", "demo.traffic", "SUM_WITH_MULTIPLIER", "bytes",
            multiplier="0.000000001", unit=("GB", "GB"),
        ),
        Metered("Peak users", "demo.concurrent.users", "MAX", "count", unit=("user", "users")),
        Metered(
            "GPU hours", "demo.gpus", "MAX", "gpus",
            bucket_size="HOUR", group_by="region", unit=("GPU hour", "GPU hours"),
        ),
        Metered("Provisioned disk", "demo.disk", "WEIGHTED_SUM", "gb", unit=("GB", "GB")),
        Metered(
            "Storage", "demo.storage", "SUM", "gb", reset_usage="NEVER", unit=("GB", "GB")
        ),
        Metered(
            "Tokens in Europe", "demo.completions", "SUM", "tokens",
            filters=(("region", ("eu", "uk")),), unit=("token", "tokens"),
        ),
        Metered(
            "Build minutes", f"demo.build.minutes.{run}", "SUM", "minutes",
            unit=("minute", "minutes"), late=True,
        ),
        Metered("Faxes", "demo.faxes", "COUNT", unit=("fax", "faxes"), retired=True),
    ]  # fmt: skip
