"""The benchmark of analysts runs: events are accepted and counted beside them, and limits bite."""

import pytest

from benchmarks.analysts import measure


async def test_events_are_counted_beside_hostile_analysts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TALLYLOG_KAFKA_PORT", "TALLYLOG_CLICKHOUSE_PORT"):
        monkeypatch.setenv(name, "0")  # what the benchmark sets is taken back
    found = await measure(rounds=1, seconds=3, per_s=10, count=30)
    assert len(found.without) == len(found.beside) == 1  # all of them were counted, or it raises
    assert found.codes[202] >= 10  # no place for so many of one account
    assert all(0 < value < 30 for each in found.beside for value in each)
