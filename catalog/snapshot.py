"""The catalog in memory, at every version up to its own: what gateway, packer and counter match by.

It is filled from `changes` alone, in order, and only ever grows: an answer for version V is the
same before and after a refresh. One thread applies changes while others read; a reader that asks
at a version up to `version` never sees half a change, because `version` moves last.
"""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from hmac import compare_digest
from typing import Literal, NamedTuple

import msgspec

from schemas.catalog import Aggregation, ApiKey, Feature, Reset, Scope, Status, Window

CustomerStatus = Literal["active", "archived", "unknown"]


class ChangeRecord(NamedTuple):
    """A row of `changes`, as the snapshot reads it."""

    version: int
    account: str
    kind: str
    after: str


class Snapshot:
    """The catalog's history up to `version`; see the module for who may read while it grows."""

    def __init__(self) -> None:
        self.version = 0
        self._names: dict[tuple[str, str], _Name] = {}
        self._features: dict[str, Feature] = {}
        self._customers: dict[str, dict[str, int | tuple[int, ...]]] = {}
        self._external_ids: dict[str, dict[str, str]] = {}
        self._keys: dict[str, ApiKey] = {}
        self._accounts: dict[str, int] = {}

    def has_account(self, account: str, version: int | None = None) -> bool:
        """Whether there is such an account (at a version; now, if None)."""
        created = self._accounts.get(account)
        return created is not None and (version is None or created <= version)

    def accounts(self) -> list[str]:
        """Every account's id, oldest first."""
        return list(self._accounts)

    def feature_at(self, account: str, event_name: str, version: int) -> Feature | None:
        """The feature that an event of this name is matched with, at a version up to our own.

        The active one; else the one archived last, with `active` False; None when the name never
        had a feature.
        """
        name = self._names.get((account, event_name))
        return None if name is None else name.at(version)

    def feature(self, feature_id: str) -> Feature | None:
        """A feature by its id, as it is now."""
        return self._features.get(feature_id)

    def features(self) -> list[Feature]:
        """Every account's features, archived ones too, as they are now."""
        return list(self._features.values())

    def customer_status(self, account: str, external_id: str, version: int) -> CustomerStatus:
        """Whether a customer of this external id exists at a version up to our own."""
        turns = self._customers.get(account, _NOBODY).get(external_id)
        if turns is None:
            return "unknown"
        if isinstance(turns, int):
            return "active" if turns <= version else "unknown"
        passed = bisect_right(turns, version)
        return "unknown" if passed == 0 else "active" if passed % 2 else "archived"

    def external_id_of(self, account: str, customer_id: str) -> str | None:
        """The external id of a customer; it never changes."""
        return self._external_ids.get(account, _NO_IDS).get(customer_id)

    def key(self, key_hash: str) -> ApiKey | None:
        """The API key with this hash, valid or not, as it is now."""
        key = self._keys.get(key_hash)
        return key if key is not None and compare_digest(key.hash, key_hash) else None

    def apply(self, changes: Iterable[ChangeRecord]) -> None:
        """Take in changes, in the order of their versions, the next after our own first."""
        for change in changes:
            match change.kind:
                case "customer":
                    self._apply_customer(change)
                case "feature":
                    self._apply_feature(change)
                case "api_key":
                    self._apply_key(change)
                case "account":
                    self._accounts.setdefault(change.account, change.version)
            self.version = change.version

    def _apply_feature(self, change: ChangeRecord) -> None:
        document = _feature.decode(change.after)
        known = self._features.get(document.id)
        created = change.version if known is None else known.created_version
        feature = document.at(change.account, created, change.version)
        self._features[feature.id] = feature
        name = self._names.get((change.account, feature.event_name))
        if name is None:
            name = _Name()
            name.apply(feature)
            self._names[change.account, feature.event_name] = name
        else:
            name.apply(feature)

    def _apply_customer(self, change: ChangeRecord) -> None:
        document = _customer.decode(change.after)
        customers = self._customers.setdefault(change.account, {})
        turns = customers.get(document.external_id)
        if turns is None:
            ids = self._external_ids.setdefault(change.account, {})
            ids[document.id] = document.external_id
            customers[document.external_id] = change.version
            return
        so_far = (turns,) if isinstance(turns, int) else turns
        if (document.status is Status.PUBLISHED) != (len(so_far) % 2 == 1):
            customers[document.external_id] = (*so_far, change.version)

    def _apply_key(self, change: ChangeRecord) -> None:
        document = _key.decode(change.after)
        self._keys[document.hash] = ApiKey(
            id=document.id,
            account=change.account,
            hash=document.hash,
            scopes=frozenset(document.scopes),
            expires_at=document.expires_at,
            revoked_at=document.revoked_at,
            strict=document.strict,
            requests_per_minute=document.requests_per_minute,
            bulk_requests_per_minute=document.bulk_requests_per_minute,
        )


