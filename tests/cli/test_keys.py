"""`tallylog keys`, on a catalog of its own."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from catalog import keys
from catalog.bootstrap import bootstrap
from catalog.database import Catalog
from catalog.tables import ApiKeyRow
from cli.local_key import local_key
from cli.main import app
from schemas.keys import ApiKeyUpdate
from schemas.settings import Places


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("TALLYLOG_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("TALLYLOG_CATALOG_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    places = Places()
    bootstrap(places.catalog)
    return places


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def stored(places: Places, key: str) -> ApiKeyRow:
    catalog = Catalog(places.catalog)
    with catalog.reading() as session:
        row = keys.find(session, key)
    catalog.close()
    assert row is not None
    return row


def test_a_key_is_made_shown_once_changed_and_revoked(places: Places) -> None:
    made = run("create", "ci", "--scope", "ingest", "--requests-per-minute", "5000", "--strict")
    key_id, told = made.strip().splitlines()
    key = told.removeprefix("API key, shown once: ")
    row = stored(places, key)
    assert (row.id, row.scopes, row.strict) == (key_id, ["ingest"], True)
    assert (row.requests_per_minute, row.bulk_requests_per_minute) == (5000, None)
    listed = run("list")
    assert key_id in listed and "5000" in listed and "default" in listed and key not in listed

    change = ("change", key_id, "--bulk-requests-per-minute", "0", "--no-strict")
    assert "any" in run(*change, "--requests-per-minute", "default")
    row = stored(places, key)
    assert (row.requests_per_minute, row.bulk_requests_per_minute, row.strict) == (None, 0, False)
    assert row.name == "ci"

    run("revoke", key_id)
    assert stored(places, key).revoked_at is not None
    assert key_id not in run("list")


def test_what_is_wrong_is_said_and_is_status_1(places: Places) -> None:
    wrong = run("create", "ci", "--requests-per-minute", "many", status=1)
    assert "requests_per_minute" in wrong and "whole number from 0" in wrong
    assert "not found" in run("change", "secret_x", status=1)
    assert "not found" in run("create", "ci", "--account", "nobody", status=1)


def test_the_local_stacks_own_key_has_no_limit_unless_one_was_set(places: Places) -> None:
    key, told = local_key(places)
    assert told == "no rate limit"
    row = stored(places, key)
    assert (row.requests_per_minute, row.bulk_requests_per_minute) == (0, 0)

    catalog = Catalog(places.catalog)
    with catalog.writing("test") as writing:
        wish = {"requests_per_minute": None, "bulk_requests_per_minute": 7}
        keys.update(writing, row.account, row.id, ApiKeyUpdate.model_validate(wish))
    catalog.close()
    told = "rate limits of its own: any single, 7 bulk requests/min"
    assert local_key(places) == (key, told)
    row = stored(places, key)
    assert (row.requests_per_minute, row.bulk_requests_per_minute) == (0, 7)
