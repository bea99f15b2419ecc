"""What a subscription's periods come to: the catalog's terms, the store's usage, billing's rules.

The one way to a preview, to a closed invoice and to a subscription's usage.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clickhouse_connect.driver import Client
from sqlalchemy.orm import Session

from billing.charges import Basis, charges_of
from billing.invoices import Adjustment, Invoice, Late, Mark, adjust, bill, needed, restored
from billing.measures import Measured
from billing.periods import Period
from billing.reading import measure, reached
from billing.units import Unit
from billing.windows import to_datetime, to_ms
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

        Usage that came late for periods closed before is adjusted on the next to be closed, if
        that is the first of these. Raises CatalogUnavailable, ServiceUnavailable.
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
        late = [one.late for one in invoice.adjustments]
        if not late:
            return []
        with self._store.reading() as client:
            return count_late(client, [self._feature(each.feature_id) for each in late], late)

    def late_events(self, late: Late, first: Position, limit: int) -> list[LateEvent]:
        """A page of an adjustment's events, in the order of the log, from a position on."""
        with self._store.reading() as client:
            return list_late(client, self._feature(late.feature_id), late, first, limit)

    def _feature(self, feature_id: str) -> Feature:
        feature = self._follower.snapshot.feature(feature_id)
        if feature is None:  # sold a moment ago, by another console
            self._follower.refresh()
            feature = self._follower.snapshot.feature(feature_id)
        assert feature is not None  # what was sold is never forgotten
        return feature

    def _computed(self, subscription: Subscription, bases: Sequence[Basis]) -> list[Invoice]:
        with self._catalog.reading() as session:
            last = invoices.last_of(session, subscription.id)
            plan_ids = {phase.plan_id for phase in subscription.phases}
            sold = prices.features_of(session, subscription.account, plan_ids)
        adjustments: list[Adjustment] = []
        with self._store.reading() as client:
            if last is None or bases[0].period.start != last.period_end:
                measured = _measured(client, bases)
            else:
                features = [self._feature(feature_id) for feature_id in sold]
                measured, adjustments = self._adjusted(client, subscription, bases, last, features)
        return [
            bill(basis, measured, adjustments if place == 0 else ())
            for place, basis in enumerate(bases)
        ]

    def _adjusted(
        self,
        client: Client,
        subscription: Subscription,
        bases: Sequence[Basis],
        last: InvoiceRow,
        features: Sequence[Feature],
    ) -> tuple[Measured, list[Adjustment]]:
        """All usage that is needed, of one moment, and what changes about closed periods by then.

        What is late is known only once it is said up to where usage was read: so it is read again
        with the invoices that late usage touches, until that moment touches no others.
        """
        since, until = restored(last.content).upto, to_ms(last.period_end)
        touched: dict[str, Invoice] = {}
        earlier: list[Adjustment] = []
        while True:
            measured = _measured(client, [*bases, *(one.basis for one in touched.values())])
            first = _late_since(client, subscription, features, since, measured, until)
            wanted: dict[str, Invoice] = {}
            if first:
                with self._catalog.reading() as session:
                    after = to_datetime(min(first.values()))
                    rows = invoices.ending_after(session, subscription.id, after)
                closed = {row.id: restored(row.content) for row in rows}
                earlier = [one for each in closed.values() for one in each.adjustments]
                wanted = {name: one for name, one in closed.items() if _is_touched(one, first)}
            if len(wanted) <= len(touched):
                return measured, [
                    one
                    for name, invoice in touched.items()
                    for one in adjust(name, invoice, earlier, measured)
                ]
            touched = wanted

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


def _measured(client: Client, bases: Sequence[Basis]) -> Measured:
    """The usage that some bases need; of none, still the moment that it is of."""
    wanted = needed(*bases)
    return measure(client, wanted) if wanted else Measured({}, upto=reached(client))


def _is_touched(invoice: Invoice, first: Mapping[str, int]) -> bool:
    """Whether late events, by feature from a time on (ms), can change what it comes to."""
    end = to_ms(invoice.basis.period.end)
    return any(first.get(charge.feature.id, end) < end for charge in invoice.basis.charges)


def _late_since(
    client: Client,
    subscription: Subscription,
    features: Sequence[Feature],
    since: Sequence[Mark],
    measured: Measured,
    until: int,
) -> dict[str, int]:
    """By feature, the time (ms) of the earliest event behind some marks; those before `until`."""
    parameters = {
        "account": subscription.account,
        "customer": subscription.external_customer_id,
        "event_names": sorted({feature.event_name for feature in features}),
        "features": sorted(feature.id for feature in features),
        "end": until,
    }
    upto = [Mark(*place, offset) for place, offset in measured.upto.items()]
    rows = client.query(query("late_usage"), parameters | _marks(since, upto)).result_rows
    return dict(rows)


def list_late(
    client: Client, feature: Feature, late: Late, first: Position, limit: int
) -> list[LateEvent]:
    """A page of the events of an adjustment, in the order of the log, from a position on."""
    parameters = {
        "account": feature.account,
        "customer": late.external_customer_id,
        "event_name": feature.event_name,
        "feature": feature.id,
        "start": to_ms(late.start),
        "end": to_ms(late.end),
        "first_place": first[0],
        "first_offset": first[1],
        "first_index": first[2],
        "limit": limit,
    }
    parameters |= _marks(late.after, late.upto)
    rows = client.query(query("late_events"), parameters).result_rows
    return [LateEvent(row[0], row[1], row[2], (row[3], row[4], row[5])) for row in rows]


def count_late(client: Client, features: Sequence[Feature], late: Sequence[Late]) -> list[int]:
    """How many events made each adjustment of one invoice, whose features are given beside."""
    marks = [_marks(each.after, each.upto) for each in late]
    parameters = {
        "account": features[0].account,
        "customer": late[0].external_customer_id,
        "event_names": sorted({feature.event_name for feature in features}),
        "features": [feature.id for feature in features],
        "starts": [to_ms(each.start) for each in late],
        "ends": [to_ms(each.end) for each in late],
        "places": marks[0]["places"],
        "afters": [each["after"] for each in marks],
        "upto": marks[0]["upto"],
        "least": min(each["least"] for each in marks),
    }
    found = dict(client.query(query("late_counts"), parameters).result_rows)
    return [found.get(place, 0) for place in range(len(late))]


def _marks(after: Sequence[Mark], upto: Sequence[Mark]) -> dict[str, Any]:
    """Marks as the queries take them: a list of places, and two of offsets; and the least offset
    that is behind any of the first, for the index."""
    begun = {_place(mark): mark.block_offset for mark in after}
    ends = {_place(mark): mark.block_offset for mark in upto} or {NO_PLACE: -1}
    offsets = [begun.get(place, -1) for place in ends]
    return {
        "places": list(ends),
        "after": offsets,
        "upto": list(ends.values()),
        "least": min(offsets) + 1,
    }


def _place(mark: Mark) -> int:
    return mark.block_epoch * PLACES_PER_EPOCH + mark.block_partition


def _unit(feature: FeatureRow) -> Unit:
    return Unit(feature.unit_singular, feature.unit_plural)
