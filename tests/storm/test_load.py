"""What producers make of answers."""

import pytest

from tests.storm.events import Sent
from tests.storm.journal import Journal
from tests.storm.load import answered


@pytest.mark.parametrize(
    ("status", "retry_after", "outcome", "wrong"),
    [
        (202, "", "acked", False),
        (503, "1", "unknown", False),
        (503, "", "unknown", True),
        (500, "1", "unknown", True),
        (502, "", "unknown", True),
        (400, "", "refused", True),
        (429, "1", "refused", True),
    ],
)
def test_what_is_good_is_taken_or_refused_with_503_and_retry_after(
    status: int, retry_after: str, outcome: str, wrong: bool
) -> None:
    answer = answered(status, retry_after, "why")
    assert (answer.outcome, answer.wrong) == (outcome, wrong)
    journal = Journal()
    journal.note(1, "bulk", Sent([], [], b""), *answer)
    assert journal.wronged == ([f"bulk: {status} why"] if wrong else [])
