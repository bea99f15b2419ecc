"""What a counter's log and the owners of blocks say of inserts that were given up."""

import time
from datetime import UTC, datetime

from stream_workers.store import OWNER_RANDOM_BITS
from tests.storm.doubts import given_up, landed


def test_an_insert_that_was_given_up_has_landed_if_its_rows_are_of_an_earlier_owner() -> None:
    now = round(time.time() * 1000)
    at = datetime.fromtimestamp(now / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
    why = "no answer from ClickHouse: ReadTimeout('')"
    log = "".join(
        f"[{at}] [1] [WARNING] block {block} was not stored: {told} \n"
        for block, told in [("3:30", why), ("0:33", why), ("1:7", why), ("2:1", "Code: 241")]
    )
    doubts = given_up(log)
    assert [(each.block, each.at) for each in doubts] == [
        ((3, 30), now),
        ((0, 33), now),
        ((1, 7), now),
    ]
    before, after = (moment << OWNER_RANDOM_BITS | 5 for moment in (now - 2000, now + 100))
    assert landed(doubts, {(3, 30): before, (0, 33): after, (2, 1): before}) == {(3, 30)}
