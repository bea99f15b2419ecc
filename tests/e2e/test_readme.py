"""The README's commands, run as they are written there but for ports and the data folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.running import Tallylog, until

README = Path(__file__).parents[2] / "README.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(section: str) -> list[tuple[str, str]]:
    """Language and text of the code blocks under a heading, up to the next of its level."""
    text = README.read_text()
    level = section.partition(" ")[0]
    start = text.index(f"\n{section}\n")
    end = re.compile(rf"^#{{2,{len(level)}}} ", re.MULTILINE).search(text, start + len(section) + 2)
    return FENCE.findall(text[start : end.start() if end else len(text)])


def run(language: str, text: str, tallylog: Tallylog, folder: Path) -> str:
    """Run a block in a process of its own; what it printed."""
    text = text.replace("http://127.0.0.1:8080", tallylog.base_url)
    text = text.replace("127.0.0.1:19092", tallylog.kafka)
    text = text.replace("http://127.0.0.1:18123", tallylog.clickhouse_url.removesuffix("/tallylog"))
    text = text.replace(".tallylog/", f"{folder}/").replace("'default'", f"'{tallylog.account}'")
    text = text.replace("events.default", f"events.{tallylog.account}")
    programs = {"bash": ["bash", "-euo", "pipefail"], "python": [sys.executable]}
    program = programs.get(language, ["node"])
    script = folder / f"block.{'mjs' if language == 'javascript' else language}"
    script.write_text(text)
    (folder / "api_key").write_text(tallylog.api_key)
    env = os.environ | {
        "TALLYLOG_URL": tallylog.base_url,
        "TALLYLOG_API_KEY": tallylog.api_key,
        "no_proxy": "*",
    }
    done = subprocess.run(
        [*program, str(script)], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answered(section: str) -> list[tuple[str, str, str | None]]:
    """The blocks that run, each with the JSON that the page shows after it."""
    found: list[tuple[str, str, str | None]] = []
    for language, text in blocks(section):
        if language == "json":
            found[-1] = (*found[-1][:2], text)
        else:
            found.append((language, text, None))
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_quickstart_counts_what_it_says(tallylog: Tallylog, tmp_path: Path) -> None:
    intro = answered("## Send an event and see it counted")
    feature, event, usage, producer, *_ = intro
    with tallylog.as_account("readme") as tallylog:
        assert json.loads(run(*feature[:2], tallylog, tmp_path))["name"] == "Model usage"
        accepted = json.loads(run(*event[:2], tallylog, tmp_path))
        shown = json.loads(event[2] or "")
        assert accepted.keys() == shown.keys()
        assert accepted["message"] == shown["message"]
        assert re.fullmatch(r"event_[0-9A-Z]{26}", accepted["event_id"])

        def asked() -> object:
            return json.loads(run(*usage[:2], tallylog, tmp_path))

        answer = json.loads(usage[2] or "")
        until(asked, answer)
        for _ in range(2):  # "Run the producer again: still 5"
            run(*producer[:2], tallylog, tmp_path)
        until(asked, answer | {"value": 5})
        until(lambda: tallylog.verdicts("model.usage"), {"counted": 2, "duplicate": 1})
        for language, text in blocks("### From Python and JavaScript"):
            if language == "python" or shutil.which("node"):
                run(language, text, tallylog, tmp_path)
        recent = 12 if shutil.which("node") else 5
        until(asked, answer | {"value": recent})
        meter = tallylog.http.get("/v1/features?event_name=model.usage").json()["items"][0]
        january = {
            "meter_id": meter["meter_id"],
            "external_customer_id": "cust_123",
            "start_time": "2026-01-01T00:00:00Z",
            "end_time": "2026-02-01T00:00:00Z",
        }

        def of_january() -> Decimal:
            usage = tallylog.http.post("/v1/events/usage/meter", json=january).json()
            return Decimal(str(usage["value"]))

        until(of_january, Decimal("4.5"))
        ((language, text),) = blocks("### What became of an event")
        table = run(language, text, tallylog, tmp_path)
        assert table.count("counted") == 5 + (recent == 12)
        assert table.count("duplicate") == 1
        assert "order-4711" in table
        ((language, text, shown),) = answered("## Bill it")
        preview = json.loads(run(language, text, tallylog, tmp_path))
        if recent == 12:
            wanted = json.loads(shown or "")
            (line,), (wanted_line,) = preview.pop("line_items"), wanted.pop("line_items")
            assert (preview | wanted, line | wanted_line) == (preview, line)

        def closed() -> list[str]:
            found = tallylog.http.get("/v1/invoices?order=asc&limit=1").json()["items"]
            return [f"{each['period_start'][:7]}: {each['total']}" for each in found]

        until(closed, ["2026-01: 0.13"])


def test_the_page_names_what_exists() -> None:
    text = README.read_text()
    for folder in re.findall(r"^\| `(\w+)/`", text, re.MULTILINE):
        assert (README.parent / folder).is_dir(), folder
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (README.parent / link).exists(), link
