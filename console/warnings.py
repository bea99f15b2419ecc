"""The warnings beside events' verdicts: those that were stored, and the one that is found anew."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy.orm import Session

from billing.windows import to_datetime
from catalog.unbilled import Use, unbilled
from schemas.verdict import NO_ACTIVE_SUBSCRIPTION, Verdict


class Warned(Protocol):
    """What a row needs for its warnings to be told."""

    @property
    def customer(self) -> str: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def verdict(self) -> str: ...
    @property
    def warnings(self) -> str: ...
    @property
    def feature_id(self) -> str: ...


def warnings_of(session: Session, account: str, rows: Sequence[Warned]) -> list[list[str]]:
    """The warnings of each row, as they stand now.

    Whether a subscription bills a counted event isn't stored: one may be backdated or cancelled.
    """
    told = [row.warnings.split(",") if row.warnings else [] for row in rows]
    counted = [place for place, row in enumerate(rows) if row.verdict == Verdict.COUNTED]
    uses = [
        Use(rows[place].customer, rows[place].feature_id, to_datetime(rows[place].timestamp))
        for place in counted
    ]
    for place, missing in zip(counted, unbilled(session, account, uses), strict=True):
        if missing:
            told[place].append(NO_ACTIVE_SUBSCRIPTION)
    return told
