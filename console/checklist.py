"""The checklist for an event that never came, or would not count. Pure.

Its lines are those of the product's own debugging checklist, in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches

from catalog.matching import Match, matcher
from schemas.catalog import Feature, Scope
from schemas.debugging import Check
from schemas.errors import shown
from schemas.event import Event, Unreadable, read
from schemas.verdict import CURES, Verdict

NEAR_NAMES = 3


@dataclass(frozen=True)
class KeySeen:
    """An API key of the account, as the checklist speaks of it."""

    name: str
    scopes: frozenset[Scope]
    expires_at: datetime | None
    revoked_at: datetime | None

    def trouble(self, now: datetime) -> str | None:
        """Why no event can be sent with it; None when one can."""
        if self.revoked_at is not None:
            return f"{shown(self.name)} was revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return f"{shown(self.name)} expired at {_moment(self.expires_at)}"
        if Scope.INGEST not in self.scopes:
            return f"{shown(self.name)} lacks the scope 'ingest'"
        return None


@dataclass(frozen=True)
class Facts:
    """What is known about an event and its account.

    body           The event as it was, or would be, sent; None without a hint.
    features       The account's, archived ones too.
    customer       Its status: active, archived or unknown; None without a hint.
    keys           The account's API keys.
    last_received  The account's newest event of the last day: when and over which topic.
    billing        Why no subscription bills it; "" when one does; None when it isn't known.
    """

    body: bytes | None
    now: datetime
    features: Sequence[Feature] = ()
    customer: str | None = None
    keys: Sequence[KeySeen] = ()
    last_received: tuple[datetime, str] | None = None
    billing: str | None = None


@dataclass(frozen=True)
class Told:
    """What an event's body says, as far as it can be read."""

    event: Event | None = None
    properties: bytes = b""
    flaws: tuple[str, ...] = ()


def told(body: bytes | None, now: datetime) -> Told:
    """Read an event as POST /v1/events would."""
    if body is None:
        return Told()
    try:
        reading = read(body, now_ms=int(now.timestamp() * 1000), single=True)
    except Unreadable as unreadable:
        return Told(flaws=(unreadable.flaw.detail,))
    if reading.flaws:
        return Told(flaws=tuple(flaw.detail for flaw in reading.flaws))
    event = reading.events[0]
    return Told(event, bytes(event.properties) if event else b"")


def checklist(facts: Facts, event_name: str | None, customer: str | None) -> list[Check]:
    """The lines of the checklist, each with what was found."""
    said = told(facts.body, facts.now)
    of_name = [each for each in facts.features if each.event_name == event_name]
    active = next((each for each in of_name if each.active), None)
    return [
        _feature(event_name, of_name, active),
        _name(event_name, facts.features, of_name),
        _customer(customer, facts.customer),
        _key(facts),
        _endpoint(facts),
        _fields(facts, said),
        _property(active, said),
        _subscription(facts),
    ]


def _check(check: str, question: str, passed: bool | None, detail: str) -> Check:
    return {"check": check, "question": question, "passed": passed, "detail": detail}


def _feature(name: str | None, of_name: list[Feature], active: Feature | None) -> Check:
    line = "feature", "Feature exists and is active"
    if name is None:
        return _check(*line, None, "say which event_name it has")
    if active is not None:
        return _check(*line, True, f"feature {shown(active.id)} is active")
    if of_name:
        detail = f"feature {shown(of_name[-1].id)} is archived: {CURES[Verdict.FEATURE_ARCHIVED]}"
        return _check(*line, False, detail)
    detail = f"Event name {shown(name, 255)} not found: {CURES[Verdict.UNKNOWN_EVENT_NAME]}"
    return _check(*line, False, detail)


