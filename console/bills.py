"""What a subscription's periods come to: the catalog's terms, the store's usage, billing's rules.

The one way to a preview, to a closed invoice and to a subscription's usage.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clickhouse_connect.driver import Client
from sqlalchemy.orm import Session

from billing.charges import Basis, charges_of
from billing.invoices import Invoice, Late, Mark, adjust, bill, needed, restored
from billing.measures import Measured
from billing.periods import Period
from billing.reading import measure
from billing.units import Unit
from billing.windows import to_ms
from catalog import entitlements, invoices, prices, subscriptions
from catalog.database import Catalog
from catalog.follower import Follower
from catalog.invoice_tables import InvoiceRow
from catalog.plan_tables import PriceRow
from catalog.tables import FeatureRow
from clickhouse.queries import query
from console.store import Store
from schemas.catalog import Feature
from schemas.currency import MINOR_DIGITS
from schemas.plans import Subscription

PLACES_PER_EPOCH = 1 << 16
NO_PLACE = (1 << 32) - 1
"""Stands for the marks of an invoice that was computed before anything was counted."""


Position = tuple[int, int, int]
"""Of an event among the blocks: place, offset, index."""


class LateEvent(NamedTuple):
    """An event that came after its period was closed; times in ms since 1970."""

    event_id: str
    timestamp: int
    ingested_at: int
    position: Position


class Bills:
    """Computes invoices. Synchronous: call it from a thread. Nothing is stored here."""

    def __init__(self, catalog: Catalog, follower: Follower, store: Store) -> None:
        self._catalog = catalog
        self._follower = follower
        self._store = store

    def of(self, subscription: Subscription, periods: Sequence[Period]) -> list[Invoice]:
        """The invoice of each of a subscription's periods, by its terms as they stand now.

        Usage that came late for periods closed before is adjusted on the first. Raises
        CatalogUnavailable, ServiceUnavailable.
        """
        with self._catalog.reading() as session:
            bases = self.bases(session, subscription, periods)
        return self._computed(subscription, bases)

    def after_the_last(self, subscription: Subscription, span: Period) -> list[Invoice]:
        """An invoice of adjustments alone, once no period is left; none when nothing came late.

        `span` stands as its period. Raises what `of` raises.
        """
        nothing = Basis(subscription, span, MINOR_DIGITS[subscription.currency], ())
        return [one for one in self._computed(subscription, [nothing]) if one.adjustments]

    def late_counts(self, invoice: Invoice) -> list[int]:
        """For each adjustment of an invoice, how many events made it."""
        with self._store.reading() as client:
            return [
                count_late(client, self._feature(one.late), one.late) for one in invoice.adjustments
            ]

    def late_events(self, late: Late, last: Position, limit: int) -> list[LateEvent]:
        """A page of an adjustment's events, in the order of the log, after a position."""
        with self._store.reading() as client:
            return list_late(client, self._feature(late), late, last, limit)

    def _feature(self, late: Late) -> Feature:
        feature = self._follower.snapshot.feature(late.feature_id)
        assert feature is not None  # what was billed is never forgotten
        return feature

    def _computed(self, subscription: Subscription, bases: Sequence[Basis]) -> list[Invoice]:
        with self._catalog.reading() as session:
            rows = invoices.all_of(session, subscription.id)
        closed = [_Closed(row) for row in rows]
        with self._store.reading() as client:
            measured, touched = self._measure(client, subscription, bases, closed)
        earlier = [one for each in closed for one in each.invoice.adjustments]
        adjustments = [
            one for each in touched for one in adjust(each.id, each.invoice, earlier, measured)
        ]
        return [
            bill(basis, measured, adjustments if place == 0 else ())
            for place, basis in enumerate(bases)
        ]

    def bases(
        self, session: Session, subscription: Subscription, periods: Sequence[Period]
    ) -> list[Basis]:
        """What periods are billed by, as plan, prices and limits stand now."""
        account, plan_ids = subscription.account, {period.plan_id for period in periods}
        terms = subscriptions.terms_of(subscription)
        rows = [
            row
            for row in prices.published(session, account, plan_ids)
            if subscriptions.terms_of(row) == terms
        ]
        limits = entitlements.of_plans(session, account, plan_ids)
        features = self._features(rows)
        units = {row.feature_id: _unit(row.feature) for row in rows}
        return [
            Basis(
                subscription=subscription,
                period=period,
                digits=MINOR_DIGITS[subscription.currency],
                charges=charges_of(
                    period.plan_id,
                    subscription.currency,
                    [prices.as_price(row) for row in rows],
                    limits,
                    features,
                    units,
                ),
            )
            for period in periods
        ]

    def _features(self, rows: Sequence[PriceRow]) -> dict[str, Any]:
        if not rows:
            return {}
        snapshot = self._follower.reach(max(row.feature.version for row in rows))
        return {row.feature_id: snapshot.feature(row.feature_id) for row in rows}

    def _measure(
        self,
        client: Client,
        subscription: Subscription,
        bases: Sequence[Basis],
        closed: Sequence["_Closed"],
    ) -> tuple[Measured, list["_Closed"]]:
        """All usage that is needed, of one moment, and the closed invoices that it adjusts.

        What is late is known only once it is said up to where usage was read: so it is read again
        with the invoices that late usage touches, until that moment touches no others.
        """
        charged = [each for each in closed if each.basis.charges]
        touched: list[_Closed] = []
        while True:
            read = [*bases, *(each.basis for each in touched or charged[-1:])]
            measured = measure(client, needed(*read))
            if not charged:
                return measured, touched
            first = _late_since(client, subscription, charged, closed[-1].invoice.upto, measured)
            wanted = [each for each in charged if each.is_touched(first)]
            if len(wanted) <= len(touched):
                return measured, touched
            touched = wanted


