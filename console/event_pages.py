"""Pages of an account's stored events, by filters, before or behind a key. For threads."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from billing.windows import to_ms
from catalog.matching import Match, matcher
from clickhouse.queries import query
from console.store import Store
from schemas.catalog import Aggregation, Feature, Reset, Status
from schemas.event_queries import EventQuery, Key
from schemas.verdict import NO_ACTIVE_SUBSCRIPTION, Verdict

DEFAULT_RANGE = timedelta(days=7)
QUERY_S = 10
"""What one query may take; a longer one is refused with a cure."""
SHORT_ROWS = 20_000
"""A list of up to so many events is sorted as it is."""
SCAN_ROWS = 5_000
SCAN_S = 5.0
"""Property filters look at so many events at a time, and end a page early after so long."""
COUNTED_TEXTS_MAX = 200_000
"""Different properties that are looked through to count all pages of a filtered list."""
TOO_MANY_GROUPS = 158
FIRST_MS, LAST_MS = 0, 253_402_300_799_999
LIMITS: dict[str, Any] = {"max_execution_time": QUERY_S, "timeout_overflow_mode": "throw"}
Conditions = tuple[tuple[str, frozenset[str]], ...]
Keep = Callable[[Sequence["Row"]], Iterable[bool]]
Told = Callable[[Sequence["Row"]], Sequence[Sequence[str]]]
"""The warnings of each row, as they stand now."""


class Row(NamedTuple):
    """A row of `events_found`."""

    event_id: str
    event_name: str
    customer: str
    timestamp: int
    ingested_at: int
    source: str
    properties: str
    verdict: str
    detail: str
    warnings: str
    feature_id: str
    key: Key


class Found(NamedTuple):
    """A page, where it begins and ends, whether more lie behind it, and how many there are."""

    rows: list[Row]
    first: Key | None
    last: Key | None
    has_more: bool
    total: int | None


def find(store: Store, account: str, customer: str, wish: EventQuery, told: Told) -> Found:
    """A page of an account's events, of a customer's (external id) or of all ("").

    Raises InvalidRequest when it takes too much, ServiceUnavailable.
    """
    conditions = tuple((key, frozenset(values)) for key, values in wish.property_filters.items())
    parameters = _parameters(account, customer, wish)
    keeps = [_keeper(conditions)] if conditions else []
    if unbilled := NO_ACTIVE_SUBSCRIPTION in wish.warning:
        keeps.append(_warned(frozenset(wish.warning), told))
    with store.reading() as client:
        total = None if unbilled else _count(client, parameters, conditions)
        long = bool(keeps) or total is None or total > SHORT_ROWS
        return _Scan(client, parameters, wish, keeps, long).page()._replace(total=total)


def _warned(wanted: frozenset[str], told: Told) -> Keep:
    """Says of rows whether they have one of some warnings now."""
    return lambda rows: [not wanted.isdisjoint(warnings) for warnings in told(rows)]


class _Scan:
    """One page of a list, read in the list's order, or against it for the page before a key."""

    def __init__(
        self,
        client: Client,
        parameters: dict[str, Any],
        wish: EventQuery,
        keeps: Sequence[Keep],
        long: bool,
    ) -> None:
        self._client = client
        self._long = long
        self._parameters = parameters
        self._wish = wish
        self._keeps = keeps
        self._backward = wish.before is not None
        falling = (wish.order != "asc") != self._backward
        self._beyond, self._order = ("<", "DESC") if falling else (">", "ASC")

    def _kept(self, rows: list[Row]) -> list[Row]:
        for keep in self._keeps:
            rows = [row for row, kept in zip(rows, keep(rows), strict=True) if kept]
        return rows

    def page(self) -> Found:
        """The page; filtered by more than SQL it may end early, and the next one goes on there."""
        size, skip = self._wish.page_size, self._wish.offset
        place: Key | None = self._wish.before or self._wish.after
        rows: list[Row] = []
        deadline = time.monotonic() + SCAN_S
        while True:
            wanted = SCAN_ROWS if self._keeps else size + skip + 1
            read = self._read(place, wanted)
            rows += self._kept(read)
            ended = len(read) < wanted
            place = read[-1].key if read else place
            if ended or len(rows) > size + skip or time.monotonic() > deadline:
                break
        chosen = rows[skip : skip + size]
        has_more = len(rows) > size + skip or not ended
        edge = place if not ended and len(rows) <= size + skip else None
        if self._backward:
            chosen.reverse()
            first = edge or (chosen[0].key if chosen else None)
            return Found(chosen, first, chosen[-1].key if chosen else first, has_more, None)
        last = edge or (chosen[-1].key if chosen else None)
        return Found(chosen, chosen[0].key if chosen else last, last, has_more, None)

    def _read(self, place: Key | None, limit: int) -> list[Row]:
        """The next rows behind a place. Of a long list, only those up to a bound are looked at."""
        edges: list[_Edge] = []
        if place is not None:
            edges.append(_Edge("key", self._beyond, place))
        if self._long and (bound := self._bound(place, limit)) is not None:
            edges.append(_Edge("rank", "<=" if self._beyond == ">" else ">=", bound))
        found = self._ask("* EXCEPT rank", edges, f"ORDER BY key {self._order}", limit)
        return [Row._make((*columns, Key._make(key))) for *columns, key in found]

    def _bound(self, place: Key | None, limit: int) -> tuple[str, int] | None:
        """The rank of the last of the next rows; None when fewer are left.

        Rows of the place's own rank don't count: any number of them may lie before it.
        """
        edges = [] if place is None else [_Edge("rank", self._beyond, (place[0], place[1]))]
        found = self._ask("rank", edges, f"ORDER BY rank {self._order}", 1, limit - 1)
        return tuple(found[0][0]) if found else None

    def _ask(
        self, columns: str, edges: Sequence["_Edge"], order: str, limit: int, offset: int = 0
    ) -> list[tuple[Any, ...]]:
        parameters = self._parameters | {"limit": limit, "offset": offset}
        for edge in edges:
            parameters |= edge.parameters()
            if not self._wish.by_name:  # so that the primary key, or a column alone, can tell
                if edge.relation[0] == "<":
                    parameters["end"] = min(parameters["end"], edge.place[1] + 1)
                else:
                    parameters["start"] = max(parameters["start"], edge.place[1])
        where = " AND ".join(edge.condition() for edge in edges) or "true"
        text = (
            f"SELECT {columns} FROM ({query('events_found')}) WHERE {where}"  # noqa: S608
            f" {order} LIMIT {{limit:UInt32}} OFFSET {{offset:UInt32}}"
        )
        rows: list[tuple[Any, ...]] = self._client.query(
            text, parameters, settings=LIMITS
        ).result_rows
        return rows


