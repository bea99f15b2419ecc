"""POST /v1/events and /v1/events/bulk: read, check, append, answer. The shell around `intake`."""

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import lru_cache

import msgspec
from starlette.types import Receive, Scope, Send

from catalog.follower import Follower
from ingest_gateway import metrics
from ingest_gateway.body import Budget, ClientGone, Hold, read_body
from ingest_gateway.errors import NotInCatalog
from ingest_gateway.intake import Edge, Taken, take
from ingest_gateway.log import Log
from ingest_gateway.rates import Rates
from ingest_gateway.settings import Settings
from schemas.catalog import Scope as KeyScope
from schemas.errors import InternalError, Rejection, answer

REFRESH_S = 0.1
"""How often what the catalog doesn't know may make us look again."""

RawHeaders = list[tuple[bytes, bytes]]
log = logging.getLogger(__name__)


class Gateway:
    """What the endpoints work with: the catalog as it is known here, the log, the room there is."""

    def __init__(self, settings: Settings, follower: Follower, events: Log) -> None:
        self.settings = settings
        self.follower = follower
        self.log = events
        self.rates = Rates(settings)
        self.budget = Budget(settings.gateway_bytes_max)
        self._refreshed_at = 0.0
        self._next_refresh: asyncio.Task[None] | None = None

    async def refreshed(self) -> None:
        """Wait for a refresh of the catalog that begins after this call, shared with all who wait.

        Raises CatalogUnavailable.
        """
        if self._next_refresh is None:
            self._next_refresh = asyncio.create_task(self._refresh_soon())
        await asyncio.shield(self._next_refresh)

    async def _refresh_soon(self) -> None:
        await asyncio.sleep(self._refreshed_at + REFRESH_S - time.monotonic())
        self._next_refresh = None  # who asks from here on needs a later one
        self._refreshed_at = time.monotonic()
        await self.follower.catch_up()


class Endpoint:
    """One route as a bare ASGI application: Request and Response objects would show in the rate."""

    def __init__(self, path: str, *, bulk: bool) -> None:
        self._path = path
        self._bulk = bulk
        self._count_202 = metrics.requests.labels(path, "202")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; write nothing for a client that left before its body was whole."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            status, body, answer_headers = await self._accept(scope, headers, receive)
        except Rejection as rejection:
            status, body, answer_headers = self._refuse(rejection, headers)
        except ClientGone:
            metrics.requests.labels(self._path, "499").inc()
            return
        except Exception:
            log.exception("POST %s failed", self._path)
            fault = InternalError("Internal server error", cure="send the request again")
            status, body, answer_headers = self._refuse(fault, headers)
        await send({"type": "http.response.start", "status": status, "headers": answer_headers})
        await send({"type": "http.response.body", "body": body})

    async def _accept(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive
    ) -> tuple[int, bytes, RawHeaders]:
        """202 once the broker has acknowledged the record. Raises Rejection, ClientGone."""
        gateway: Gateway = scope["state"]["gateway"]
        peer = scope["client"][0] if scope["client"] else ""
        key_text = headers.get(b"x-api-key")
        key = await gateway.follower.authenticate(
            None if key_text is None else key_text.decode("latin-1"), KeyScope.INGEST, peer=peer
        )
        await gateway.rates.admit(key, bulk=self._bulk)
        preferred = b"prefer" in headers and _prefers_strict(_every(b"prefer", scope["headers"]))
        hold = Hold(gateway.budget, key.account)
        try:
            body = await read_body(receive, headers, hold)
            now_ms = time.time_ns() // 1_000_000
            edge = Edge(key.account, now_ms, key.strict or preferred)
            taken = await self._taken(gateway, body, edge)
            await gateway.log.append(taken.value, taken.headers, now_ms)
        finally:
            hold.give_back()
        metrics.accepted.inc(taken.count)
        self._count_202.inc()
        body = _ACCEPTED_BULK if self._bulk else _accepted(taken.event_id)
        answer_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        if preferred:
            answer_headers.append((b"preference-applied", b"handling=strict"))
        return 202, body, answer_headers

    async def _taken(self, gateway: Gateway, body: bytes, edge: Edge) -> Taken:
        """The request, checked; what the catalog doesn't know yet is looked up in it once more."""
        names = gateway.follower.snapshot
        try:
            return take(body, bulk=self._bulk, edge=edge, names=names)
        except NotInCatalog:
            await gateway.refreshed()
            return take(body, bulk=self._bulk, edge=edge, names=names)

    def _refuse(
        self, rejection: Rejection, headers: Mapping[bytes, bytes]
    ) -> tuple[int, bytes, RawHeaders]:
        metrics.requests.labels(self._path, str(rejection.status)).inc()
        metrics.refused.labels(rejection.code).inc()
        refusal = answer(rejection, headers.get(b"accept", b"").decode("latin-1"))
        raw = [(b"content-length", b"%d" % len(refusal.body))]
        for name, value in refusal.headers.items():
            raw.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        return refusal.status, refusal.body, raw


_ACCEPTED_BULK = b'{"message":"Events accepted for processing"}'


def _accepted(event_id: str) -> bytes:
    return msgspec.json.encode({"event_id": event_id, "message": "Event accepted for processing"})


def _every(name: bytes, headers: RawHeaders) -> bytes:
    """A header that may come several times, as the one that it is the same as."""
    return b",".join(value for each, value in headers if each == name)


@lru_cache(maxsize=64)
def _prefers_strict(preference: bytes) -> bool:
    """Whether a Prefer header (RFC 7240) asks for strict handling: the first word on it counts."""
    for choice in preference.decode("latin-1").lower().split(","):
        name, _, value = choice.partition(";")[0].partition("=")
        if name.strip() == "handling":
            return value.strip().strip('"') == "strict"
    return False
