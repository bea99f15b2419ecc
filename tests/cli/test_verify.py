"""What `tallylog verify` prints, and how it ends, where it could not look at everything."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from clickhouse_connect.driver import Client
from rich.console import Console

from cli.report import Report
from cli.verify import run
from console.conservation import Gaps
from tests.verification.conftest import client as client  # a store with blocks
from verification import ledger
from verification.checks import Found

Verify = Callable[..., tuple[int, str, str]]
NOWHERE = "127.0.0.1:9"


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> Verify:
    """Runs it, without a broker; says its status, and what went to both of its outputs."""
    monkeypatch.setattr("cli.verify.LOOK_S", 0.5)
    monkeypatch.setattr(ledger, "MENDED_S", 0.1)

    def verify(
        store_url: str, *, repair: bool = False, as_json: bool = True
    ) -> tuple[int, str, str]:
        monkeypatch.setenv("TALLYLOG_KAFKA", NOWHERE)
        monkeypatch.setenv("TALLYLOG_CLICKHOUSE_URL", store_url)
        out, err = [Console(file=io.StringIO(), width=200) for _ in range(2)]
        status = run(repair=repair, sample=0, as_json=as_json, out=out, err=err)
        texts = [each.file.getvalue() for each in (out, err) if isinstance(each.file, io.StringIO)]
        return status, texts[0], texts[1]

    return verify


def report(**changed: Any) -> Report:
    return Report(Found(1, [], [], []), Gaps(0, {"events": 0}, 0), None)._replace(**changed)


def test_what_is_not_known_is_neither_whole_nor_wrong() -> None:
    unknown = report(gaps=None, trouble="away")
    wrong = unknown._replace(found=Found(1, [], [ledger.Flaw("block_twice", 0, 0, "")], []))
    lost = report(gaps=Gaps(0, {"events": None, "resent": 2}, 0), trouble="events: away")
    assert [(each.whole, each.status) for each in (report(), unknown, wrong, lost)] == [
        (True, 0), (None, 2), (False, 1), (False, 1),
    ]  # fmt: skip


@pytest.mark.clickhouse
def test_without_the_log_a_whole_store_is_not_called_whole(
    client: Client, store_url: str, verify: Verify
) -> None:
    status, out, _ = verify(store_url)
    found = json.loads(out)
    assert (status, found["whole"], found["conservation"]) == (2, None, None)
    assert found["trouble"]
    status, out, _ = verify(store_url, as_json=False)
    assert status == 2
    assert "not known" in out and "yes" in out


@pytest.mark.clickhouse
def test_what_is_wrong_is_wrong_without_the_log_too(
    client: Client, store_url: str, verify: Verify
) -> None:
    client.command("TRUNCATE TABLE usage_states")
    status, out, _ = verify(store_url)
    found = json.loads(out)
    assert (status, found["whole"]) == (1, False)
    assert {each["kind"] for each in found["ledger"]} == {"states_behind"}
    status, out, _ = verify(store_url, as_json=False)
    assert status == 1
    assert "block partition 0: states_behind: the states lack blocks 0 to 3" in out
    assert "--repair" in out
    status, out, _ = verify(store_url, repair=True)
    found = json.loads(out)
    assert (status, found["whole"], found["ledger"], found["repaired"]) == (2, None, [], 2)


@pytest.mark.clickhouse
def test_what_could_not_be_repaired_is_told_with_what_was_found(
    client: Client, store_url: str, verify: Verify
) -> None:
    client.command("DELETE FROM events WHERE block_partition = 1 AND block_offset = 2")
    status, out, _ = verify(store_url, repair=True)
    found = json.loads(out)
    assert (status, found["whole"], found["repaired"]) == (1, False, 0)
    assert "blocks 2 to 2 are not stored" in found["unrepaired"]
    assert found["states"] and found["ledger"]
    _, out, _ = verify(store_url, repair=True, as_json=False)
    assert "Not repaired: rows are missing" in out


def test_a_store_that_is_away_is_said(verify: Verify) -> None:
    status, out, _ = verify("http://127.0.0.1:9/tallylog")
    found = json.loads(out)
    assert (status, found["whole"], found["events"], found["states"]) == (2, None, 0, [])
    assert found["trouble"]
    status, out, err = verify("http://127.0.0.1:9/tallylog", as_json=False)
    assert (status, out) == (2, "")
    assert "Could not verify" in err
