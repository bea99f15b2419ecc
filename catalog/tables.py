"""The catalog's tables: what stands now, one row each, and every change that led there.

`changes` is append-only and holds the whole entity before and after; the entity's own row is the
last `after`, written in the same transaction, so that the database can guard what is unique.
"""

from abc import abstractmethod
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from schemas.catalog import Aggregation, Reset, Scope, Status, Window
from schemas.decimals import plain
from schemas.plans import (
    BillingCycle,
    BillingModel,
    BillingPeriod,
    CancellationType,
    LimitReset,
    Rounding,
    TierMode,
)


class UtcTime(TypeDecorator[datetime]):
    """A moment: aware and UTC, also where the database keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class ExactDecimal(TypeDecorator[Decimal]):
    """A Decimal kept as its text: SQLite would make it a float."""

    impl = String(64)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        return None if value is None else plain(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


WholeNumber = BigInteger().with_variant(Integer, "sqlite")
"""64 bits; SQLite's are that wide in any case, and its fast primary key is an INTEGER."""


def _words(words: type[StrEnum], length: int) -> Enum:
    """A column of one of these words, as text."""
    return Enum(
        words,
        native_enum=False,
        length=length,
        values_callable=lambda of: [word.value for word in of],
    )


def one_published(name: str, *columns: str) -> Index:
    """The index that guards what may be published once."""
    published = text("status = 'published'")
    return Index(name, *columns, unique=True, sqlite_where=published, postgresql_where=published)


class Table(DeclarativeBase):
    """Every table of the catalog."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pk",
            "fk": "%(table_name)s_%(column_0_name)s_fk",
            "ix": "%(table_name)s_%(column_0_N_name)s",
            "uq": "%(table_name)s_%(column_0_N_name)s_unique",
        }
    )
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        datetime: UtcTime,
        Decimal: ExactDecimal,
        int: WholeNumber,
        dict[str, str]: JSON,
        list[dict[str, Any]]: JSON,
        list[Scope]: JSON,
        list[int]: JSON,
        Aggregation: _words(Aggregation, 32),
        BillingCycle: _words(BillingCycle, 16),
        BillingModel: _words(BillingModel, 16),
        BillingPeriod: _words(BillingPeriod, 16),
        CancellationType: _words(CancellationType, 16),
        LimitReset: _words(LimitReset, 16),
        Reset: _words(Reset, 32),
        Rounding: _words(Rounding, 16),
        Status: _words(Status, 16),
        TierMode: _words(TierMode, 16),
        Window: _words(Window, 16),
    }


class EntityTable(Table):
    """What an account has of its own: each row an entity whose changes are kept.

    kind  Its name in `changes`; `word` in a sentence, `id_prefix` in its ids.
    """

    __abstract__ = True
    kind: ClassVar[str]
    word: ClassVar[str]
    id_prefix: ClassVar[str]

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    created_version: Mapped[int]
    version: Mapped[int]

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """The entity as the API and `changes` write it."""

    def stamps(self) -> dict[str, Any]:
        """The end of every document."""
        return {"created_at": moment(self.created_at), "updated_at": moment(self.updated_at)}


class CatalogVersion(Table):
    """One row: the version of the last committed change; a writer holds it until it commits."""

    __tablename__ = "catalog_version"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]


class Change(Table):
    """One change of one entity, kept for good: version, who, when, before, after."""

    __tablename__ = "changes"
    __table_args__ = (Index("changes_entity", "account", "kind", "entity_id", "version"),)

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    account: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    entity_id: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(Text)
    before: Mapped[str | None] = mapped_column(Text)
    after: Mapped[str] = mapped_column(Text)


class Account(Table):
    """Whose everything is; its native topic is `events.<id>`."""

    __tablename__ = "accounts"
    kind = "account"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int]

    def document(self) -> dict[str, Any]:
        """The account as the API and `changes` write it."""
        return {
            "id": self.id,
            "name": self.name,
            "created_at": moment(self.created_at),
            "updated_at": moment(self.updated_at),
        }


class ApiKeyRow(EntityTable):
    """An API key, without the key: `hash` is its SHA-256, `prefix` what people recognise it by."""

    __tablename__ = "api_keys"
    kind = "api_key"
    word = "API key"
    id_prefix = "secret"

    name: Mapped[str] = mapped_column(Text)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(16))
    scopes: Mapped[list[Scope]]
    strict: Mapped[bool]
    requests_per_minute: Mapped[int | None]
    bulk_requests_per_minute: Mapped[int | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    @property
    def status(self) -> Status:
        return Status.PUBLISHED if self.revoked_at is None else Status.ARCHIVED

    def document(self) -> dict[str, Any]:
        """The key as `changes` keeps it; the API leaves the hash out."""
        return {
            "id": self.id,
            "name": self.name,
            "type": "private_key",
            "display_id": self.prefix,
            "hash": self.hash,
            "scopes": list(self.scopes),
            "strict": self.strict,
            "requests_per_minute": self.requests_per_minute,
            "bulk_requests_per_minute": self.bulk_requests_per_minute,
            "expires_at": moment(self.expires_at),
            "revoked_at": moment(self.revoked_at),
            "status": self.status,
            **self.stamps(),
        }


class MeterRow(EntityTable):
    """A feature's rule: fixed but for its name and reset. One made alone waits for its feature."""

    __tablename__ = "meters"
    kind = "meter"
    word = "Meter"
    id_prefix = "meter"

    name: Mapped[str] = mapped_column(Text)
    event_name: Mapped[str] = mapped_column(Text)
    aggregation: Mapped[Aggregation]
    field: Mapped[str | None] = mapped_column(Text)
    multiplier: Mapped[Decimal | None]
    bucket_size: Mapped[Window | None]
    group_by: Mapped[str | None] = mapped_column(Text)
    filters: Mapped[list[dict[str, Any]]]
    reset_usage: Mapped[Reset]
    status: Mapped[Status]

    def document(self) -> dict[str, Any]:
        """The meter as the API and `changes` write it."""
        aggregation = {
            "type": self.aggregation,
            "field": self.field,
            "multiplier": None if self.multiplier is None else plain(self.multiplier),
            "bucket_size": self.bucket_size,
            "group_by": self.group_by,
        }
        return {
            "id": self.id,
            "name": self.name,
            "event_name": self.event_name,
            "aggregation": {key: value for key, value in aggregation.items() if value is not None},
            "filters": self.filters,
            "reset_usage": self.reset_usage,
            "status": self.status,
            **self.stamps(),
        }