class _Closed:
    """An invoice that was stored."""

    def __init__(self, row: InvoiceRow) -> None:
        self.id = row.id
        self.invoice = restored(row.content)

    @property
    def basis(self) -> Basis:
        return self.invoice.basis

    def is_touched(self, first: Mapping[str, int]) -> bool:
        """Whether late events, by feature from a time on (ms), can change what it comes to."""
        end = to_ms(self.basis.period.end)
        return any(first.get(charge.feature.id, end) < end for charge in self.basis.charges)


def _late_since(
    client: Client,
    subscription: Subscription,
    charged: Sequence[_Closed],
    since: Sequence[Mark],
    measured: Measured,
) -> dict[str, int]:
    """By feature, the time (ms) of the earliest event behind the marks of the last invoice."""
    charges = {c.feature.id: c for each in charged for c in each.basis.charges}
    parameters = {
        "account": subscription.account,
        "customer": subscription.external_customer_id,
        "event_names": sorted({charge.feature.event_name for charge in charges.values()}),
        "features": sorted(charges),
        "start": 0,
        "end": max(to_ms(each.basis.period.end) for each in charged),
    }
    upto = [Mark(*place, offset) for place, offset in measured.upto.items()]
    rows = client.query(query("late_usage"), parameters | _marks(since, upto)).result_rows
    return {feature_id: earliest for feature_id, earliest, _ in rows}


def list_late(
    client: Client, feature: Feature, late: Late, last: Position, limit: int
) -> list[LateEvent]:
    """A page of the events of an adjustment, in the order of the log, after a position."""
    parameters = {
        "event_name": feature.event_name,
        "feature": feature.id,
        "last_place": last[0],
        "last_offset": last[1],
        "last_index": last[2],
        "limit": limit,
    }
    parameters |= _whose(feature, late) | _marks(late.after, late.upto)
    rows = client.query(query("late_events"), parameters).result_rows
    return [LateEvent(row[0], row[1], row[2], (row[3], row[4], row[5])) for row in rows]


def count_late(client: Client, feature: Feature, late: Late) -> int:
    """How many events made an adjustment."""
    parameters: dict[str, Any] = {"event_names": [feature.event_name], "features": [feature.id]}
    parameters |= _whose(feature, late) | _marks(late.after, late.upto)
    rows = client.query(query("late_usage"), parameters).result_rows
    return rows[0][2] if rows else 0


def _whose(feature: Feature, late: Late) -> dict[str, Any]:
    return {
        "account": feature.account,
        "customer": late.external_customer_id,
        "start": to_ms(late.start),
        "end": to_ms(late.end),
    }


def _marks(after: Sequence[Mark], upto: Sequence[Mark]) -> dict[str, Any]:
    """Marks as the queries take them: a list of places, and two of offsets."""
    begun = {_place(mark): mark.block_offset for mark in after}
    ends = {_place(mark): mark.block_offset for mark in upto} or {NO_PLACE: -1}
    return {
        "places": list(ends),
        "after": [begun.get(place, -1) for place in ends],
        "upto": list(ends.values()),
    }


def _place(mark: Mark) -> int:
    return mark.block_epoch * PLACES_PER_EPOCH + mark.block_partition


def _unit(feature: FeatureRow) -> Unit:
    return Unit(feature.unit_singular, feature.unit_plural)
