"""`tallylog keys`: API keys, made and changed where the catalog is, without a key."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from catalog import accounts, keys
from catalog.database import Catalog, Writing
from catalog.migrations import migrate
from catalog.tables import ApiKeyRow
from schemas.catalog import Scope
from schemas.errors import Rejection
from schemas.keys import ApiKeySearch, ApiKeyUpdate, NewApiKey
from schemas.reading import read
from schemas.requests import PAGE_SIZE_MAX
from schemas.settings import DEFAULT_ACCOUNT, Places

app = typer.Typer(help="API keys: list, create, change, revoke.", no_args_is_help=True)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Account = Annotated[str, typer.Option(help="Whose keys.")]
KeyId = Annotated[str, typer.Argument(help="The key's id, as `tallylog keys list` shows it.")]
Rate = Annotated[
    str | None,
    typer.Option(help='Requests a minute; 0 for any number, "default" for the gateway\'s own.'),
]
Strict = Annotated[
    bool | None, typer.Option(help="Refuse events whose name or customer the catalog lacks.")
]


@app.command("list")
def show(account: Account = DEFAULT_ACCOUNT) -> None:
    """Show an account's keys, the newest first, without the keys themselves."""
    with _catalog() as catalog, catalog.reading() as session:
        rows: list[ApiKeyRow] = []
        while page := keys.search(session, account, _page(len(rows))).items:
            rows += page
        _print(rows)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    account: Account = DEFAULT_ACCOUNT,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; given several times, several.")
    ] = None,
    requests_per_minute: Rate = None,
    bulk_requests_per_minute: Rate = None,
    strict: Strict = None,
    expires_at: Annotated[datetime | None, typer.Option(help="When it ends; UTC.")] = None,
) -> None:
    """Make a key, and print it for the only time."""
    wish: dict[str, Any] = {"name": name, "strict": bool(strict)}
    wish |= _limits(requests_per_minute, bulk_requests_per_minute)
    if scope:
        wish["scopes"] = scope
    if expires_at is not None:
        wish["expires_at"] = expires_at
    with _writing() as writing:
        accounts.get(writing.session, account)
        row, key = keys.create(writing, account, read(NewApiKey, wish))
        out.print(f"{row.id}\nAPI key, shown once: {key}")


@app.command()
def change(
    key_id: KeyId,
    account: Account = DEFAULT_ACCOUNT,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    requests_per_minute: Rate = None,
    bulk_requests_per_minute: Rate = None,
    strict: Strict = None,
) -> None:
    """Change a key's limits, strictness or name; every gateway knows within seconds."""
    wish = _limits(requests_per_minute, bulk_requests_per_minute)
    wish |= {k: v for k, v in (("name", name), ("strict", strict)) if v is not None}
    with _writing() as writing:
        _print([keys.update(writing, account, key_id, read(ApiKeyUpdate, wish))])


@app.command()
def revoke(key_id: KeyId, account: Account = DEFAULT_ACCOUNT) -> None:
    """End a key for good; every service knows within seconds."""
    with _writing() as writing:
        keys.revoke(writing, account, key_id)
    out.print(f"{key_id} is revoked")


def _page(offset: int) -> ApiKeySearch:
    return ApiKeySearch(limit=PAGE_SIZE_MAX, offset=offset)


def _limits(single: str | None, bulk: str | None) -> dict[str, Any]:
    """The limits that were given, as the API's requests have them."""
    given = {"requests_per_minute": single, "bulk_requests_per_minute": bulk}
    return {
        name: None if limit == "default" else limit
        for name, limit in given.items()
        if limit is not None
    }


@contextlib.contextmanager
def _catalog() -> Iterator[Catalog]:
    """The catalog, migrated; a refusal is printed and ends the command with status 1."""
    url = Places().catalog
    migrate(url)
    catalog = Catalog(url)
    try:
        yield catalog
    except Rejection as refusal:
        err.print(f"[red]{refusal.message}")
        raise typer.Exit(1) from None
    finally:
        catalog.close()


@contextlib.contextmanager
def _writing() -> Iterator[Writing]:
    with _catalog() as catalog, catalog.writing("tallylog keys") as writing:
        yield writing


def _print(rows: list[ApiKeyRow]) -> None:
    table = Table("id", "name", "begins with", "scopes", "strict", "single/min", "bulk/min", "ends")
    for row in rows:
        table.add_row(
            row.id,
            row.name,
            row.prefix,
            " ".join(row.scopes),
            "yes" if row.strict else "no",
            _shown(row.requests_per_minute),
            _shown(row.bulk_requests_per_minute),
            "never" if row.expires_at is None else row.expires_at.isoformat(),
        )
    out.print(table)


def _shown(limit: int | None) -> str:
    return "default" if limit is None else "any" if limit == 0 else str(limit)
