"""The first start: tables, an account, a key."""

from datetime import UTC, datetime
from typing import NamedTuple

from catalog import accounts, keys
from catalog.database import Catalog
from catalog.migrations import migrate
from catalog.tables import Account
from schemas.keys import NewAccount, NewApiKey
from schemas.settings import DEFAULT_ACCOUNT


class Bootstrap(NamedTuple):
    """The default account, and its first API key when it was made just now."""

    account: str
    api_key: str | None


def bootstrap(url: str, first_key: NewApiKey | None = None) -> Bootstrap:
    """Make the catalog usable: migrated, with the account `default` and at least one valid key.

    The plain key is returned by the call that made it and by no other; safe to run at any start,
    by several processes at once. `first_key` says what it may do; by default everything.
    """
    migrate(url)
    catalog = Catalog(url)
    try:
        with catalog.writing("bootstrap") as writing:
            if writing.session.get(Account, DEFAULT_ACCOUNT) is None:
                accounts.create(writing, NewAccount(id=DEFAULT_ACCOUNT, name="Default"))
            if keys.any_valid(writing.session, DEFAULT_ACCOUNT, datetime.now(UTC)):
                return Bootstrap(DEFAULT_ACCOUNT, None)
            wish = first_key or NewApiKey(name="First key")
            _, key = keys.create(writing, DEFAULT_ACCOUNT, wish)
            return Bootstrap(DEFAULT_ACCOUNT, key)
    finally:
        catalog.close()
