"""/v1/events/analytics: a customer's usage and what it costs, by feature, window and group."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from clickhouse_connect.driver import Client
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.aggregation import plain
from billing.analytics import Billed, costs_of, group_costs, measures_of
from billing.invoices import shown
from billing.periods import periods
from billing.reading import ROWS_MAX, measure
from billing.usage import Amount, Labels, Usage
from billing.windows import WINDOWS_MAX, to_datetime
from catalog import features, plans, prices, subscriptions
from catalog.follower import Follower
from catalog.tables import FeatureRow
from console.bills import Bills
from console.calls import body_as, json_answer, look
from console.entities import Document
from console.ranges import Asked, asked
from console.routing import Resource, reads
from console.store import Store
from console.usage import check_group_count, in_order, labelled
from schemas.analytics import AnalyticsDocument, AnalyticsRequest, Expansion
from schemas.catalog import Feature
from schemas.errors import InvalidRequest
from schemas.features import FeatureSearch
from schemas.requests import PAGE_SIZE_MAX

Cost = Fraction | None
"""Null where nothing bills it, or nobody can tell."""


@dataclass(frozen=True, slots=True)
class Metered:
    """A feature, and the periods in which it was billed within a range, oldest first."""

    row: FeatureRow
    feature: Feature
    billed: list[Billed]

    @property
    def currencies(self) -> set[str]:
        """Of its prices."""
        return {charge.price.currency for _, charge in self.billed}


@dataclass(frozen=True, slots=True)
class Item:
    """The usage of a feature, or of one of its groups: the whole range first, then each window."""

    metered: Metered
    labels: Labels
    amounts: Sequence[Amount]
    costs: Sequence[Cost]


async def get_analytics(request: Request) -> Response:
    """POST /v1/events/analytics: a customer's usage and its cost, an item for each feature.

    Raises InvalidRequest (400), NotFound (404) for a customer_id and for feature_ids,
    ServiceUnavailable (503).
    """
    wish = await body_as(AnalyticsRequest, request)
    it = await asked(request, wish)
    bills: Bills = request.state.bills
    metered = await look(request, _metered, request.state.follower, bills, wish.feature_ids, it)
    store: Store = request.state.store

    def read() -> list[Item]:
        with store.reading() as client:
            return _read(client, wish, it, metered)

    items = await asyncio.to_thread(read)
    expanded = await look(request, _expanded, wish.expand, items)
    total, currency = _total(items)
    return json_answer(
        {
            "total_cost": _text(total),
            "currency": currency,
            "items": [
                _laid_out(wish, it, item) | more for item, more in zip(items, expanded, strict=True)
            ],
        }
    )


def _metered(
    session: Session,
    account: str,
    follower: Follower,
    bills: Bills,
    feature_ids: Sequence[str] | None,
    it: Asked,
) -> list[Metered]:
    """The features that are asked for, archived ones too, by name."""
    if feature_ids is None:
        found = features.search(session, account, FeatureSearch(status="all", limit=PAGE_SIZE_MAX))
        if found.total > PAGE_SIZE_MAX:
            detail = f"there are more than {PAGE_SIZE_MAX} features: say which"
            raise InvalidRequest.at("/feature_ids", "missing", detail)
        rows = found.items
    else:
        rows = [features.get(session, account, each) for each in dict.fromkeys(feature_ids)]
    if not rows:
        return []
    billed: defaultdict[str, list[Billed]] = defaultdict(list)
    if it.customer_id is not None:
        start, end = to_datetime(it.start), to_datetime(it.end)
        for subscription in subscriptions.of_customer(session, account, it.customer_id):
            touched = list(periods(subscription, until=end, since=start))
            for basis in bills.bases(session, subscription, touched):
                for charge in basis.charges:
                    billed[charge.feature.id].append(Billed(basis, charge))
    snapshot = follower.reach(max(row.version for row in rows))
    return [
        Metered(row, feature, sorted(billed[row.id], key=lambda each: each.basis.period.start))
        for row in sorted(rows, key=lambda row: (row.name, row.id))
        if (feature := snapshot.feature(row.id)) is not None
    ]


def _read(
    client: Client, wish: AnalyticsRequest, it: Asked, metered: Sequence[Metered]
) -> list[Item]:
    """The items of the features that have events, or that were named."""
    usages = {each.feature.id: Usage(each.feature, it.customer, it.zone) for each in metered}
    whole = [usages[each.feature.id].measures(it.ranges[:1])[0] for each in metered]
    counts = measure(client, whole, rows_max=ROWS_MAX).counts
    used = [
        each
        for each, asked_for in zip(metered, whole, strict=True)
        if wish.feature_ids is not None or counts[asked_for]
    ]
    _check_points(len(used), it)
    wanted = [
        one
        for each in used
        for one in (
            *usages[each.feature.id].measures(it.ranges),
            *measures_of(each.billed, it.ranges),
        )
    ]
    measured = measure(client, wanted, rows_max=ROWS_MAX)
    items = []
    for each in used:
        usage = usages[each.feature.id]
        amounts = [
            Amount(measured.quantities[one], measured.counts[one])
            for one in usage.measures(it.ranges)
        ]
        one_currency = len(each.currencies) == 1
        costs = costs_of(each.billed, it.ranges, measured) if one_currency else None
        if not (wish.conditions or wish.sources or wish.dimensions):
            items.append(Item(each, (), amounts, costs or [None] * len(amounts)))
            continue
        narrowed = replace(
            usage, filters=wish.conditions, sources=tuple(wish.sources), group_by=wish.dimensions
        )
        items += _groups(each, in_order(narrowed.groups(client, it.ranges)), amounts, costs)
        check_group_count(len(items))
        _check_points(len(items), it)
    return items


def _groups(
    metered: Metered,
    groups: Sequence[tuple[Labels, list[Amount]]],
    wholes: Sequence[Amount],
    costs: Sequence[Fraction] | None,
) -> list[Item]:
    """An item for each group, with its share of the feature's costs."""
    shares: list[list[Cost]] = [[None] * len(wholes) for _ in groups]
    if costs is not None:
        shares = group_costs(
            metered.feature,
            costs,
            [whole.quantity for whole in wholes],
            [[amount.quantity for amount in amounts] for _, amounts in groups],
        )
    return [
        Item(metered, labels, amounts, share)
        for (labels, amounts), share in zip(groups, shares, strict=True)
    ]


