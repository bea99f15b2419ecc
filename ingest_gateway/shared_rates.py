"""Requests counted in Redis, by all gateways together.

The counting is that of `catalog.rates`, as a script of the library `limits` that runs in Redis.
"""

import asyncio
import logging
import time
from typing import Any

from limits.aio.storage import RedisStorage
from limits.errors import StorageError
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from catalog.rates import WINDOW_S, Minutes, Standing
from ingest_gateway import metrics

PATIENCE_S = 0.25
"""How long Redis may take to connect, and to answer."""

AGAIN_S = 1.0
"""How long Redis is left alone after it failed; then one request tries it."""

CONNECTIONS = 32
log = logging.getLogger(__name__)


class SharedMinutes:
    """Counts in Redis; where it is away, in the process's own minutes, and says so."""

    def __init__(self, url: str) -> None:
        self._pool = ConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            socket_connect_timeout=PATIENCE_S,
            socket_timeout=PATIENCE_S,
            retry=Retry(NoBackoff(), 0),
        )
        options: dict[str, Any] = {"connection_pool": self._pool}
        self._redis = RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="tallylog",
            **options,
        )
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._away = False
        self._again = 0.0

    async def hit(self, what: str, limit: int, *, otherwise: Minutes) -> Standing | None:
        """Count one, and None; or the standing that has no room for it."""
        async with self._room:
            if self._may_ask():
                try:
                    full = await self._hit(what, limit)
                except StorageError as error:
                    self._lost(error)
                else:
                    self._found()
                    return full
        metrics.counted_alone.inc()
        return otherwise.hit(what, limit)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.disconnect()

    async def _hit(self, what: str, limit: int) -> Standing | None:
        """Count one in Redis. Raises StorageError."""
        if await self._redis.acquire_sliding_window_entry(what, limit, WINDOW_S):
            return None
        previous, previous_s, current, current_s = await self._redis.get_sliding_window(
            what, WINDOW_S
        )
        return Standing(previous, current, current_s - WINDOW_S if current else previous_s)

    def _may_ask(self) -> bool:
        """Whether Redis is there, or it is time to see whether it is back: for one request."""
        now = time.monotonic()
        if now < self._again:
            return False
        if self._away:
            self._again = now + AGAIN_S
        return True

    def _lost(self, error: StorageError) -> None:
        self._again = time.monotonic() + AGAIN_S
        if not self._away:
            self._away = True
            log.warning("Redis is away, this process counts requests alone: %s", error)

    def _found(self) -> None:
        self._again = 0.0
        if self._away:
            self._away = False
            log.info("Redis is back: requests are counted together again")
