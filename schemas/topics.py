"""The topics and their record headers: what gateway, console and packer agree on."""

GATEWAY_EVENTS = "gateway-events"
"""Written by the gateway alone; one request is one record, its value the request's JSON text."""

NATIVE_PREFIX = "events."
"""`events.<account>`: written by producers; the account is the topic's."""

RESENT = "resent"
"""Written by the console alone: stored events that go through the log again."""

EVENT_BLOCKS = "event-blocks"
"""Written by the packer alone: partition = first byte of the claim key modulo partitions."""

PACKER_GROUP = "tallylog-packer"
COUNTER_GROUP = "tallylog-counter"

# Headers of a record in GATEWAY_EVENTS, as ASCII.
HEADER_ACCOUNT = "account"
HEADER_RECEIVED_AT = "received-at"
"""Milliseconds since 1970: `ingested_at`, and the timestamp of events that have none."""
HEADER_FIRST_ID = "first-id"
"""A ULID: event number i without an id is `event_` + this plus i (absent: every event has one)."""


def counter_group(epoch: int) -> str:
    """The consumer group of the counters of a layout."""
    return COUNTER_GROUP if epoch == 0 else f"{COUNTER_GROUP}.{epoch}"


def block_topic(epoch: int) -> str:
    """The topic of blocks of a layout: a new partition count or hash is a new epoch."""
    return EVENT_BLOCKS if epoch == 0 else f"{EVENT_BLOCKS}.{epoch}"
