"""How many requests a key may send in a minute, and counting them.

Each gateway process counts alone, or all together in Redis where its URL is set. While Redis is
away, requests are counted alone: nothing waits for it, and ingestion goes on.
"""

from catalog.rates import Minutes, Standing
from ingest_gateway.settings import Settings
from ingest_gateway.shared_rates import SharedMinutes
from schemas.catalog import ApiKey
from schemas.errors import RateExceeded


class Rates:
    """The requests of every key, single and bulk apart. `admit` is all that a request needs."""

    def __init__(self, settings: Settings) -> None:
        self._limits = (
            settings.gateway_requests_per_minute,
            settings.gateway_bulk_requests_per_minute,
        )
        self._alone = Minutes()
        url = settings.gateway_limits_url
        self._together = SharedMinutes(url) if url else None

    async def admit(self, key: ApiKey, *, bulk: bool) -> None:
        """Count a request of a key. Raises RateExceeded when its limit has no room for it."""
        limit = key.bulk_requests_per_minute if bulk else key.requests_per_minute
        if limit is None:
            limit = self._limits[bulk]
        if limit == 0:
            return
        what = key.id + "/bulk" if bulk else key.id
        if self._together is None:
            full = self._alone.hit(what, limit)
        else:
            full = await self._together.hit(what, limit, otherwise=self._alone)
        if full is not None:
            raise _refusal(limit, full, bulk=bulk)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._together is not None:
            await self._together.close()


def _refusal(limit: int, full: Standing, *, bulk: bool) -> RateExceeded:
    kind, cure = "single", "or send up to 1000 events in one request to /v1/events/bulk"
    if bulk:
        kind, cure = "bulk", "or send more events in each request, up to 1000"
    return RateExceeded(
        "Rate limit exceeded", policy=kind, limit=limit, wait_s=full.wait_s(limit), cure=cure
    )
