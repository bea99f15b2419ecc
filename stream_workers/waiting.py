"""Waiting for what a worker can't start without: one that ended would be slower to be back."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

AGAIN_S = 0.5
T = TypeVar("T")
log = logging.getLogger(__name__)


def wait_for(name: str, ask: Callable[[], T], *away: type[Exception]) -> T:
    """What `ask` returns, as soon as it raises none of `away` any more."""
    said = False
    while True:
        try:
            return ask()
        except away as error:
            if not said:
                log.warning("waiting for %s: %s", name, error)
                said = True
            time.sleep(AGAIN_S)
