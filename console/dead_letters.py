"""/v1/events/dead-letters: what could not be read, with its bytes, and its replay after a fix."""

import asyncio
import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from clickhouse_connect.driver import Client
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from billing.windows import to_datetime, to_ms
from catalog import replays
from catalog.follower import Follower
from catalog.listing import Found
from catalog.replays import Replayed, Said
from clickhouse.queries import query
from console.calls import body_as, change, json_answer, look, page_answer, query_as
from console.event_pages import FIRST_MS, LAST_MS, LIMITS
from console.late_events import RECORD_BYTES, RECORD_EVENTS, ROW_BYTES
from console.replaying import Letter, Refused, events_of, text_of, with_customers
from console.resent_log import ACK_TIMEOUT_S, AWAY, ResentLog
from console.routing import Resource, caller, changes, reads
from console.store import Store
from schemas import resent
from schemas.dead_letters import (
    CURES,
    LOST,
    DeadLetter,
    DeadLetterFilter,
    DeadLetterPage,
    DeadLetterQuery,
    ReplayAnswer,
    ReplayRequest,
    ReplayResult,
)
from schemas.errors import NotFound, ServiceUnavailable, shown
from schemas.position import Log
from schemas.resent import Resent

TEXT_BYTES = 500
"""How much of a dead letter's bytes a list shows."""
REPLAY_BYTES_MAX = 16 << 20
"""Of dead letters that one request replays by a filter; a single one may be larger."""
WHOLE = 1 << 40
NOT_REPLAYABLE = (
    "only dead letters are replayed. An event that has a verdict can't be changed: send new usage"
    " under a new event_id; one whose feature came later is counted by itself"
)


class Row(NamedTuple):
    """A row of `dead_letters_found`."""

    id: str
    code: str
    detail: str
    ingested_at: int
    log_topic: str
    log_epoch: int
    log_partition: int
    log_offset: int
    log_index: int
    size: int
    beginning: str
    key: tuple[int, int, int, int, int, str]

    @property
    def bytes(self) -> bytes:
        """Its bytes, or the beginning of them."""
        return base64.b64decode(self.beginning)

    @property
    def letter(self) -> Letter:
        """As replaying takes it, if all its bytes were read."""
        log = Log(self.log_topic, self.log_epoch, self.log_partition)
        return Letter(
            self.id, self.code, self.ingested_at, log, self.log_offset, self.log_index, self.bytes
        )


async def list_dead_letters(request: Request) -> Response:
    """GET /v1/events/dead-letters: a page of them, newest first.

    Raises InvalidRequest (400), ServiceUnavailable (503).
    """
    wish = query_as(DeadLetterQuery, request)
    account, store = caller(request).account, _store(request)
    parameters = _parameters(account, wish, bytes_max=TEXT_BYTES)

    def ask() -> Found[Row]:
        with store.reading() as client:
            text = f"SELECT count() FROM ({query('dead_letters_found')})"  # noqa: S608
            total = int(client.query(text, parameters, settings=LIMITS).result_rows[0][0])
            place = "ORDER BY key DESC LIMIT {limit:UInt64} OFFSET {offset:UInt64}"
            page = {"limit": wish.limit, "offset": wish.offset}
            return Found(_rows(client, place, parameters | page), total)

    found = await asyncio.to_thread(ask)
    known = await _replays(request, [row.id for row in found.items])
    verdicts = await _verdicts(request, known.values())
    items = [_item(row, known.get(row.id), verdicts) for row in found.items]
    return page_answer(Found(items, found.total), wish)


async def get_dead_letter(request: Request) -> Response:
    """GET /v1/events/dead-letters/:id: one dead letter with all its bytes.

    Raises NotFound (404), ServiceUnavailable (503).
    """
    name = request.path_params["id"]
    found = await _by_ids(request, [name])
    if not found:
        raise NotFound(f"Dead letter {shown(name)} not found", cure="take the id from their list")
    known = await _replays(request, [name])
    item = _item(found[0], known.get(name), await _verdicts(request, known.values()))
    return json_answer(item | {"base64": found[0].beginning})


async def replay(request: Request) -> Response:
    """POST /v1/events/dead-letters/replay: send dead letters through the log again. 202.

    Each counts once, whatever is repeated: its first replay fixes what it says and which ids its
    events have. Raises InvalidRequest (400), NotFound (404), ServiceUnavailable (503): then the
    same request can be sent again.
    """
    wish = await body_as(ReplayRequest, request)
    if wish.ids is not None:
        rows = await _by_ids(request, wish.ids)
        missing = set(wish.ids) - {row.id for row in rows}
        if missing:
            text = f"Dead letter {shown(min(missing), 300)} not found"
            raise NotFound(text, cure=NOT_REPLAYABLE, details={"ids": sorted(missing)})
        has_more = False
    else:
        rows, has_more = await _by_filter(request, wish)
    results, events = await _settled(request, wish, rows)
    await _send(request.state.resent_log, events)
    tally = [result["status"] for result in results]
    answer: dict[str, Any] = {
        "sent": tally.count("sent"),
        "counted_before": tally.count("counted_before"),
        "refused": tally.count("refused"),
        "items": results,
        "has_more": has_more,
    }
    return json_answer(answer | ({"after": rows[-1].id} if has_more else {}), 202)