class FeatureRow(EntityTable):
    """What is metered and sold. `event_name` is its meter's, here for the index that guards it."""

    __tablename__ = "features"
    __table_args__ = (
        one_published("features_active_event_name", "account", "event_name"),
        one_published("features_active_lookup_key", "account", "lookup_key"),
    )
    kind = "feature"
    word = "Feature"
    id_prefix = "feat"

    meter_id: Mapped[str] = mapped_column(ForeignKey("meters.id"), unique=True)
    event_name: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    lookup_key: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    unit_singular: Mapped[str | None] = mapped_column(Text)
    unit_plural: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, str]] = mapped_column("metadata")
    status: Mapped[Status]

    meter: Mapped[MeterRow] = relationship(lazy="joined", innerjoin=True)

    def document(self) -> dict[str, Any]:
        """The feature as the API and `changes` write it, with its meter."""
        optional = {
            "lookup_key": self.lookup_key,
            "unit_singular": self.unit_singular,
            "unit_plural": self.unit_plural,
        }
        return {
            "id": self.id,
            "name": self.name,
            "type": "metered",
            **{key: value for key, value in optional.items() if value is not None},
            "description": self.description,
            "metadata": self.details,
            "meter_id": self.meter_id,
            "meter": self.meter.document(),
            "status": self.status,
            **self.stamps(),
        }


class CustomerRow(EntityTable):
    """Who uses features. `external_id` is the client's own id: fixed, and taken for good."""

    __tablename__ = "customers"
    __table_args__ = (
        UniqueConstraint("account", "external_id"),
        Index("customers_newest", "account", "created_version"),
    )
    kind = "customer"
    word = "Customer"
    id_prefix = "cust"

    account: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    external_id: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    email: Mapped[str | None] = mapped_column(Text)
    timezone: Mapped[str | None] = mapped_column(Text)
    address: Mapped[dict[str, str]]
    details: Mapped[dict[str, str]] = mapped_column("metadata")
    status: Mapped[Status]

    def document(self) -> dict[str, Any]:
        """The customer as the API and `changes` write it."""
        optional = {"email": self.email, "timezone": self.timezone, **self.address}
        return {
            "id": self.id,
            "external_id": self.external_id,
            "name": self.name,
            **{key: value for key, value in optional.items() if value is not None},
            "metadata": self.details,
            "status": self.status,
            **self.stamps(),
        }


def moment(at: datetime | None) -> str | None:
    """A moment as JSON writes it: UTC, to the millisecond."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