def _name(name: str | None, features: Sequence[Feature], of_name: list[Feature]) -> Check:
    line = "event_name", "Event Name matches exactly (case-sensitive)"
    if name is None:
        return _check(*line, None, "say which event_name it has")
    if of_name:
        return _check(*line, True, f"a feature has the event name {shown(name, 255)}")
    near = near_names(name, [each.event_name for each in features])
    if not near:
        return _check(*line, False, f"no feature has an event name like {shown(name, 255)}")
    names = " or ".join(shown(each, 255) for each in near)
    return _check(*line, False, f"{shown(name, 255)} is no feature's event name: is it {names}?")


def near_names(name: str, names: Sequence[str]) -> list[str]:
    """Which of some names are nearly this one: in another case first, then in other letters."""
    others = sorted(set(names) - {name})
    same = [each for each in others if each.casefold() == name.casefold()]
    folded = {each.casefold(): each for each in others}
    close = [folded[each] for each in get_close_matches(name.casefold(), folded, NEAR_NAMES)]
    return list(dict.fromkeys(same + close))[:NEAR_NAMES]


def _customer(customer: str | None, status: str | None) -> Check:
    line = "customer", "External Customer ID exists"
    if customer is None or status is None:
        return _check(*line, None, "say which external_customer_id it has")
    if status == "active":
        return _check(*line, True, f"customer {shown(customer, 255)} exists")
    if status == "archived":
        detail = f"customer {shown(customer, 255)} is archived: PUT it with a status of published"
        return _check(*line, False, detail)
    detail = f"Customer with external_customer_id {shown(customer, 255)} not found: create it"
    return _check(*line, False, detail)


def _key(facts: Facts) -> Check:
    line = "api_key", "API key is valid and has proper permissions"
    troubles = [each.trouble(facts.now) for each in facts.keys]
    wrong = "; ".join(each for each in troubles if each is not None)
    good = troubles.count(None)
    if not good:
        detail = f"no key of this account can send events: {wrong or 'it has none'}: make one"
        return _check(*line, False, detail)
    detail = f"{good} of {len(troubles)} keys can send events"
    return _check(*line, True, f"{detail}; {wrong}" if wrong else detail)


def _endpoint(facts: Facts) -> Check:
    line = "endpoint", "Events are being transmitted to the correct endpoint"
    if facts.last_received is None:
        detail = (
            "nothing was received in the last 24 hours: send to POST /v1/events, "
            "POST /v1/events/bulk or the Kafka topic of this account, and look for 202"
        )
        return _check(*line, None, detail)
    at, topic = facts.last_received
    return _check(*line, True, f"the newest event came at {_moment(at)} over {topic}")


def _fields(facts: Facts, said: Told) -> Check:
    line = "required_fields", "Required fields are present in event payload"
    if facts.body is None:
        return _check(*line, None, "send the event to POST /v1/events/debug")
    if said.flaws:
        return _check(*line, False, "; ".join(said.flaws))
    return _check(*line, True, "every required field is there")


def _property(feature: Feature | None, said: Told) -> Check:
    line = "aggregation_field", "Aggregation field exists in event properties (if required)"
    if feature is None:
        return _check(*line, None, "there is no active feature to ask")
    if feature.field is None and not feature.filters:
        return _check(*line, True, f"{feature.aggregation} needs no property")
    if said.event is None:
        needs = f"{feature.aggregation} reads the property {shown(feature.field)}"
        return _check(*line, None, f"{needs}: send the event to POST /v1/events/debug")
    matches = matcher(feature).match([said.properties])
    match = matches if isinstance(matches, Match) else matches[0]
    if match.verdict is Verdict.COUNTED:
        warnings = f", with the warning {', '.join(match.warnings)}" if match.warnings else ""
        return _check(*line, True, f"it would be counted{warnings}")
    return _check(*line, False, f"{match.detail}: {CURES[match.verdict]}")


def _subscription(facts: Facts) -> Check:
    line = "subscription", "Customer has an active subscription with the feature"
    if facts.billing is None:
        return _check(*line, None, "there is no customer or no feature to ask about")
    if facts.billing:
        return _check(*line, False, facts.billing)
    return _check(*line, True, "a subscription bills it")


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
