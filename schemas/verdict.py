"""What became of an event, and what is worth knowing beside it."""

from enum import StrEnum


class Verdict(StrEnum):
    """One per stored row; the last two are not events."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    UNKNOWN_EVENT_NAME = "unknown_event_name"
    FEATURE_ARCHIVED = "feature_archived"
    FILTERED = "filtered"
    MISSING_PROPERTY = "missing_property"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    DEAD_LETTER = "dead_letter"
    MARKER = "marker"


class Warn(StrEnum):
    """Beside a verdict, comma-separated and in this order."""

    NUMERIC_STRING = "numeric_string"
    ROUNDED = "rounded"
    UNKNOWN_CUSTOMER = "unknown_customer"
    CUSTOMER_ARCHIVED = "customer_archived"
    CONTENT_DIFFERS = "content_differs"


NO_ACTIVE_SUBSCRIPTION = "no_active_subscription"
"""A warning beside them that is never stored: it is found anew whenever an event is shown."""

CURES = {
    Verdict.COUNTED: "Counted.",
    Verdict.DUPLICATE: "An event with this event_id was counted before: "
    "send a new id for new usage.",
    Verdict.UNKNOWN_EVENT_NAME: "No feature has this event name (it is case-sensitive): "
    "create the feature, and the event will be counted.",
    Verdict.FEATURE_ARCHIVED: "The feature of this name is archived: "
    "unarchive it, and the event will be counted.",
    Verdict.FILTERED: "The feature's filters leave this event out.",
    Verdict.MISSING_PROPERTY: "The property that the feature aggregates is missing: "
    "send it under its exact, case-sensitive name.",
    Verdict.WRONG_TYPE: "The property has the wrong type: numeric aggregations need a number.",
    Verdict.OUT_OF_RANGE: "The value or the timestamp is out of range: at most 20 digits before "
    "the point, and at most 24 hours in the future.",
    Verdict.DEAD_LETTER: "The record could not be read: fix it and replay it.",
}
"""What a person can do about each verdict."""
