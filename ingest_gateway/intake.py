"""From a request's body to the record that keeps it, or to every fault in it. Pure.

The record's value is the body as it was sent, so that nothing is lost or rounded on the way; what
the gateway adds (account, moment, ids) goes into headers. Only where an event names its customer
by `customer_id` alone is the external id written into it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from msgspec import Raw
from ulid import ULID

import schemas.arrow  # noqa: F401
from ingest_gateway.errors import NotInCatalog
from schemas import topics
from schemas.catalog import Feature
from schemas.errors import Fault, InvalidRequest, shown
from schemas.event import Event, Flaw, Unreadable, read, texts
from schemas.ids import event_id_at
from schemas.limits import EVENTS_MAX


class Names(Protocol):
    """What intake asks of the catalog; `catalog.snapshot.Snapshot` is one."""

    version: int

    def feature_at(self, account: str, event_name: str, version: int) -> Feature | None: ...

    def customer_status(self, account: str, external_id: str, version: int) -> str: ...

    def external_id_of(self, account: str, customer_id: str) -> str | None: ...


class Taken(msgspec.Struct, frozen=True):
    """A request that may go into the log: its record and what the answer says.

    count     How many events it holds.
    event_id  Of the first one.
    """

    value: bytes
    headers: list[tuple[str, bytes]]
    count: int
    event_id: str


class Edge(msgspec.Struct, frozen=True):
    """What the edge knows about a request besides its body.

    account   Whose key it came with.
    now_ms    The moment of receipt.
    strict    Whether names and customers have to be in the catalog.
    new_id    Makes a ULID: event number i without an id gets this plus i.
    """

    account: str
    now_ms: int
    strict: bool
    new_id: Callable[[], str] = lambda: str(ULID())


def take(body: bytes, *, bulk: bool, edge: Edge, names: Names) -> Taken:
    """Check a body, one event or a bulk, and make it a record.

    Raises InvalidRequest naming every bad event (the first hundred), or NotInCatalog when the only
    thing wrong is what the catalog doesn't know.
    """
    try:
        reading = read(body, now_ms=edge.now_ms, single=not bulk, bulk=bulk)
    except Unreadable as unreadable:
        if unreadable.flaw.code == "too_many_events":
            raise _too_many() from None
        raise _refusal([unreadable.flaw], bulk) from None
    events, flaws = reading.events, reading.flaws
    if not events:
        raise InvalidRequest.at("/events", "empty", "Empty events array")
    if len(events) > EVENTS_MAX:
        raise _too_many()
    if flaws:
        raise _refusal(flaws, bulk)
    unnamed = False
    unresolved = False
    for event in events:
        if event.event_id is None:  # type: ignore[union-attr]  # without flaws, all are there
            unnamed = True
        if event.external_customer_id is None:  # type: ignore[union-attr]
            unresolved = True
    known: Sequence[Event] = events  # type: ignore[assignment]
    if unresolved:
        body = _resolved(body, known, bulk, edge.account, names)
    if edge.strict:
        _require_known(known, bulk, edge.account, names)
    headers = [
        (topics.HEADER_ACCOUNT, edge.account.encode()),
        (topics.HEADER_RECEIVED_AT, b"%d" % edge.now_ms),
    ]
    event_id = known[0].event_id
    if unnamed:
        first_id = edge.new_id()
        headers.append((topics.HEADER_FIRST_ID, first_id.encode()))
        event_id = event_id or event_id_at(first_id, 0)
    return Taken(body, headers, len(known), str(event_id))


def _too_many() -> InvalidRequest:
    detail = f"More than {EVENTS_MAX} events in a single request"
    return InvalidRequest.at("/events", "too_many_events", detail)


_SHORT_TEXTS = {"invalid_timestamp": "Invalid timestamp format"}
"""What `error` says where the documents have a text of their own; `detail` says more."""


def _refusal(flaws: Sequence[Flaw], bulk: bool) -> InvalidRequest:
    first = flaws[0]
    return _rejection(InvalidRequest, _SHORT_TEXTS.get(first.code, first.detail), flaws, bulk)


def _rejection(
    kind: type[InvalidRequest], error: str, flaws: Sequence[Flaw], bulk: bool
) -> InvalidRequest:
    faults = [Fault(flaw.pointer(bulk), flaw.code, _detail(flaw, bulk)) for flaw in flaws]
    cure = _cure(error, flaws[0], bulk, len(flaws))
    return kind(error, cure=cure, errors=faults, details={"count": len(flaws)})


def _detail(flaw: Flaw, bulk: bool) -> str:
    """What is wrong, and in a bulk with which event."""
    return (
        f"events[{flaw.index}]: {flaw.detail}" if bulk and flaw.index is not None else flaw.detail
    )


def _cure(error: str, first: Flaw, bulk: bool, count: int) -> str:
    """Where the first fault is, how many more there are, and that no event was taken."""
    cure = [] if first.detail == error else [first.detail]
    if bulk and first.index is not None:
        cure.append(f"in events[{first.index}]")
        cure.append(f"{count - 1} more in `errors`" if count > 1 else "no event was accepted")
    return ", ".join(cure)


def _require_known(events: Sequence[Event], bulk: bool, account: str, names: Names) -> None:
    """In strict mode: every event's name has an active feature, every customer exists."""
    version = names.version
    flaws: list[Flaw] = []
    for index, event in enumerate(events):
        feature = names.feature_at(account, event.event_name, version)
        if feature is None or not feature.active:
            detail = f"Event name {shown(event.event_name, 255)} not found"
            flaws.append(Flaw(index, "event_name", "unknown_event_name", detail))
        customer = event.external_customer_id
        if customer and names.customer_status(account, customer, version) == "unknown":
            detail = f"Customer with external_customer_id {shown(customer, 255)} not found"
            flaws.append(Flaw(index, "external_customer_id", "unknown_customer", detail))
    if flaws:
        raise _rejection(NotInCatalog, flaws[0].detail, flaws, bulk)


def _resolved(
    body: bytes, events: Sequence[Event], bulk: bool, account: str, names: Names
) -> bytes:
    """The body with the external id in each event that only had ours; the events get it too."""
    elements = texts(body)
    flaws: list[Flaw] = []
    for index, event in enumerate(events):
        if event.external_customer_id is not None:
            continue
        external_id = names.external_id_of(account, event.customer_id or "")
        if external_id is None:
            detail = f"Customer with customer_id {shown(event.customer_id, 255)} not found"
            flaws.append(Flaw(index, "customer_id", "unknown_customer_id", detail))
            continue
        event.external_customer_id = external_id
        fields = _fields.decode(elements[index])
        fields["external_customer_id"] = Raw(msgspec.json.encode(external_id))
        elements[index] = msgspec.json.encode(fields)
    if flaws:
        raise _rejection(NotInCatalog, flaws[0].detail, flaws, bulk)
    return b'{"events":[' + b",".join(elements) + b"]}" if bulk else elements[0]


_fields = msgspec.json.Decoder(dict[str, Raw])
