"""Accounts: whose everything is."""

from sqlalchemy import select
from sqlalchemy.orm import Session
from ulid import ULID

from catalog.database import Writing
from catalog.tables import Account
from schemas.errors import AlreadyExists, NotFound, shown
from schemas.keys import NewAccount


def create(writing: Writing, wish: NewAccount) -> Account:
    """Make an account. Raises AlreadyExists when its id is taken."""
    if wish.id is not None and writing.session.get(Account, wish.id) is not None:
        raise AlreadyExists(f"Account {shown(wish.id)} already exists", cure="choose another id")
    account = Account(
        id=wish.id or f"acc_{ULID()}",
        name=wish.name,
        created_at=writing.at,
        updated_at=writing.at,
        version=0,
    )
    writing.session.add(account)
    writing.record(account.id, account, before=None)
    return account


def get(session: Session, account_id: str) -> Account:
    """The account. Raises NotFound."""
    account = session.get(Account, account_id)
    if account is None:
        raise NotFound(f"Account {shown(account_id)} not found")
    return account


def everyone(session: Session) -> list[Account]:
    """Every account, oldest first."""
    return list(session.scalars(select(Account).order_by(Account.version)))