def _check_points(items: int, it: Asked) -> None:
    if items * len(it.spans) > WINDOWS_MAX:
        detail = f"more than {WINDOWS_MAX} points: use a longer window_size, or name feature_ids"
        raise InvalidRequest.at("/window_size", "out_of_range", detail)


def _total(items: Sequence[Item]) -> tuple[Cost, str | None]:
    """What all items cost, and in what; None when there is not just one currency."""
    billed = [item for item in items if item.metered.billed]
    currencies = {currency for item in billed for currency in item.metered.currencies}
    if len(currencies) != 1:
        return None, None
    costs = [item.costs[0] for item in billed]
    known = [cost for cost in costs if cost is not None]
    return sum(known, Fraction(0)) if len(known) == len(costs) else None, currencies.pop()


def _laid_out(wish: AnalyticsRequest, it: Asked, item: Item) -> Document:
    row, (whole, *parts) = item.metered.row, item.amounts
    answer: Document = {
        "feature_id": row.id,
        "meter_id": row.meter_id,
        "name": row.name,
        "event_name": item.metered.feature.event_name,
        "aggregation_type": item.metered.feature.aggregation,
        "total_usage": _usage(whole),
        "total_cost": _text(item.costs[0]),
        "event_count": whole.event_count,
    }
    named: Document = {
        "unit": row.unit_singular,
        "unit_plural": row.unit_plural,
        "text": whole.quantity.text,
        "window_size": wish.window_size,
    }
    if len(item.metered.currencies) == 1:
        [named["currency"]] = item.metered.currencies
    if item.metered.billed:
        basis, charge = item.metered.billed[-1]
        named |= {
            "price_id": charge.price.id,
            "plan_id": charge.price.plan_id,
            "subscription_id": basis.subscription.id,
        }
    answer |= {name: value for name, value in named.items() if value is not None}
    answer |= labelled(wish.dimensions, item.labels)
    answer["points"] = [
        {
            "timestamp": to_datetime(span.label),
            "usage": _usage(part),
            "cost": _text(cost),
            "event_count": part.event_count,
        }
        for span, part, cost in zip(it.spans, parts, item.costs[1:], strict=True)
    ]
    return answer


def _expanded(
    session: Session, account: str, wanted: Sequence[Expansion], items: Sequence[Item]
) -> list[Document]:
    """What each item shows whole."""
    found = []
    for item in items:
        more: Document = {}
        row = features.get(session, account, item.metered.row.id) if wanted else item.metered.row
        if Expansion.FEATURE in wanted:
            more["feature"] = row.document()
        if Expansion.METER in wanted:
            more["meter"] = row.meter.document()
        if item.metered.billed:
            price = item.metered.billed[-1].charge.price
            if Expansion.PRICE in wanted:
                more["price"] = prices.get(session, account, price.id).document()
            if Expansion.PLAN in wanted:
                more["plan"] = plans.get(session, account, price.plan_id).document()
        found.append(more)
    return found


def _usage(amount: Amount) -> str | None:
    value = amount.quantity.shown
    return None if value is None else plain(value)


def _text(cost: Cost) -> str | None:
    return None if cost is None else plain(shown(cost, is_quotient=True))


def routes() -> list[BaseRoute]:
    """The route of analytics."""
    method: Any = reads(get_analytics, takes=AnalyticsRequest, gives=AnalyticsDocument)
    return [Resource("/v1/events/analytics", POST=method)]
