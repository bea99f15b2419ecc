"""The API key of a data folder: what `tallylog up`, the demo and the benchmarks work with."""

from catalog import keys
from catalog.bootstrap import bootstrap
from catalog.database import Catalog, Writing
from catalog.tables import ApiKeyRow
from cli.whole_file import write_whole
from schemas.keys import ApiKeyUpdate, NewApiKey
from schemas.settings import DEFAULT_ACCOUNT, Places

LOCAL_KEY = NewApiKey(name="Local key", requests_per_minute=0, bulk_requests_per_minute=0)
"""This machine's own: no limit slows down a demo or a benchmark."""


def local_key(places: Places) -> tuple[str, str]:
    """The API key of this data folder, and which limits it has in words.

    Made at the first start, kept in `api_key`, and without limits but for those that were set.
    """
    file = places.data_dir / "api_key"
    made = bootstrap(places.catalog, LOCAL_KEY).api_key
    catalog = Catalog(places.catalog)
    try:
        with catalog.writing("tallylog up") as writing:
            kept = file.read_text().strip() if made is None and file.exists() else made
            row = None if kept is None else keys.find(writing.session, kept)
            if kept is None or row is None:  # nobody can read back what was made elsewhere
                row, kept = keys.create(writing, DEFAULT_ACCOUNT, LOCAL_KEY)
            limits = _without_defaults(writing, row)
    finally:
        catalog.close()
    write_whole(file, kept + "\n", mode=0o600)
    return kept, limits


def _without_defaults(writing: Writing, row: ApiKeyRow) -> str:
    """Take off a key the limits that the gateway gives by default; which ones it has then."""
    limits = {
        "requests_per_minute": row.requests_per_minute,
        "bulk_requests_per_minute": row.bulk_requests_per_minute,
    }
    unset = {name: 0 for name, limit in limits.items() if limit is None}
    keys.update(writing, row.account, row.id, ApiKeyUpdate.model_validate(unset))
    single, bulk = row.requests_per_minute, row.bulk_requests_per_minute
    if not single and not bulk:
        return "no rate limit"
    return f"rate limits of its own: {single or 'any'} single, {bulk or 'any'} bulk requests/min"
