"""Readiness tells the truth: what is away is named, and the status is the one of that."""

from pathlib import Path

import pytest

from console.settings import Settings
from tests.console.conftest import Connect


async def test_a_console_without_a_store_is_alive_but_not_ready(connect: Connect) -> None:
    client = connect(None)
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    told = answer.json()
    assert (told["status"], told["catalog"]) == ("unavailable", None)
    assert told["store"] == "The store is unavailable"


async def test_the_status_needs_a_key_and_names_what_is_away(
    connect: Connect, api_key: str
) -> None:
    assert (await connect(None).get("/v1/system/status")).status_code == 401
    answer = await connect(api_key).get("/v1/system/status")
    assert answer.status_code == 200
    assert answer.json()["status"] == "unavailable"


class TestWithAStore:
    """The store is there, the log is not."""

    pytestmark = pytest.mark.clickhouse

    @pytest.fixture
    def settings(self, tmp_path: Path, store_url: str) -> Settings:
        return Settings(data_dir=tmp_path, kafka="127.0.0.1:9", clickhouse_url=store_url)

    async def test_without_the_log_it_answers_but_says_so(self, connect: Connect) -> None:
        answer = await connect(None).get("/readyz")
        assert answer.status_code == 200
        told = answer.json()
        assert (told["status"], told["store"], told["catalog"]) == ("degraded", None, None)
        assert told["log"]
