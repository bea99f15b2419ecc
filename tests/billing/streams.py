"""Random streams of events around moments at which clocks change, and how they get into a store."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from clickhouse_connect.driver import Client
from hypothesis import strategies as st

from billing.aggregation import Quantity
from tests.billing.rows import store_block
from tests.oracle import Counted, Rule, Sent

MS = timedelta(milliseconds=1)
PLACES = {
    "Europe/Berlin": datetime(2025, 3, 30, 1, tzinfo=UTC),
    "America/New_York": datetime(2025, 11, 2, 6, tzinfo=UTC),
    "Asia/Kathmandu": datetime(2025, 6, 30, 18, 15, tzinfo=UTC),  # +5:45
    "Asia/Kolkata": datetime(2025, 2, 28, 18, 30, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2025, 4, 5, 15, tzinfo=UTC),  # clocks move by 30 minutes
    "America/Sao_Paulo": datetime(2018, 11, 4, 3, tzinfo=UTC),  # no midnight
    "Pacific/Apia": datetime(2011, 12, 30, 10, tzinfo=UTC),  # no 30 December
    "UTC": datetime(2024, 2, 29, tzinfo=UTC),
}
"""Zones, each with a moment at which something happens to its clock."""


def rules_of(account: str) -> dict[str, Rule]:
    kinds: list[dict[str, Any]] = [
        {"aggregation": "COUNT"},
        {"aggregation": "SUM", "field": "n"},
        {"aggregation": "AVG", "field": "n"},
        {"aggregation": "COUNT_UNIQUE", "field": "x"},
        {"aggregation": "LATEST", "field": "x"},
        {"aggregation": "SUM_WITH_MULTIPLIER", "field": "n", "multiplier": Decimal("0.003")},
        {"aggregation": "MAX", "field": "n"},
        {"aggregation": "WEIGHTED_SUM", "field": "n"},
    ]
    sizes = ["MINUTE", "15MIN", "30MIN", "HOUR", "3HOUR", "DAY"]
    buckets: list[dict[str, Any]] = [
        {
            "aggregation": "MAX",
            "field": "n",
            "bucket_size": size,
            "group_by": "g" if i % 2 else None,
        }
        for i, size in enumerate(sizes)
    ]
    kinds += [kind | {"reset": "NEVER"} for kind in kinds] + buckets
    kinds.append({"aggregation": "SUM", "field": "n", "filters": {"g": {"a", "1"}}})
    return {f"e{i}": Rule(account, f"e{i}", **kind) for i, kind in enumerate(kinds)}


NUMBERS = st.one_of(
    st.integers(-20, 20).map(Decimal),
    st.decimals(Decimal("-1e19"), Decimal("1e19"), places=18),
    st.sampled_from(["5", "-0.5", "1e3", "abc", "", True, None, Decimal("1e21")]),
    st.sampled_from([Decimal("1.10"), Decimal("1.1"), Decimal("0.0000000000000000005")]),
)
GROUPS = st.sampled_from(["a", "b", "", Decimal(1), Decimal("1.0"), True])


@st.composite
def times(draw: st.DrawFn, around: datetime) -> datetime:
    """Moments near a change of the clock, often at a boundary or a millisecond beside it."""
    minutes = draw(
        st.one_of(st.integers(-2 * 1440, 2 * 1440), st.sampled_from(range(-360, 360, 15)))
    )
    return around + timedelta(minutes=minutes) + draw(st.sampled_from([-1, 0, 0, 1, 30_123])) * MS


@st.composite
def streams(draw: st.DrawFn, account: str, around: datetime, names: list[str]) -> list[Sent]:
    log = []
    for offset in range(draw(st.integers(1, 25))):
        time = draw(times(around))
        properties = draw(
            st.fixed_dictionaries({}, optional={"n": NUMBERS, "x": NUMBERS | GROUPS, "g": GROUPS})
        )
        late = draw(st.sampled_from([-1500, -1440, 0, 0, 1, 10, 3000]))
        event = {
            "event_name": draw(st.sampled_from(names)),
            "external_customer_id": draw(st.sampled_from(["c1", "c1", "c2"])),
            "event_id": f"id{draw(st.integers(0, 30))}",
            "timestamp": time.isoformat(),
            "source": draw(st.sampled_from(["api", "worker", ""])),
            "properties": properties,
        }
        position = (draw(st.integers(0, 1)), offset, 0)
        log.append(Sent(account, event, time + timedelta(minutes=late), position))
    return log


def shown(quantity: Quantity) -> Decimal | str | None:
    """As the oracle says it."""
    return quantity.shown if quantity.text is None else quantity.text


def store_in_blocks(
    client: Client,
    judged: list[Counted],
    rules: dict[str, Rule],
    ids: dict[str, str],
    cut: int,
    resent: bool,
) -> None:
    """Store events in two blocks; `resent`: those of the second came before their feature."""
    for part, again in ((judged[:cut], False), (judged[cut:], resent)):
        firsts = [one for one in part if one.verdict != "duplicate"] if again else part
        others = [one for one in part if one.verdict == "duplicate"] if again else []
        if firsts:
            store_block(client, firsts, rules, ids, again)
        if others:
            store_block(client, others, rules, ids)