class _Name:
    """The features of one event name: which one answers, from which version on."""

    __slots__ = ("_archived_at", "_features", "_stages", "_versions")

    def __init__(self) -> None:
        self._features: dict[str, Feature] = {}
        self._archived_at: dict[str, int] = {}
        self._versions: list[int] = []
        self._stages: list[Feature] = []

    def at(self, version: int) -> Feature | None:
        index = bisect_right(self._versions, version)
        return self._stages[index - 1] if index else None

    def apply(self, feature: Feature) -> None:
        self._features[feature.id] = feature
        if feature.active:
            self._archived_at.pop(feature.id, None)
        else:
            self._archived_at.setdefault(feature.id, feature.version)
        answer = self._answer()
        if not self._stages or self._stages[-1] is not answer:
            self._stages.append(answer)  # before its version: a reader finds a stage for each
            self._versions.append(feature.version)

    def _answer(self) -> Feature:
        """The active feature, of which there is at most one; else the one archived last."""
        for feature in self._features.values():
            if feature.active:
                return feature
        return self._features[max(self._archived_at, key=self._archived_at.__getitem__)]


_NOBODY: dict[str, int | tuple[int, ...]] = {}
_NO_IDS: dict[str, str] = {}


# What `changes` holds of an entity, as far as it matters here


class _AggregationDocument(msgspec.Struct):
    type: Aggregation
    field: str | None = None
    multiplier: Decimal | None = None
    bucket_size: Window | None = None
    group_by: str | None = None


class _FilterDocument(msgspec.Struct):
    key: str
    values: list[str]


class _MeterDocument(msgspec.Struct):
    event_name: str
    aggregation: _AggregationDocument
    filters: list[_FilterDocument]
    reset_usage: Reset


class _FeatureDocument(msgspec.Struct):
    id: str
    meter_id: str
    status: Status
    meter: _MeterDocument

    def at(self, account: str, created_version: int, version: int) -> Feature:
        rule = self.meter.aggregation
        return Feature(
            id=self.id,
            meter_id=self.meter_id,
            account=account,
            event_name=self.meter.event_name,
            aggregation=rule.type,
            field=rule.field,
            multiplier=rule.multiplier,
            bucket_size=rule.bucket_size,
            group_by=rule.group_by,
            filters=tuple((each.key, frozenset(each.values)) for each in self.meter.filters),
            reset_usage=self.meter.reset_usage,
            status=self.status,
            created_version=created_version,
            version=version,
        )


class _CustomerDocument(msgspec.Struct):
    id: str
    external_id: str
    status: Status


class _KeyDocument(msgspec.Struct):
    id: str
    hash: str
    scopes: list[Scope]
    strict: bool
    requests_per_minute: int | None
    bulk_requests_per_minute: int | None
    expires_at: datetime | None
    revoked_at: datetime | None


_feature = msgspec.json.Decoder(_FeatureDocument)
_customer = msgspec.json.Decoder(_CustomerDocument)
_key = msgspec.json.Decoder(_KeyDocument)
