"""Whose usage a request asks for, over which range, cut into which windows."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session
from starlette.requests import Request

from billing.windows import WINDOWS_MAX, Span, TooManyWindows, to_ms, windows
from catalog import customers
from catalog.tables import CustomerRow
from console.calls import look
from schemas.customers import CustomerSearch
from schemas.errors import InvalidRequest, shown
from schemas.usage import Range

DEFAULT_RANGE = timedelta(days=7)


class Asked(NamedTuple):
    """A range as it is read: `[start, end)` in ms since 1970.

    customer     External id; None for all customers together.
    customer_id  Ours, where somebody created the customer.
    zone         Where windows and buckets lie.
    spans        The windows; none where none are asked for.
    """

    customer: str | None
    customer_id: str | None
    zone: ZoneInfo
    start: int
    end: int
    spans: list[Span]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The whole, and each window."""
        return [(self.start, self.end), *((span.start, span.end) for span in self.spans)]


async def asked(request: Request, wish: Range) -> Asked:
    """What a request asks for, with its customer's zone; one that nobody created yet is in UTC.

    Raises InvalidRequest (400), NotFound (404) for a customer_id.
    """
    external_id, customer_id, timezone = await look(request, _whose, wish)
    zone = ZoneInfo(wish.timezone or timezone or "UTC")
    until = wish.end_time or datetime.now(UTC)
    start, end = to_ms(wish.start_time or until - DEFAULT_RANGE), to_ms(until)
    if not 0 <= start < end:
        detail = "start_time has to be at least a millisecond before end_time, and not before 1970"
        raise InvalidRequest.at("/start_time", "out_of_range", detail)
    return Asked(external_id, customer_id, zone, start, end, _windows(wish, start, end, zone))


def _windows(wish: Range, start: int, end: int, zone: ZoneInfo) -> list[Span]:
    if wish.window_size is None:
        return []
    try:
        return windows(start, end, wish.window_size, zone, wish.billing_anchor)
    except TooManyWindows:
        detail = f"more than {WINDOWS_MAX} windows: use a longer window_size or a shorter range"
        raise InvalidRequest.at("/window_size", "out_of_range", detail) from None


def _whose(
    session: Session, account: str, wish: Range
) -> tuple[str | None, str | None, str | None]:
    """The customer's external id, our id, and the zone, as far as they are known."""
    external_id = wish.external_customer_id
    customer: CustomerRow | None = None
    if wish.customer_id is not None:
        customer = customers.get(session, account, wish.customer_id)
        if external_id not in (None, customer.external_id):
            detail = f"customer_id {shown(wish.customer_id)} is another customer: send one of both"
            raise InvalidRequest.at("/customer_id", "not_allowed", detail)
    elif external_id is not None:
        page = CustomerSearch(external_id=external_id, status="all")
        customer = next(iter(customers.search(session, account, page).items), None)
    if customer is None:
        return external_id, None, None
    return customer.external_id, customer.id, customer.timezone