async def _settled(
    request: Request, wish: ReplayRequest, rows: Sequence[Row]
) -> tuple[list[ReplayResult], list[Resent]]:
    """What becomes of each dead letter, and the events to send for those that are sent."""
    account = caller(request).account
    follower: Follower = request.state.follower
    await follower.catch_up()

    def resolve(customer_id: str) -> str | None:
        return follower.snapshot.external_id_of(account, customer_id)

    refused: dict[str, Refused] = {}
    wanted: dict[str, Said] = {}
    for row in rows:
        try:
            content = None if wish.content is None else text_of(wish.content)
            wanted[row.id] = _said(account, row, content, wish.customers, resolve)
        except Refused as refusal:
            refused[row.id] = refusal
    before = await _replays(request, [row.id for row in rows])
    known = {name: each for name, each in before.items() if name not in wanted}
    known |= await change(request, replays.settle, wanted) if wanted else {}
    verdicts = await _verdicts(request, before.values())
    results: list[ReplayResult] = []
    events: list[Resent] = []
    for row in rows:
        said = known[row.id].said if row.id in known else None
        if said is None or (wish.content is not None and _differs(said, wanted.get(row.id))):
            results.append(_refusal(row, refused.get(row.id) or _REPLAYED_OTHERWISE, said))
        elif row.id in before and all(each in verdicts for each in said.event_ids):
            results.append(_result(row, "counted_before", said))
        else:
            events += events_of(account, row.letter, said.content, resolve)
            results.append(_result(row, "sent", said))
    return results, events


_REPLAYED_OTHERWISE = Refused(
    "replayed_before", "it was replayed with other content, and its events can't be changed"
)


def _differs(said: Said, wanted: Said | None) -> bool:
    return wanted is None or wanted.content != said.content


def _said(
    account: str, row: Row, content: str | None, customers: Mapping[str, str], resolve: Any
) -> Said:
    """What a replay would say, checked. Raises Refused."""
    if row.code in LOST:
        raise Refused(row.code, CURES[row.code])
    letter = row.letter
    if content is None:
        content = with_customers(letter, customers)
    events = events_of(account, letter, content, resolve)
    return Said(content, tuple(event.event_id for event in events))


def _refusal(row: Row, refusal: Refused, said: Said | None) -> ReplayResult:
    ids = [] if said is None else list(said.event_ids)
    return {
        "id": row.id, "status": "refused", "event_ids": ids, "code": refusal.code,
        "detail": refusal.detail,
    }  # fmt: skip


def _result(row: Row, status: str, said: Said) -> ReplayResult:
    return {"id": row.id, "status": status, "event_ids": list(said.event_ids)}


async def _send(log: ResentLog, events: Sequence[Resent]) -> None:
    """Write events to the log, and wait for the broker. Raises ServiceUnavailable."""
    try:
        under_way = [await log.append(value) for value in _records(events)]
        async with asyncio.timeout(ACK_TIMEOUT_S):
            await asyncio.gather(*under_way)
    except AWAY as error:
        await log.discard()
        raise ServiceUnavailable(
            "The event log is unavailable", cure="send the same request again: each counts once"
        ) from error


def _records(events: Sequence[Resent]) -> Iterable[bytes]:
    """The events as values of records, within the limits of a record."""
    chosen: list[Resent] = []
    weight = 0
    for event in events:
        heavy = ROW_BYTES + len(event.properties)
        if chosen and (len(chosen) == RECORD_EVENTS or weight + heavy > RECORD_BYTES):
            yield resent.encode(chosen)
            chosen, weight = [], 0
        chosen.append(event)
        weight += heavy
    if chosen:
        yield resent.encode(chosen)


async def _by_ids(request: Request, ids: Sequence[str]) -> list[Row]:
    """Dead letters with all their bytes, in the order of their positions."""
    parameters = _parameters(caller(request).account, DeadLetterFilter(), WHOLE, ids)
    store = _store(request)

    def ask() -> list[Row]:
        with store.reading() as client:
            return _rows(client, "ORDER BY key", parameters)

    return await asyncio.to_thread(ask)


