"""What the demo sends: events of all kinds by all routes, and what has to become of each. Pure."""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from cli.demo.meters import Metered, Use, Value
from schemas.verdict import Verdict, Warn

KNOWN = ("acme", "globex", "hooli")
UNKNOWN = "stark"
ARCHIVED = "initech"
REGIONS = ("eu", "us", "uk", "ap")
USES_EACH = 95
SINGLES = 320
BULK_EVENTS = 1800
DUPLICATE_SHARE = 0.04
DAYS = 3
FUTURE = "a clock that is ahead"
"""The source of events that HTTP refuses and only Kafka lets in."""

_json = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Report:
    """One event of the demo, and what has to become of it.

    use  What it adds to its feature's usage, when it is counted.
    """

    event: Mapping[str, Any]
    verdict: Verdict
    feature: Metered | None = None
    customer: str = ""
    use: Use | None = None
    warnings: tuple[Warn, ...] = ()

    @property
    def text(self) -> bytes:
        """Its JSON, as it is sent."""
        return _json.encode(self.event)


@dataclass(frozen=True, slots=True)
class Native:
    """A record written straight into Kafka.

    dead  What becomes a dead letter: its index in the record, and the reason.
    """

    value: bytes | None
    reports: Sequence[Report] = ()
    key: bytes | None = None
    dead: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the gateway has to refuse with 400."""

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that is sent, by route; `late` and `changed` go out when the others are stored."""

    singles: Sequence[Report]
    bulks: Sequence[list[Report]]
    natives: Sequence[Native]
    refused: Sequence[Refused]
    changed: Sequence[Report]
    start: datetime
    end: datetime

    @property
    def reports(self) -> Iterator[Report]:
        """Every event that is accepted."""
        yield from self.singles
        yield from itertools.chain.from_iterable(self.bulks)
        yield from itertools.chain.from_iterable(native.reports for native in self.natives)
        yield from self.changed

    def uses(self) -> dict[tuple[str, str], list[Use]]:
        """What was used, by (event name, customer)."""
        found: dict[tuple[str, str], list[Use]] = defaultdict(list)
        for report in self.reports:
            if report.verdict is Verdict.COUNTED and report.feature and report.use:
                found[report.feature.event_name, report.customer].append(report.use)
        return found

    def verdicts(self) -> Counter[tuple[str, str]]:
        """How many events end with which (verdict, warnings)."""
        return Counter((report.verdict, ",".join(report.warnings)) for report in self.reports)

    @property
    def dead_letters(self) -> Counter[str]:
        """How many dead letters, by reason."""
        return Counter(reason for native in self.natives for reason in native.dead.values())


def compose(
    run: str, now: datetime, features: Sequence[Metered], ids: Mapping[str, str]
) -> Scenario:
    """Compose a run; `ids` are our ids of the customers that exist, by external id."""
    return _Composer(run, now, features, ids).scenario()