class _Edge(NamedTuple):
    """A comparison of a row's `key` or `rank` with a place in the list."""

    column: str
    relation: str
    place: tuple[Any, ...]

    def condition(self) -> str:
        """As SQL, with the place's values as parameters."""
        kinds = _KINDS[: len(self.place)]
        names = (f"{{{self.column}_{number}:{kind}}}" for number, kind in enumerate(kinds))
        return f"{self.column} {self.relation} ({', '.join(names)})"

    def parameters(self) -> dict[str, Any]:
        """Those of the condition."""
        return {f"{self.column}_{number}": value for number, value in enumerate(self.place)}


_KINDS = ("String", "Int64", "UInt64", "UInt32", "UInt16", "UInt16", "String")
"""The types of a key's columns."""


def _parameters(account: str, customer: str, wish: EventQuery) -> dict[str, Any]:
    start, end = FIRST_MS, LAST_MS
    if wish.end_time is not None:
        end = to_ms(wish.end_time)
    if wish.start_time is not None:
        start = to_ms(wish.start_time)
    elif wish.event_id is None:
        start = to_ms((wish.end_time or datetime.now(UTC)) - DEFAULT_RANGE)
    return {
        "account": account,
        "event_name": wish.event_name or "",
        "customer": customer,
        "event_id": wish.event_id or "",
        "sources": [*wish.sources, *([] if wish.source is None else [wish.source])],
        "verdicts": list(wish.verdict),
        "warnings": list(wish.warning),
        "unbilled": NO_ACTIVE_SUBSCRIPTION in wish.warning,
        "start": max(start, FIRST_MS),
        "end": min(end, LAST_MS),
        "by_name": wish.by_name,
        "needles": _needles(wish.property_filters),
    }


def _needles(filters: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """What a text of properties holds if it meets the filters: a text of each of these lists.

    Numbers and booleans can be written in several ways, so only other values are looked for.
    """
    needles = []
    for key, values in filters.items():
        needles.append([msgspec.json.encode(key).decode()])
        if not any(_may_be_no_text(value) for value in values):
            needles.append([msgspec.json.encode(value).decode() for value in values])
    return needles


def _may_be_no_text(value: str) -> bool:
    return value in ("true", "false") or value.lstrip("-")[:1].isdigit()


def _keeper(conditions: Conditions) -> Keep:
    """Says of rows whether they meet property filters, by the rules of a feature's own filters."""
    return lambda rows: _kept(conditions, [row.properties for row in rows])


def _kept(conditions: Conditions, texts: Sequence[str]) -> list[bool]:
    matches = matcher(_feature(conditions)).match([text.encode() for text in texts])
    if isinstance(matches, Match):
        matches = [matches] * len(texts)
    return [match.verdict is Verdict.COUNTED for match in matches]


def _feature(conditions: Conditions) -> Feature:
    """A feature that counts what meets the conditions."""
    return Feature(
        id="",
        meter_id="",
        account="",
        event_name="",
        aggregation=Aggregation.COUNT,
        field=None,
        multiplier=None,
        bucket_size=None,
        group_by=None,
        filters=conditions,
        reset_usage=Reset.BILLING_PERIOD,
        status=Status.PUBLISHED,
        created_version=0,
        version=0,
    )


def _count(
    client: Client,
    parameters: dict[str, Any],
    conditions: Conditions,
) -> int | None:
    """How many events a list has; None where that takes looking at too many."""
    found = query("events_found")
    if not conditions:
        text = f"SELECT count() FROM ({found})"  # noqa: S608
        return int(client.query(text, parameters, settings=LIMITS).result_rows[0][0])
    text = f"SELECT properties, count() FROM ({found}) GROUP BY properties"  # noqa: S608
    limits = {
        **LIMITS,
        "max_rows_to_group_by": COUNTED_TEXTS_MAX,
        "group_by_overflow_mode": "throw",
    }
    try:
        rows = client.query(text, parameters, settings=limits).result_rows
    except DatabaseError as error:
        if error.code == TOO_MANY_GROUPS:
            return None
        raise
    kept = _kept(conditions, [text for text, _ in rows])
    return sum(int(count) for (_, count), keep in zip(rows, kept, strict=True) if keep)