async def _by_filter(request: Request, wish: ReplayRequest) -> tuple[list[Row], bool]:
    """The next dead letters of a filter with all their bytes, and whether there are more."""
    filter = wish.filter or DeadLetterFilter()
    parameters = _parameters(caller(request).account, filter, bytes_max=0)
    place = "ORDER BY key LIMIT {limit:UInt64}"
    parameters["limit"] = wish.limit + 1
    if wish.after is not None:
        after = await _by_ids(request, [wish.after])
        if not after:
            raise NotFound(f"Dead letter {shown(wish.after)} not found", cure="leave `after` out")
        parameters |= dict(zip(("k0", "k1", "k2", "k3", "k4", "k5"), after[0].key, strict=True))
        place = (
            "WHERE key > ({k0:Int64}, {k1:UInt64}, {k2:UInt32}, {k3:UInt16}, {k4:UInt16},"
            f" {{k5:String}}) {place}"
        )
    store = _store(request)

    def ask() -> list[Row]:
        with store.reading() as client:
            return _rows(client, place, parameters)

    found = await asyncio.to_thread(ask)
    chosen: list[str] = []
    weight = 0
    for row in found[: wish.limit]:
        weight += row.size
        if chosen and weight > REPLAY_BYTES_MAX:
            break
        chosen.append(row.id)
    rows = await _by_ids(request, chosen) if chosen else []
    return rows, len(found) > len(chosen)


def _rows(client: Client, place: str, parameters: Mapping[str, Any]) -> list[Row]:
    text = f"SELECT * FROM ({query('dead_letters_found')}) {place}"  # noqa: S608
    found = client.query(text, dict(parameters), settings=LIMITS).result_rows
    return [Row._make((*columns, tuple(key))) for *columns, key in found]


def _parameters(
    account: str, wish: DeadLetterQuery | DeadLetterFilter, bytes_max: int, ids: Sequence[str] = ()
) -> dict[str, Any]:
    def ms(moment: datetime | None, absent: int) -> int:
        return absent if moment is None else min(max(to_ms(moment), FIRST_MS), LAST_MS)

    return {
        "account": account,
        "ids": list(ids),
        "code": wish.code or "",
        "topic": wish.topic or "",
        "start": ms(wish.start_time, FIRST_MS),
        "end": ms(wish.end_time, LAST_MS),
        "bytes_max": bytes_max,
    }


async def _replays(request: Request, ids: Sequence[str]) -> dict[str, Replayed]:
    """The replays of those of these dead letters that were replayed."""

    def find(session: Session, account: str) -> dict[str, Replayed]:
        return replays.find(session, account, ids)

    return await look(request, find) if ids else {}


async def _verdicts(request: Request, replayed: Iterable[Replayed]) -> dict[str, str]:
    """The verdict of each event of some replays that is stored, by its id."""
    ids = sorted({event_id for each in replayed for event_id in each.said.event_ids})
    if not ids:
        return {}
    account, store = caller(request).account, _store(request)

    def ask() -> dict[str, str]:
        with store.reading() as client:
            parameters = {"account": account, "ids": ids}
            rows = client.query(query("verdicts_of_ids"), parameters, settings=LIMITS).result_rows
        return {event_id: verdict for event_id, verdict in reversed(rows)}

    return await asyncio.to_thread(ask)


def _item(row: Row, replayed: Replayed | None, verdicts: Mapping[str, str]) -> dict[str, Any]:
    """A dead letter as people see it."""
    return {
        "id": row.id,
        "code": row.code,
        "detail": row.detail,
        "cure": CURES.get(row.code, "Replay it with `content` that can be read."),
        "received_at": to_datetime(row.ingested_at),
        "position": {
            "topic": row.log_topic,
            "epoch": row.log_epoch,
            "partition": row.log_partition,
            "offset": row.log_offset,
            "index": row.log_index,
        },
        "bytes": row.size,
        "text": _text(row.bytes),
        "replay": None if replayed is None else _replay(replayed, verdicts),
    }


def _replay(replayed: Replayed, verdicts: Mapping[str, str]) -> dict[str, Any]:
    return {
        "at": replayed.at,
        "actor": replayed.actor,
        "corrected": replayed.said.content is not None,
        "events": [
            {"id": each, **({"verdict": verdicts[each]} if each in verdicts else {})}
            for each in replayed.said.event_ids
        ],
    }


def _text(content: bytes) -> str | None:
    """Bytes as text; a letter that is cut in two at the end is left out. None: not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        cut = error.reason == "unexpected end of data" and error.start >= len(content) - 3
        return content[: error.start].decode() if cut and error.start else None


def _store(request: Request) -> Store:
    store: Store = request.state.store
    return store


def routes() -> list[BaseRoute]:
    """The routes of dead letters."""
    return [
        Resource(
            "/v1/events/dead-letters",
            GET=reads(list_dead_letters, asks=DeadLetterQuery, gives=DeadLetterPage),
        ),
        Resource(
            "/v1/events/dead-letters/replay",
            POST=changes(replay, takes=ReplayRequest, gives=ReplayAnswer, status=202),
        ),
        Resource("/v1/events/dead-letters/{id}", GET=reads(get_dead_letter, gives=DeadLetter)),
    ]