class _Composer:
    """Draws events from a generator seeded by the run."""

    def __init__(
        self, run: str, now: datetime, features: Sequence[Metered], ids: Mapping[str, str]
    ) -> None:
        self.run, self.now, self.ids = run, now, ids
        self.random = random.Random(run)
        self.features = {feature.event_name: feature for feature in features}
        self.start = now - timedelta(days=DAYS, minutes=17, milliseconds=655)
        self.end = now + timedelta(minutes=10)
        self.numbers = itertools.count(1)
        span_ms = DAYS * 24 * 3_600_000
        self.times = iter(self.random.sample(range(span_ms), 20_000))

    def scenario(self) -> Scenario:
        """Every event gets a route by lot: order of arrival is not order of time."""
        reports = [*self._ordinary(), *self._mistakes()]
        draw = self.random
        draw.shuffle(reports)
        again = [
            replace(report, verdict=Verdict.DUPLICATE, use=None, warnings=())
            for report in reports
            if report.verdict is Verdict.COUNTED
            and "event_id" in report.event
            and draw.random() < DUPLICATE_SHARE
        ]
        # Whichever of two equal events is first in the log counts: both say the same.
        reports += again
        draw.shuffle(reports)
        native_only = [each for each in reports if each.event.get("source") == FUTURE]
        reports = [each for each in reports if each.event.get("source") != FUTURE]
        singles, rest = reports[:SINGLES], reports[SINGLES:]
        bulk, native = rest[:BULK_EVENTS], rest[BULK_EVENTS:] + native_only
        return Scenario(
            singles=singles,
            bulks=list(self._pieces(bulk, 20, 250)),
            natives=[*self._natives(native), *self._broken(native[:12])],
            refused=list(self._refused()),
            changed=list(self._changed(reports)),
            start=self.start,
            end=self.end,
        )

    def _ordinary(self) -> Iterator[Report]:
        for feature in self.features.values():
            for customer in (*KNOWN, UNKNOWN):
                for _ in range(USES_EACH):
                    yield self._report(feature, f"{customer}-{self.run}")
        calls = self.features["demo.api.calls"]
        for _ in range(9):
            yield self._report(calls, f"{ARCHIVED}-{self.run}", Warn.CUSTOMER_ARCHIVED)

    def _report(self, feature: Metered, customer: str, *warnings: Warn) -> Report:
        """An ordinary event of a feature, now and then without an id, a time or an external id."""
        draw = self.random
        value, properties = self._value(feature)
        use = Use(self._time(feature), value, properties.get(feature.group_by or ""))
        event: dict[str, Any] = {"event_name": feature.event_name}
        if customer in self.ids and draw.random() < 0.05:
            event["customer_id"] = self.ids[customer]
        else:
            event["external_customer_id"] = customer
        if feature.aggregation == "COUNT" and draw.random() < 0.1:
            use = replace(use, time_ms=in_ms(self.now))  # the moment of receipt, inside the period
        else:
            event["timestamp"] = self._written(use.time_ms)
        if draw.random() > 0.1:
            event["event_id"] = self._event_id()
        if properties:
            event |= {"properties": properties}
        if draw.random() < 0.5:
            event["source"] = draw.choice(("api", "worker", "batch"))
        if customer.startswith(UNKNOWN):
            warnings += (Warn.UNKNOWN_CUSTOMER,)
        verdict, counts = Verdict.COUNTED, True
        if feature.retired:
            verdict, counts = Verdict.FEATURE_ARCHIVED, False
        elif any(properties.get(key) not in values for key, values in feature.filters):
            verdict, counts = Verdict.FILTERED, False
        return Report(
            event, verdict, feature, customer, use if counts else None, warnings if counts else ()
        )

    def _value(self, feature: Metered) -> tuple[Value, dict[str, Any]]:
        """A value and the properties that hold it."""
        draw = self.random
        match feature.field:
            case None:
                return None, {}
            case "credits":
                value = Decimal(draw.randint(1, 9999)).scaleb(-draw.randint(0, 6))
                value = -value if draw.random() < 0.03 else value  # a correction
                return value, {"credits": value, "model": draw.choice(("small", "large"))}
            case "user_id":
                user = f"user_{draw.randint(1, 40)}"
                return user, {"user_id": user, "platform": "web"}
            case "bytes":
                size = Decimal(draw.randint(1_000, 10**12))
                return size, {"bytes": size}
            case "gpus":
                gpus = Decimal(draw.randint(1, 64))
                region = draw.choice((*REGIONS, None))
                return gpus, {"gpus": gpus} | ({"region": region} if region else {})
            case "gb":
                change = Decimal(draw.randint(-2000, 5000)).scaleb(-2)
                return change, {"gb": change, "bucket": "uploads"}
            case "tokens":
                tokens = Decimal(draw.randint(1, 4000))
                return tokens, {"tokens": tokens, "region": draw.choice(REGIONS)}
            case "seats" | "count" as name:
                number = Decimal(draw.randint(1, 5000))
                return number, {name: number}
            case name:
                number = Decimal(draw.randint(1, 5000)).scaleb(-draw.randint(0, 2))
                return number, {name: number}

    def _time(self, feature: Metered) -> int:
        """A time of its own, to the millisecond; now and then long before the period."""
        time_ms = in_ms(self.now) - next(self.times) - 1
        late = feature.reset_usage == "NEVER" or self.random.random() < 0.02
        return time_ms - 40 * 24 * 3_600_000 if late and self.random.random() < 0.3 else time_ms

    def _written(self, time_ms: int) -> str:
        """A time as clients write it: in UTC, with an offset, or without one."""
        moment = datetime.fromtimestamp(time_ms // 1000, UTC) + timedelta(
            milliseconds=time_ms % 1000
        )
        text = moment.isoformat(timespec="milliseconds").removesuffix("+00:00")
        if self.random.random() < 0.1:
            return (moment + timedelta(hours=5, minutes=30)).isoformat(timespec="milliseconds")[
                :-6
            ] + "+05:30"
        return self.random.choice((f"{text}Z", text))

    def _event_id(self) -> str:
        return f"demo_{self.run}_{next(self.numbers)}"

    def _mistakes(self) -> Iterator[Report]:
        """What people do wrong, each with the verdict that tells them."""
        usage = "demo.model.usage"
        credits: list[tuple[Any, Verdict, Decimal | None, tuple[Warn, ...]]] = [
            ("2.5", Verdict.COUNTED, Decimal("2.5"), (Warn.NUMERIC_STRING,)),
            (
                Decimal("0.1234567890123456785"), Verdict.COUNTED,
                Decimal("0.123456789012345678"), (Warn.ROUNDED,),
            ),
            ("two", Verdict.WRONG_TYPE, None, ()),
            (True, Verdict.WRONG_TYPE, None, ()),
            (None, Verdict.WRONG_TYPE, None, ()),
            (msgspec.Raw(b"1e30"), Verdict.OUT_OF_RANGE, None, ()),
            (Decimal("123456789012345678901"), Verdict.OUT_OF_RANGE, None, ()),
        ]  # fmt: skip
        for customer in KNOWN:
            for value, verdict, counted, warnings in credits:
                yield self._credits(customer, {"credits": value}, verdict, counted, warnings)
            yield self._credits(customer, {"Credits": 2}, Verdict.MISSING_PROPERTY)
            yield self._credits(customer, None, Verdict.MISSING_PROPERTY)
            for name in ("demo.model.usages", "Demo.Model.Usage", f"{usage} "):
                mistake = self._credits(customer, {"credits": 2}, Verdict.UNKNOWN_EVENT_NAME)
                yield replace(mistake, event={**mistake.event, "event_name": name})
            ahead = self._credits(customer, {"credits": 2}, Verdict.OUT_OF_RANGE)
            tomorrow = in_ms(self.now) + 3 * 24 * 3_600_000
            event = {**ahead.event, "timestamp": self._written(tomorrow), "source": FUTURE}
            yield replace(ahead, event=event)

    def _credits(
        self,
        customer: str,
        properties: dict[str, Any] | None,
        verdict: Verdict,
        counted: Decimal | None = None,
        warnings: tuple[Warn, ...] = (),
    ) -> Report:
        feature = self.features["demo.model.usage"]
        time_ms = self._time(feature)
        event: dict[str, Any] = {
            "event_id": self._event_id(),
            "event_name": feature.event_name,
            "external_customer_id": f"{customer}-{self.run}",
            "timestamp": self._written(time_ms),
        }
        if properties is not None:
            event["properties"] = properties
        use = None if counted is None else Use(time_ms, counted)
        return Report(event, verdict, feature, event["external_customer_id"], use, warnings)

    def _changed(self, reports: Sequence[Report]) -> Iterator[Report]:
        """Ids that come back with other content: the first one stays, this one is a duplicate."""
        counted = [r for r in reports if r.use is not None and "event_id" in r.event]
        for report in self.random.sample(counted, 25):
            event = {**report.event, "source": "changed"}
            yield replace(
                report, event=event, verdict=Verdict.DUPLICATE, use=None,
                warnings=(Warn.CONTENT_DIFFERS,),
            )  # fmt: skip

    def _pieces(self, reports: Sequence[Report], low: int, high: int) -> Iterator[list[Report]]:
        at = 0
        while at < len(reports):
            size = self.random.randint(low, high)
            yield list(reports[at : at + size])
            at += size

    def _natives(self, reports: Sequence[Report]) -> Iterator[Native]:
        """Records of one event, of an array, of {"events": []}; with a key and without one."""
        half = len(reports) // 2
        for report in reports[:half]:
            key = self.random.choice((None, report.customer.encode()))
            yield Native(report.text, [report], key)
        for piece in self._pieces(reports[half:], 1, 120):
            array = b"[" + b",".join(report.text for report in piece) + b"]"
            bulk = self.random.random() < 0.5
            yield Native(b'{"events": ' + array + b"}" if bulk else array, piece)

    def _broken(self, good: Sequence[Report]) -> Iterator[Native]:
        """Records that can't be read, and one bad event among good ones that are repeats."""
        yield Native(b"\x00\x01 this is no JSON", dead={0: "invalid_json"})
        yield Native(b'{"event_name": "demo.api.calls", ', dead={0: "invalid_json"})
        yield Native(None, key=b"tombstone", dead={0: "empty"})
        yield Native(b"", dead={0: "empty"})
        yield Native(b"[]", dead={0: "empty"})
        yield Native(b'{"external_customer_id": "acme"}', dead={0: "missing_field"})
        repeats = [
            replace(report, verdict=Verdict.DUPLICATE, use=None, warnings=())
            for report in good
            if "event_id" in report.event
        ]
        bad = b'{"event_name": "demo.api.calls", "external_customer_id": 7}'
        texts = [report.text for report in repeats]
        texts.insert(3, bad)
        yield Native(b"[" + b",".join(texts) + b"]", repeats, dead={3: "wrong_type"})

    def _refused(self) -> Iterator[Refused]:
        """What the gateway answers with 400, and nothing of it is accepted."""
        good = {"event_name": "demo.api.calls", "external_customer_id": f"acme-{self.run}"}
        future = {**good, "timestamp": self._written(in_ms(self.now) + 3 * 24 * 3_600_000)}
        bulk = {"events": [good, {**good, "event_name": ""}, good]}
        yield Refused("/v1/events", b"not JSON")
        yield Refused("/v1/events", _json.encode({"event_name": "demo.api.calls"}))
        yield Refused("/v1/events", _json.encode(future))
        yield Refused("/v1/events", _json.encode({**good, "timestamp": "yesterday"}))
        yield Refused("/v1/events/bulk", b'{"events": []}')
        yield Refused("/v1/events/bulk", _json.encode(bulk))


def in_ms(moment: datetime) -> int:
    """A moment in milliseconds since 1970, exactly."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
