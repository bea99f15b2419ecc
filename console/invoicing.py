"""Automatic invoicing: when a period is over, its invoice is computed once, stored and numbered.

A period is closed a grace after its end, and only when everything received by then is counted: so
what came in time is on its invoice, whatever the pipeline was doing. Several consoles may run: the
catalog takes each invoice once.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

import msgspec
from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import Counter, Gauge

from billing.charges import Basis
from billing.invoices import Invoice, stored
from billing.periods import Period, period_at, periods
from catalog import invoices, subscriptions
from catalog.database import Catalog, in_thread
from catalog.invoices import Closed
from catalog.plan_tables import SubscriptionRow
from console.bills import Bills
from console.settings import Settings
from schemas.errors import Rejection
from schemas.plans import Subscription

ACTOR = "invoicing"
SUBSCRIPTIONS_MAX = 100
"""Subscriptions of one look."""
PERIODS_MAX = 50
"""Periods of a subscription that are closed at once: one that starts in the past may have many."""
AGAIN = timedelta(seconds=10)
"""After which one that could not be closed is looked at again."""
HORIZON = timedelta(days=35)
"""How long an event_id is remembered at least: so long clients are expected to send again."""
NEVER = datetime(9999, 1, 1, tzinfo=UTC)
log = logging.getLogger(__name__)

CLOSED = Counter("console_invoices_closed_total", "Invoices stored")
FAILED = Counter("console_invoicing_failures_total", "Subscriptions that could not be closed")
WAITING = Gauge("console_invoicing_due", "Subscriptions with something to close, at the last look")

CountedUntil = Callable[[str], datetime | None]
"""By account, the moment before which everything received is counted; None: not known now."""


class Invoicing:
    """Closes what is over, of every account, until it is cancelled."""

    def __init__(
        self, settings: Settings, catalog: Catalog, bills: Bills, counted_until: CountedUntil
    ) -> None:
        self._grace = timedelta(seconds=settings.invoice_grace_s)
        self._every_s = settings.invoice_every_s
        self._catalog = catalog
        self._bills = bills
        self._counted_until = counted_until
        self._ending = False

    async def run(self) -> None:
        """Look for ever, at once again while there is more than one look takes."""
        while True:
            try:
                more = await in_thread(self.close_due, datetime.now(UTC))
            except (Rejection, ClickHouseError) as error:
                log.warning("invoices wait: %s", error)
                more = False
            except Exception:
                FAILED.inc()
                log.exception("invoices wait")
                more = False
            if not more:
                await asyncio.sleep(self._every_s)

    def end(self) -> None:
        """Close no more than the subscription that is being closed."""
        self._ending = True

    def close_due(self, now: datetime) -> bool:
        """Close what is over by now; whether there may be more. Raises CatalogUnavailable.

        A subscription that can't be closed now, as the store is away, the pipeline is behind or its
        terms are at fault, is looked at again in a while and holds up no other.
        """
        with self._catalog.reading() as session:
            rows = invoices.due(session, now - self._grace, SUBSCRIPTIONS_MAX)
        WAITING.set(len(rows))
        more = False
        for row in rows:
            if self._ending:
                return False
            try:
                done = self._close(row, now)
            except Exception:
                FAILED.inc()
                log.exception("subscription %s is not invoiced", row.id)
                done = False
            if not done:
                with self._catalog.writing(ACTOR) as writing:
                    invoices.wait(writing, row, now - self._grace + AGAIN)
            more |= done
        return more

    def _close(self, row: SubscriptionRow, now: datetime) -> bool:
        """Close a subscription's next periods, and note when there will be more.

        False: something is over, but not all that came in time is counted.
        """
        subscription = subscriptions.as_subscription(row)
        counted = self._counted_until(subscription.account)
        if counted is None:
            return False
        bound = min(now, counted) - self._grace
        with self._catalog.reading() as session:
            last = invoices.last_of(session, row.id)
        begun = subscription.start if last is None else last.period_end
        over = _over(subscription, begun, bound)
        following = _due_after(subscription, over[-1].end if over else begun, bound)
        if not over and following <= now - self._grace:
            return False
        computed: list[Invoice] = []
        sold_by: list[Basis] = []
        if over:
            computed = self._bills.of(subscription, over)
            sold_by = [one.basis for one in computed]
        elif last is not None and (span := _behind(subscription, begun, bound)) is not None:
            computed = self._bills.after_the_last(subscription, span)
        sequence = 0 if last is None else last.sequence
        closed = [_closed(invoice, self._bills.late_counts(invoice)) for invoice in computed]
        with self._catalog.writing(ACTOR) as writing:
            current = writing.session.get_one(SubscriptionRow, row.id)
            latest = invoices.last_sequence(writing.session, row.id)
            session = writing.session
            terms = self._bills.bases(session, subscription, over)
            if (current.version, latest) != (row.version, sequence) or terms != sold_by:
                return True  # changed or closed meanwhile: what was computed may not be so any more
            for number, one in enumerate(closed, start=sequence + 1):
                invoices.store(writing, current, number, one)
            invoices.wait(writing, current, following)
        CLOSED.inc(len(closed))
        return True


def _over(subscription: Subscription, begun: datetime, bound: datetime) -> list[Period]:
    """The next periods that end by `bound`, of those that begin at `begun` or later."""
    following = periods(subscription, until=bound, since=begun)
    return list(islice(takewhile(lambda period: period.end <= bound, following), PERIODS_MAX))


def _behind(subscription: Subscription, begun: datetime, bound: datetime) -> Period | None:
    """Once no period is left: from the last invoice to the last boundary where one would end.

    There usage that came late after the last period is billed.
    """
    if subscription.end is None or begun < subscription.end:
        return None
    whole = _going_on(subscription, bound)
    if whole is None or whole.whole_start <= begun:
        return None
    return msgspec.structs.replace(whole, start=begun, end=whole.whole_start)


def _due_after(subscription: Subscription, begun: datetime, bound: datetime) -> datetime:
    """When the next period ends; after the last one, when usage that came late is looked for next.

    However late it comes, it is billed: no look is the last. While an event_id is remembered for
    sure, it is looked for where periods would end, as before; beyond, at the first such boundary
    after the time since the end has doubled, as nobody sends old usage for ever. A change of the
    subscription has it looked for at once.
    """
    following = next(periods(subscription, until=NEVER, since=begun), None)
    if following is not None:
        return following.end
    if begun == subscription.start or subscription.end is None:
        return NEVER  # it ended before it began: nothing was billed that could be adjusted
    since_end = bound - subscription.end
    pause = since_end if since_end > HORIZON else timedelta(0)
    whole = _going_on(subscription, max(begun, bound + pause))
    return NEVER if whole is None else whole.whole_end


def _going_on(subscription: Subscription, at: datetime) -> Period | None:
    """The period of a moment, had nobody ended the subscription."""
    end = subscription.end
    begun = tuple(phase for phase in subscription.phases if end is None or phase.start < end)
    return period_at(msgspec.structs.replace(subscription, end=None, phases=begun), at)


def _closed(invoice: Invoice, late: list[int]) -> Closed:
    period = invoice.basis.period
    billed = {line.feature_id: line.price_id for line in invoice.lines}
    return Closed(period.start, period.end, invoice.total, stored(invoice).decode(), late, billed)
