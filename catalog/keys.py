"""API keys: made, listed, changed, revoked, and recognised.

A key is `sk_`, 192 random bits and a checksum, all in base 62. The checksum lets a service refuse
a mistyped or made-up key without looking anywhere; only the SHA-256 of the whole is stored, which
is safe without salt or stretching because nobody can guess 192 bits.
"""

import hashlib
import secrets
import string
import zlib
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog import listing
from catalog.database import Writing
from catalog.tables import ApiKeyRow
from schemas.errors import InvalidRequest
from schemas.keys import ApiKeySearch, ApiKeyUpdate, NewApiKey

SECRET_BITS = 192
SECRET_LENGTH = 33
CHECKSUM_LENGTH = 6
SHOWN_LENGTH = 10
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


def new_key() -> str:
    """A new secret key."""
    body = "sk_" + _base62(secrets.randbits(SECRET_BITS), SECRET_LENGTH)
    return body + _checksum(body)


def well_formed(key: str) -> bool:
    """Whether this could be a key of ours: its form and its checksum are right."""
    length = len("sk_") + SECRET_LENGTH + CHECKSUM_LENGTH
    if len(key) != length or not key.startswith("sk_") or not key.isascii():
        return False
    return key[-CHECKSUM_LENGTH:] == _checksum(key[:-CHECKSUM_LENGTH])


def hash_of(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def create(writing: Writing, account: str, wish: NewApiKey) -> tuple[ApiKeyRow, str]:
    """Make a key: what is stored of it, and the key itself, for the only time.

    Raises InvalidRequest when it would have expired already.
    """
    if wish.expires_at is not None and wish.expires_at <= writing.at:
        raise InvalidRequest.at(
            "/expires_at", "out_of_range", "expires_at has to be in the future: or leave it out"
        )
    key = new_key()
    row = ApiKeyRow(
        account=account,
        name=wish.name,
        hash=hash_of(key),
        prefix=key[:SHOWN_LENGTH],
        scopes=sorted(set(wish.scopes)),
        strict=wish.strict,
        requests_per_minute=wish.requests_per_minute,
        bulk_requests_per_minute=wish.bulk_requests_per_minute,
        expires_at=wish.expires_at,
        revoked_at=None,
    )
    return writing.create(row), key


def get(session: Session, account: str, key_id: str) -> ApiKeyRow:
    """What is stored of a key. Raises NotFound."""
    return listing.get(session, ApiKeyRow, account, key_id)


def find(session: Session, key: str) -> ApiKeyRow | None:
    """What is stored of this very key, in whichever account."""
    return session.scalars(select(ApiKeyRow).where(ApiKeyRow.hash == hash_of(key))).one_or_none()


def search(session: Session, account: str, page: ApiKeySearch) -> listing.Found[ApiKeyRow]:
    """A page of an account's keys."""
    revoked = ApiKeyRow.revoked_at.is_not(None)
    status = {"published": [~revoked], "archived": [revoked], "all": []}[page.status]
    return listing.find(session, ApiKeyRow, account, page, {}, *status)


def update(writing: Writing, account: str, key_id: str, wish: ApiKeyUpdate) -> ApiKeyRow:
    """Change what the request names; the rest stays. Raises NotFound."""
    row = get(writing.session, account, key_id)
    before = row.document()
    named = wish.model_fields_set
    if wish.name is not None:
        row.name = wish.name
    if wish.strict is not None:
        row.strict = wish.strict
    if "requests_per_minute" in named:
        row.requests_per_minute = wish.requests_per_minute
    if "bulk_requests_per_minute" in named:
        row.bulk_requests_per_minute = wish.bulk_requests_per_minute
    return writing.update(row, before)


def revoke(writing: Writing, account: str, key_id: str) -> ApiKeyRow:
    """End a key for good; revoking it again changes nothing. Raises NotFound."""
    row = get(writing.session, account, key_id)
    before = row.document()
    row.revoked_at = row.revoked_at or writing.at
    return writing.update(row, before)


def any_valid(session: Session, account: str, now: datetime) -> bool:
    """Whether an account has a key that opens anything."""
    alive = ApiKeyRow.expires_at.is_(None) | (ApiKeyRow.expires_at > now)
    query = select(ApiKeyRow.id).where(
        ApiKeyRow.account == account, ApiKeyRow.revoked_at.is_(None), alive
    )
    return session.scalars(query.limit(1)).first() is not None


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
