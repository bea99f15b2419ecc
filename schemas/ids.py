"""Event ids given by Tallylog to events that come without one."""

from functools import lru_cache

from ulid import ULID

EVENT_PREFIX = "event_"


@lru_cache(maxsize=1024)
def _base(first_id: str) -> int:
    return int(ULID.from_str(first_id))


def event_id_at(first_id: str, index: int) -> str:
    """The id of event number `index` of a request whose first id is the ULID `first_id`.

    The gateway answers it and the packer derives it again from the record's header.
    """
    return f"{EVENT_PREFIX}{ULID.from_int((_base(first_id) + index) % (1 << 128))}"


def native_event_id(topic: str, epoch: int, partition: int, offset: int, index: int) -> str:
    """The id of an event that a native producer sent without one: its source position."""
    return f"{topic}-{epoch}-{partition}-{offset}-{index}"
