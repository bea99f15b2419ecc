"""The live stream of verdicts: what falls is seen once, by its own account, as long as wanted."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest

from local_stack.ports import free_ports
from tests.e2e.running import Tallylog, client, until

STREAM = "/v1/events/stream"


@pytest.fixture(scope="module")
def account(tallylog: Tallylog) -> Iterator[Tallylog]:
    """An account of its own: its stream holds what these tests send."""
    with tallylog.as_account(f"streams-{uuid4().hex[:8]}") as own:
        yield own


class Listener:
    """A client of the stream, on a thread of its own."""

    def __init__(self, account: Tallylog, last: str | None = None, **params: Any) -> None:
        self.seen: list[dict[str, Any]] = []
        self.last = last
        self.status: int | None = None
        self.ended = threading.Event()
        self._stop = threading.Event()
        self._account = account
        self._params = params
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        headers = {"Last-Event-ID": self.last} if self.last else {}
        account = self._account
        with (
            client(account.base_url, account.api_key) as http,
            contextlib.suppress(httpx.HTTPError),
            http.stream("GET", STREAM, params=self._params, headers=headers, timeout=60) as answer,
        ):
            self.status = answer.status_code
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    self.last = line[4:]
                elif line.startswith("data: "):
                    self.seen.append(json.loads(line[6:]))
                if self._stop.is_set():
                    break
        self.ended.set()

    def __enter__(self) -> "Listener":
        self._thread.start()
        until(lambda: self.status is not None, True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def ids(self) -> list[str]:
        return [each["id"] for each in self.seen]


def send(account: Tallylog, *ids: str, **changed: Any) -> None:
    event = {"event_name": "streamed", "external_customer_id": "c", "properties": {"n": 1.50}}
    body = {"events": [event | {"event_id": each} | changed for each in ids]}
    assert account.http.post("/v1/events/bulk", json=body).status_code == 202


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def saw(listener: Listener, wanted: list[str]) -> None:
    until(lambda: sorted(listener.ids()), sorted(wanted))


def test_what_falls_is_seen_once_and_a_client_that_comes_back_misses_nothing(
    account: Tallylog,
) -> None:
    send(account, "before")
    until(lambda: account.verdicts("streamed"), {"unknown_event_name": 1})
    with Listener(account) as first:
        send(account, *names("a", 40))
        saw(first, names("a", 40))
    assert first.seen[0]["verdict"] == "unknown_event_name"
    assert first.seen[0]["properties"] == {"n": 1.5}
    send(account, *names("b", 250))
    until(lambda: account.verdicts("streamed"), {"unknown_event_name": 291})
    with Listener(account, first.last) as second:
        saw(second, names("b", 250))
        send(account, "c")
        saw(second, [*names("b", 250), "c"])


def test_a_client_that_breaks_off_in_the_middle_goes_on_right_there(account: Tallylog) -> None:
    with Listener(account) as first:
        send(account, *names("d", 60))
        saw(first, names("d", 60))
    start = first.last
    lines: list[str] = []
    answer = account.http.get("/v1/events", params={"page_size": 1})
    assert answer.status_code == 200
    send(account, *names("e", 60))
    until(lambda: account.http.get("/v1/events/e-59").json()["status"], "failed")
    seen: list[str] = []
    last = start
    while len(seen) < 60:
        headers = {"Last-Event-ID": last or ""}
        with account.http.stream("GET", STREAM, headers=headers) as stream:
            for line in stream.iter_lines():
                lines.append(line)
                if line.startswith("id: "):
                    last = line[4:]
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:])["id"])
                    if len(seen) % 7 == 0 or len(seen) == 60:
                        break
    assert sorted(seen) == sorted(names("e", 60))


def test_filters_narrow_the_stream(account: Tallylog) -> None:
    account.create_feature("streamed.counted")
    with (
        Listener(account, verdict="counted,duplicate") as by_verdict,
        Listener(account, event_name="streamed.other") as by_name,
        Listener(account, external_customer_id="d", source="s") as by_customer,
        Listener(account, warning="no_active_subscription") as by_warning,
    ):
        name = uuid4().hex
        send(account, f"{name}-1", f"{name}-1", event_name="streamed.counted")
        send(account, f"{name}-2", event_name="streamed.other")
        send(account, f"{name}-3", external_customer_id="d", source="s")
        send(account, f"{name}-4", external_customer_id="d")
        saw(by_verdict, [f"{name}-1", f"{name}-1"])
        saw(by_name, [f"{name}-2"])
        saw(by_customer, [f"{name}-3"])
        saw(by_warning, [f"{name}-1"])
    assert sorted(each["verdict"] for each in by_verdict.seen) == ["counted", "duplicate"]


def test_no_stream_shows_another_accounts_events(account: Tallylog, tallylog: Tallylog) -> None:
    with Listener(tallylog) as theirs, Listener(account) as ours:
        send(account, "secret")
        saw(ours, ["secret"])
        time.sleep(1)
        assert "secret" not in theirs.ids()


def test_a_stream_too_many_is_429_until_one_is_closed(tallylog: Tallylog) -> None:
    with contextlib.ExitStack() as stack:
        account = stack.enter_context(tallylog.as_account(f"many-{uuid4().hex[:8]}"))
        listeners = [stack.enter_context(Listener(account)) for _ in range(10)]
        assert {each.status for each in listeners} == {200}
        refused = account.http.get(STREAM)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "5"
        assert "close one" in refused.json()["message"]
        listeners[0].__exit__()
        send(account, "wake")

        def comes_in() -> bool:
            with account.http.stream("GET", STREAM) as answer:
                return answer.status_code == 200

        until(comes_in, True)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"headers": {"Last-Event-ID": "nonsense"}}, "invalid_id"),
        ({"params": {"verdict": "fine"}}, "unknown_value"),
        ({"params": {"colour": "red"}}, "unknown_field"),
    ],
)
def test_a_bad_question_is_400(account: Tallylog, how: dict[str, Any], code: str) -> None:
    answer = account.http.get(STREAM, **how)
    assert answer.status_code == 400
    assert [each["code"] for each in answer.json()["errors"]] == [code]


def test_a_revoked_key_ends_its_stream_though_nothing_falls(account: Tallylog) -> None:
    made = account.http.post("/v1/secrets/api/keys", json={"name": "short"}).json()
    with Listener(replace(account, api_key=made["api_key"])) as listener:
        answer = account.http.delete(f"/v1/secrets/api/keys/{made['secret']['id']}")
        assert answer.status_code == 204
        assert listener.ended.wait(5)
        send(account, "after")
    assert listener.ids() == []


def test_streams_end_when_the_server_stops(tallylog: Tallylog) -> None:
    [port] = free_ports(1)
    env = os.environ | {
        "TALLYLOG_DATA_DIR": tallylog.data_dir,
        "TALLYLOG_KAFKA": tallylog.kafka,
        "TALLYLOG_CLICKHOUSE_URL": tallylog.clickhouse_url,
        "TALLYLOG_CONSOLE_PORT": str(port),
    }
    server = subprocess.Popen([sys.executable, "-m", "cli.main", "console"], env=env)
    try:
        own = replace(tallylog, base_url=f"http://127.0.0.1:{port}")
        until(lambda: _answers(own), True)
        listener = Listener(own).__enter__()
        stopped = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait(15) == -signal.SIGTERM
        assert time.monotonic() - stopped < 10
        assert listener.ended.wait(1)
    finally:
        server.kill()
        server.wait()


def _answers(own: Tallylog) -> bool:
    try:
        return httpx.get(f"{own.base_url}/metrics", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
