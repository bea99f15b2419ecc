"""/v1/events/query, GET /v1/events and /v1/events/verdicts over stored rows."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import httpx
import pytest
from clickhouse_connect.driver import Client

import console.event_pages
from console.settings import Settings
from schemas.event_queries import EventVerdict
from schemas.verdict import Verdict
from tests.console.stored import NOON, Row, store_rows

pytestmark = pytest.mark.clickhouse
RANGE = {"start_time": "2025-08-01T00:00:00Z", "end_time": "2025-09-01T00:00:00Z"}


@pytest.fixture
def settings(settings_with_store: Settings) -> Settings:
    return settings_with_store


def event(number: int, **changed: Any) -> Row:
    """Event number so many, that many minutes after noon."""
    return {
        "event_id": f"e{number}",
        "timestamp": NOON + timedelta(minutes=number),
        "ingested_at": NOON + timedelta(minutes=number),
        **changed,
    }


async def ask(client: httpx.AsyncClient, **wish: Any) -> dict[str, Any]:
    answer = await client.post("/v1/events/query", json=RANGE | wish)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(page: dict[str, Any]) -> list[str]:
    return [each["id"] for each in page["events"]]


async def test_an_event_is_shown_as_it_was_sent_with_its_verdict(
    client: httpx.AsyncClient, store: Client
) -> None:
    made = await client.post("/v1/customers", json={"external_id": "cust_1"})
    sent = '{"credits": 12345678901234567890.000000000000000001, "model": "gpt-4"}'
    store_rows(
        store,
        1,
        event(1, properties=sent, source="api", warnings="numeric_string,rounded", feature_id="f"),
    )
    answer = await client.post("/v1/events/query", json=RANGE)
    assert '"properties":' + sent in answer.text
    page = answer.json()
    [shown] = page["events"]
    assert shown.pop("properties")["model"] == "gpt-4"
    assert shown == {
        "id": "e1",
        "external_customer_id": "cust_1",
        "customer_id": made.json()["id"],
        "event_name": "model.usage",
        "timestamp": "2025-08-22T12:01:00Z",
        "ingested_at": "2025-08-22T12:01:00Z",
        "source": "api",
        "verdict": "counted",
        "detail": "",
        "warnings": ["numeric_string", "rounded", "no_active_subscription"],
        "feature_id": "f",
    }
    assert (page["has_more"], page["total_count"], page["offset"]) == (False, 1, 0)


async def test_every_filter_narrows_the_list(client: httpx.AsyncClient, store: Client) -> None:
    other = await client.post("/v1/customers", json={"external_id": "cust_2"})
    store_rows(
        store,
        1,
        event(1),
        event(2, external_customer_id="cust_2"),
        event(3, event_name="api.calls", verdict="filtered"),
        event(4, source="worker"),
        event(5, account="other"),
        {"verdict": "dead_letter", "event_name": "", "external_customer_id": ""},
    )
    assert ids(await ask(client)) == ["e4", "e3", "e2", "e1"]
    assert ids(await ask(client, external_customer_id="cust_2")) == ["e2"]
    assert ids(await ask(client, customer_id=other.json()["id"])) == ["e2"]
    assert ids(await ask(client, event_name="api.calls")) == ["e3"]
    assert ids(await ask(client, event_id="e4")) == ["e4"]
    assert ids(await ask(client, source="worker")) == ["e4"]
    assert ids(await ask(client, sources=["worker", ""])) == ["e4", "e3", "e2", "e1"]
    assert ids(await ask(client, verdict=["filtered"])) == ["e3"]
    assert ids(await ask(client, start_time="2025-08-22T12:04:00Z")) == ["e4"]
    assert ids(await ask(client, end_time="2025-08-22T12:02:00Z")) == ["e1"]
    assert ids(await ask(client, order="asc")) == ["e1", "e2", "e3", "e4"]
    assert ids(await ask(client, sort="event_name", order="asc")) == ["e3", "e1", "e2", "e4"]
    assert ids(await ask(client, sort="event_name")) == ["e4", "e2", "e1", "e3"]
    query = RANGE | {"verdict": "filtered,counted", "source": "worker", "page_size": "1"}
    answer = await client.get("/v1/events", params=query)
    assert ids(answer.json()) == ["e4"]


async def test_the_default_range_is_the_last_seven_days_but_an_id_is_found_anywhere(
    client: httpx.AsyncClient, store: Client
) -> None:
    now = datetime.now(UTC)
    store_rows(
        store,
        1,
        event(1, timestamp=now - timedelta(days=8)),
        event(2, timestamp=now - timedelta(days=6)),
        event(3, timestamp=now + timedelta(hours=23)),
    )
    assert ids((await client.get("/v1/events")).json()) == ["e3", "e2"]
    answer = await client.post("/v1/events/query", json={"event_id": "e1"})
    assert ids(answer.json()) == ["e1"]


@pytest.mark.parametrize("sort", ["timestamp", "event_name"])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("short", [0, 20_000])
async def test_pages_list_each_event_once_while_others_come(
    client: httpx.AsyncClient,
    store: Client,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
    order: str,
    short: int,
) -> None:
    """Also those with one time, and those that are sent again between two pages."""
    monkeypatch.setattr(console.event_pages, "SHORT_ROWS", short)
    late = [
        event(n % 7, event_id=f"e{n}", event_name=f"n{n % 3}", verdict="unknown_event_name")
        for n in range(24)
    ]
    store_rows(store, 1, *late)
    seen: list[str] = []
    backwards: list[str] = []
    wish: dict[str, Any] = {"page_size": 7, "sort": sort, "order": order}
    pages = []
    for number in range(20):
        page = await ask(client, **wish)
        pages.append(page)
        seen += ids(page)
        if not page["has_more"]:
            break
        wish["iter_last_key"] = page["iter_last_key"]
        again = late[number] | {
            "verdict": "counted", "superseded_offset": 1, "superseded_index": number,
            "log_offset": 1, "log_index": number,
        }  # fmt: skip
        newer = "2025-08-23T00:00:00Z" if order == "desc" else "2025-08-21T00:00:00Z"
        name = "zz" if order == "desc" else "a"
        new = event(99, timestamp=datetime.fromisoformat(newer), event_id="new", event_name=name)
        store_rows(store, 2 + number, again, new)
    assert sorted(seen) == sorted(f"e{n}" for n in range(24))
    wish = {"page_size": 7, "sort": sort, "order": order}
    wish["iter_first_key"] = pages[-1]["iter_first_key"]
    for _ in range(3):
        page = await ask(client, **wish)
        backwards = ids(page) + backwards
        wish["iter_first_key"] = page["iter_first_key"]
    assert backwards == seen[: len(backwards)]
    assert len(backwards) == 21


async def test_a_sent_again_event_shows_its_last_row_only(
    client: httpx.AsyncClient, store: Client
) -> None:
    store_rows(store, 1, event(1, verdict="unknown_event_name"), event(2, verdict="duplicate"))
    store_rows(store, 2, event(1, superseded_offset=1, superseded_index=0))
    page = await ask(client)
    assert [(each["id"], each["verdict"]) for each in page["events"]] == [
        ("e2", "duplicate"),
        ("e1", "counted"),
    ]
    assert page["total_count"] == 2


PROPERTIES = {
    "e1": '{"region": "EU", "n": 1}',
    "e2": '{"region": "US", "n": 1.0}',
    "e3": '{"region": "EU", "n": "1"}',
    "e4": r'{"regi\u006fn": "E\u0055", "n": 1e0}',
    "e5": '{"region": "EU", "n": "1.0"}',
    "e6": '{"other": "region EU", "n": 10}',
    "e7": '{"flag": true, "n": -0}',
    "e8": "",
}


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"region": ["EU"]}, ["e1", "e3", "e4", "e5"]),
        ({"region": ["EU", "US"], "n": ["1"]}, ["e1", "e2", "e3", "e4"]),
        ({"n": ["1.0"]}, ["e5"]),
        ({"n": ["0"]}, ["e7"]),
        ({"flag": ["true"]}, ["e7"]),
        ({"flag": ["false"]}, []),
        ({"nothing": ["x"]}, []),
    ],
)
@pytest.mark.parametrize("scan_rows", [3, 5_000])
async def test_property_filters_compare_canonical_texts(
    client: httpx.AsyncClient,
    store: Client,
    monkeypatch: pytest.MonkeyPatch,
    filters: dict[str, list[str]],
    wanted: list[str],
    scan_rows: int,
) -> None:
    monkeypatch.setattr(console.event_pages, "SCAN_ROWS", scan_rows)
    rows = [event(n, properties=text) for n, text in enumerate(PROPERTIES.values(), start=1)]
    store_rows(store, 1, *rows)
    page = await ask(client, property_filters=filters, order="asc")
    assert (ids(page), page["total_count"], page["has_more"]) == (wanted, len(wanted), False)


async def test_a_filtered_page_that_takes_too_long_ends_early_and_goes_on(
    client: httpx.AsyncClient, store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.event_pages, "SCAN_ROWS", 2)
    monkeypatch.setattr(console.event_pages, "SCAN_S", -1)
    monkeypatch.setattr(console.event_pages, "COUNTED_TEXTS_MAX", 1)
    texts = ['{"r":"no"}', '{"r":"yes"}']
    store_rows(store, 1, *(event(n, properties=texts[n % 3 == 0]) for n in range(10)))
    wish: dict[str, Any] = {"property_filters": {"r": ["yes", "no way"]}, "order": "asc"}
    monkeypatch.setattr(console.event_pages, "_needles", lambda _: [])
    seen, pages = [], 0
    while True:
        page = await ask(client, **wish)
        assert page["total_count"] is None
        seen += ids(page)
        pages += 1
        if not page["has_more"]:
            break
        wish["iter_last_key"] = page["iter_last_key"]
    assert seen == ["e0", "e3", "e6", "e9"]
    assert pages > 4


async def test_a_query_string_writes_property_filters_in_one_line(
    client: httpx.AsyncClient, store: Client
) -> None:
    rows = [event(n, properties=text) for n, text in enumerate(PROPERTIES.values(), start=1)]
    store_rows(store, 1, *rows)
    params = RANGE | {"property_filters": "region:EU,US;n:1", "order": "asc"}
    answer = await client.get("/v1/events", params=params)
    assert ids(answer.json()) == ["e1", "e2", "e3", "e4"]


@pytest.mark.parametrize(
    ("wish", "pointer", "cure"),
    [
        ({"page_size": 1001}, "/page_size", "from 1 to 1000"),
        ({"offset": 10_001}, "/offset", "from 0 to 10000"),
        ({"iter_last_key": "x"}, "/iter_last_key", "send what the answer before gave"),
        ({"order": "up"}, "/order", "use 'asc' or 'desc'"),
        ({"sort": "price"}, "/sort", "use 'timestamp' or 'event_name'"),
        ({"verdict": ["marker"]}, "/verdict/0", "use 'counted'"),
        ({"property_filters": {"k": []}}, "/property_filters/k", "at least 1"),
        ({"start_time": "2025-10-01T00:00:00Z"}, "/end_time", "after start_time"),
        ({"start_time": "2025-10-01"}, "/start_time", "ISO 8601"),
        ({"nonsense": 1}, "/nonsense", "remove it"),
        ({"customer_id": "cust_9"}, "", ""),
    ],
)
async def test_a_bad_question_is_answered_with_field_and_cure(
    client: httpx.AsyncClient, store: Client, wish: dict[str, Any], pointer: str, cure: str
) -> None:
    answer = await client.post("/v1/events/query", json=RANGE | wish)
    assert answer.status_code == (400 if pointer else 404)
    assert cure in answer.json()["message"]
    assert [each["pointer"] for each in answer.json()["errors"]] == ([pointer] if pointer else [])


async def test_a_query_that_takes_too_long_is_400_with_a_cure(
    client: httpx.AsyncClient, store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.event_pages, "LIMITS", {"max_rows_to_read": 1})
    store_rows(store, 1, *(event(n) for n in range(10)))
    answer = await client.post("/v1/events/query", json=RANGE)
    assert answer.status_code == 400
    assert "ask for a shorter range" in answer.json()["message"]


async def test_verdicts_are_counted_by_window_of_receipt(
    client: httpx.AsyncClient, store: Client
) -> None:
    store_rows(
        store,
        1,
        event(1),
        event(2, verdict="duplicate", timestamp=NOON - timedelta(days=90)),
        event(61, verdict="unknown_event_name"),
        event(62, event_name="", verdict="dead_letter"),
        event(3, account="other"),
        event(4, event_name="api.calls"),
    )
    store_rows(store, 2, event(61, superseded_offset=1, superseded_index=2))
    params = {"start_time": "2025-08-22T12:00:00Z", "end_time": "2025-08-22T15:00:00Z"}
    answer = await client.get("/v1/events/verdicts", params=params | {"window_size": "HOUR"})
    assert answer.status_code == 200, answer.text
    first = {"counted": 2, "duplicate": 1}
    second = {"counted": 1, "dead_letter": 1}
    assert answer.json() == {
        "total_count": 5,
        "verdicts": {"counted": 3, "duplicate": 1, "dead_letter": 1},
        "points": [
            {"timestamp": "2025-08-22T12:00:00Z", "event_count": 3, "verdicts": first},
            {"timestamp": "2025-08-22T13:00:00Z", "event_count": 2, "verdicts": second},
            {"timestamp": "2025-08-22T14:00:00Z", "event_count": 0, "verdicts": {}},
        ],
    }
    answer = await client.get("/v1/events/verdicts", params=params | {"event_name": "api.calls"})
    assert answer.json() == {"total_count": 1, "verdicts": {"counted": 1}, "points": []}
    answer = await client.get(
        "/v1/events/verdicts",
        params=params | {"start_time": "1990-01-01T00:00:00Z", "window_size": "MINUTE"},
    )
    assert answer.status_code == 400
    assert "use a longer window_size" in answer.json()["message"]


def test_the_verdicts_of_events_are_all_but_two() -> None:
    assert set(get_args(EventVerdict)) == set(Verdict) - {Verdict.DEAD_LETTER, Verdict.MARKER}
