"""The code of the product's page "Sending Events", run against a local base URL."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.running import Tallylog, until

SNIPPETS = Path(__file__).parent / "snippets"
GO_MAIN = "\nfunc main() {\n\tif err := sendEvent(); err != nil {\n\t\tpanic(err)\n\t}\n}\n"
PHP = ["php", "-d", "variables_order=EGPCS"]  # so that $_ENV is filled
RETRY_CALL = """
console.log(await sendEventWithRetry({
  event_name: "model.usage", external_customer_id: "cust-test-customer", properties: { credits: 2 },
}));
"""


@pytest.fixture
def producer(tallylog: Tallylog) -> Iterator[Tallylog]:
    """A new account that has the features of the page."""
    with tallylog.as_account(f"snippets-{uuid4().hex[:8]}") as account:
        account.create_feature("model.usage", "SUM", "credits")
        account.create_feature("api.calls")
        yield account


def run(producer: Tallylog, program: list[str], file: str, folder: Path, more: str = "") -> str:
    """Run a snippet, with `more` behind it, such as a call of what it defines; what it printed."""
    for needed in (program[0], "curl" if file.endswith(".sh") else program[0]):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not here")
    text = (SNIPPETS / file).read_text()
    assert "api.cloud.flexprice.io" in text
    text = text.replace("https://api.cloud.flexprice.io", producer.base_url)
    script = folder / (f"{file}.mjs" if "await" in more else file)
    script.write_text(text.replace("<your_api_key>", producer.api_key) + more)
    shim = folder / "node_modules" / "node-fetch"
    shim.mkdir(parents=True)
    (shim / "index.js").write_text("module.exports = fetch;\n")  # part of node since 18
    env = os.environ | {
        "FLEXPRICE_API_KEY": producer.api_key,
        "no_proxy": "*",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }
    done = subprocess.run(
        [*program, str(script)], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def credits_of(producer: Tallylog, customer: str) -> Decimal:
    """Usage of model.usage by a customer, as SUM of credits."""
    body = {
        "event_name": "model.usage",
        "external_customer_id": customer,
        "aggregation_type": "SUM",
        "property_name": "credits",
    }
    return Decimal(str(producer.http.post("/v1/events/usage", json=body).json()["value"]))


@pytest.mark.parametrize(
    ("program", "file", "call"),
    [
        pytest.param(["bash", "-e"], "single.sh", "", id="curl"),
        pytest.param([sys.executable], "single.py", "\nsend_event()\n", id="python"),
        pytest.param(["node"], "single.js", "\nsendEvent();\n", id="javascript"),
        pytest.param(["node"], "retry.js", RETRY_CALL, id="javascript-with-retry"),
        pytest.param(["go", "run"], "single.go", GO_MAIN, id="go"),
        pytest.param(PHP, "single.php", "\nsendEvent();\n", id="php"),
    ],
)
def test_a_single_event_is_accepted_and_counted(
    producer: Tallylog, program: list[str], file: str, call: str, tmp_path: Path
) -> None:
    printed = run(producer, program, file, tmp_path, call)
    assert "202" in printed or "Event accepted for processing" in printed
    until(lambda: credits_of(producer, "cust-test-customer"), Decimal(2))


def test_a_bulk_request_from_curl_counts_for_each_customer(
    producer: Tallylog, tmp_path: Path
) -> None:
    printed = run(producer, ["bash", "-e"], "bulk.sh", tmp_path)
    assert json.loads(printed) == {"message": "Events accepted for processing"}
    until(lambda: credits_of(producer, "cust-test-customer"), Decimal(2))
    until(lambda: credits_of(producer, "cust-another-customer"), Decimal(5))


def test_a_bulk_request_from_javascript_counts(producer: Tallylog, tmp_path: Path) -> None:
    run(producer, ["node"], "bulk.js", tmp_path, "\nconsole.log(await response.json());\n")
    until(lambda: producer.verdicts("api.calls"), {"counted": 2})


PAYLOADS = (
    "count.json", "sum.json", "complete.json", "api_calls.json", "storage_usage.json",
    "user_login.json", "metadata.json",
)  # fmt: skip


def test_every_payload_of_the_page_is_accepted_as_it_is(producer: Tallylog) -> None:
    for file in PAYLOADS:
        answer = producer.http.post("/v1/events", content=(SNIPPETS / file).read_bytes())
        assert answer.status_code == 202, f"{file}: {answer.text}"
        assert answer.json()["message"] == "Event accepted for processing"
    until(lambda: producer.verdicts("model.usage"), {"counted": 3})
    until(lambda: producer.verdicts("api.calls"), {"counted": 2})
    for name in ("storage.usage", "user.login"):
        until(lambda name=name: producer.verdicts(name), {"unknown_event_name": 1})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("file", "event"),
    [
        ("missing_field.json", {"external_customer_id": "cust_123"}),
        (
            "unknown_event_name.json",
            {"event_name": "unknown.event", "external_customer_id": "cust_123"},
        ),
        (
            "unknown_customer.json",
            {"event_name": "api.calls", "external_customer_id": "invalid_id"},
        ),
    ],
)
def test_the_errors_of_the_page_have_its_texts(
    producer: Tallylog, file: str, event: dict[str, str]
) -> None:
    answer = producer.http.post("/v1/events", json=event, headers={"Prefer": "handling=strict"})
    assert answer.status_code == 400
    assert answer.json()["error"] == json.loads((SNIPPETS / file).read_text())["error"]
