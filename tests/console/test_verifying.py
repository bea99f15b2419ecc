"""The console verifies what is stored all the time, and says what isn't as it should be."""

import asyncio
import logging
import time

import pytest
from clickhouse_connect.driver import Client
from prometheus_client import REGISTRY

from console import verifying
from console.app import running
from console.settings import Settings
from console.store import Store
from console.verifying import Verifying
from tests.verification.conftest import client as client  # a store with blocks
from verification import ledger
from verification.states import Scope

pytestmark = pytest.mark.clickhouse


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "EVERY_S", 0.05)
    monkeypatch.setattr(ledger, "MENDED_S", 0.1)


def measured(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"verification_{name}", labels) or 0


async def looked() -> None:
    """Wait for a look that ends from now on."""
    now, deadline = time.time(), time.monotonic() + 10
    while measured("looked_at_seconds") < now:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_what_differs_is_logged_and_measured_until_it_is_mended(
    client: Client,
    store_url: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking = Verifying(Store(store_url))
    assert looking.look() == ([], [])
    assert measured("differing_states") == 0
    before = measured("differences_total", check="states")
    client.command("DELETE FROM usage_states WHERE feature_id = 'feat_SUM'")
    with caplog.at_level(logging.ERROR):
        found, _ = looking.look()
    assert found
    assert measured("differing_states") == len(found)
    assert "--repair" in caplog.text

    # another sample doesn't hide it
    monkeypatch.setattr(verifying, "sample", lambda *_: Scope.of([("acme", "nobody")]))
    assert looking.look() == (found, [])
    assert measured("differing_states") == len(found)
    assert measured("differences_total", check="states") == before + 2 * len(found)


def test_the_ledger_is_looked_at_too(
    client: Client, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = measured("differences_total", check="ledger")
    client.command("TRUNCATE TABLE usage_states")
    with caplog.at_level(logging.ERROR):
        _, flaws = Verifying(Store(store_url)).look()
    assert {flaw.kind for flaw in flaws} == {"states_behind"}
    assert measured("ledger_flaws") == 2
    assert measured("differences_total", check="ledger") == before + 2
    assert "the states lack blocks 0 to 3" in caplog.text


async def test_the_console_looks_for_as_long_as_it_runs(
    client: Client, store_url: str, settings: Settings
) -> None:
    async with running(settings.model_copy(update={"clickhouse_url": store_url})):
        await looked()
        await looked()


async def test_whatever_happens_it_looks_again(
    client: Client,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = [IndexError("a fault of ours"), TimeoutError("inserts go on"), OSError("away")]
    look = Verifying.look

    def failing(self: Verifying) -> object:
        if faults:
            raise faults.pop(0)
        return look(self)

    monkeypatch.setattr(Verifying, "look", failing)
    task = asyncio.create_task(Verifying(Store(store_url)).run())
    await looked()
    task.cancel()
    for text in ("a fault of ours", "inserts go on", "away"):
        assert text in caplog.text


async def test_a_task_that_failed_keeps_nothing_from_ending(
    client: Client,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_: Verifying) -> None:
        raise RuntimeError("failed long ago")

    monkeypatch.setattr(Verifying, "run", fail)
    async with running(settings) as state:
        await asyncio.sleep(0.05)
        closed = []
        monkeypatch.setattr(state["store"], "close", lambda: closed.append(True))
    assert closed
    assert "failed long ago" in caplog.text
