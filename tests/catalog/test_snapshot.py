"""The snapshot: the same answer at a version for ever, and every change up to it."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import accounts, customers, features, keys
from catalog.database import Catalog, CatalogUnavailable
from catalog.follower import Follower
from catalog.snapshot import ChangeRecord, Snapshot
from schemas.catalog import Aggregation, Feature, Reset, Scope, Status
from schemas.customers import CustomerUpdate, NewCustomer
from schemas.errors import PermissionDenied, Unauthorized
from schemas.features import FeatureUpdate, NewFeature
from schemas.keys import NewAccount, NewApiKey

NAMES = ["a", "b"]


def new_feature(event_name: str) -> NewFeature:
    rule = {"type": "SUM", "field": "n"}
    filters = [{"key": "region", "values": ["EU", "US"]}, {"key": "a", "values": ["1"]}]
    meter = {"event_name": event_name, "aggregation": rule, "filters": filters}
    return NewFeature.model_validate({"name": event_name, "meter": meter})


def json_of(feature_id: str, event_name: str, status: str, reset: str) -> str:
    return (
        f'{{"id":"{feature_id}","meter_id":"m","status":"{status}","meter":{{"event_name":'
        f'"{event_name}","aggregation":{{"type":"COUNT"}},"filters":[],"reset_usage":"{reset}"}}}}'
    )


class Replay:
    """What `feature_at` has to say, by going through all changes from the start each time."""

    def __init__(self, log: list[tuple[int, str, str, str, str]]) -> None:
        self.log = log

    def feature_at(self, event_name: str, version: int) -> tuple[str, str, str] | None:
        """Id, status and reset of the answer."""
        now: dict[str, tuple[str, str]] = {}
        archived: list[str] = []
        for at, feature_id, name, status, reset in self.log:
            if at > version or name != event_name:
                continue
            before = now.get(feature_id)
            now[feature_id] = (status, reset)
            if status == "published":
                archived = [each for each in archived if each != feature_id]
            elif before is None or before[0] == "published":
                archived.append(feature_id)
        for feature_id, (status, reset) in now.items():
            if status == "published":
                return feature_id, status, reset
        return (archived[-1], *now[archived[-1]]) if archived else None


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[int, str, str, str, str]]:
    """Changes of features as the catalog allows them: one active feature per name."""
    log: list[tuple[int, str, str, str, str]] = []
    state: dict[str, tuple[str, str]] = {}
    version = 0
    for _ in range(draw(st.integers(0, 25))):
        version += draw(st.integers(1, 3))
        feature_id = f"f{draw(st.integers(0, 5))}"
        known = state.get(feature_id)
        name = known[0] if known else draw(st.sampled_from(NAMES))
        status = draw(st.sampled_from(["published", "archived"])) if known else "published"
        others = [key for key, each in state.items() if each == (name, "published")]
        if status == "published" and any(key != feature_id for key in others):
            continue
        state[feature_id] = (name, status)
        log.append((version, feature_id, name, status, draw(st.sampled_from(list(Reset)))))
    return log


@given(logs(), st.data())
def test_feature_at_equals_a_replay_of_all_changes(
    log: list[tuple[int, str, str, str, str]], data: st.DataObject
) -> None:
    records = [
        ChangeRecord(version, "acme", "feature", json_of(feature_id, name, status, reset))
        for version, feature_id, name, status, reset in log
    ]
    snapshot = Snapshot()
    cut = data.draw(st.integers(0, len(records)))
    snapshot.apply(records[:cut])
    replay = Replay(log)
    asked = [(name, version) for name in NAMES for version in range(snapshot.version + 1)]
    seen = [snapshot.feature_at("acme", *each) for each in asked]
    snapshot.apply(records[cut:])
    assert seen == [snapshot.feature_at("acme", *each) for each in asked]
    for name in NAMES:
        for version in range(snapshot.version + 2):
            found = snapshot.feature_at("acme", name, version)
            answer = found and (found.id, found.status.value, found.reset_usage.value)
            assert answer == replay.feature_at(name, version)
            assert snapshot.feature_at("other", name, version) is None


@given(st.lists(st.sampled_from(["published", "archived"]), max_size=8))
def test_customer_status_equals_a_replay_of_all_changes(statuses: list[str]) -> None:
    statuses = ["published", *statuses]
    customer = '{"id":"c","external_id":"x","status":"?"}'
    snapshot = Snapshot()
    snapshot.apply(
        ChangeRecord(version, "acme", "customer", customer.replace("?", status))
        for version, status in enumerate(statuses, start=5)
    )
    words = {"published": "active", "archived": "archived"}
    for version in range(5, 5 + len(statuses)):
        expected = words[statuses[version - 5]]
        assert snapshot.customer_status("acme", "x", version) == expected
    assert snapshot.customer_status("acme", "x", 4) == "unknown"
    assert snapshot.customer_status("acme", "y", 99) == "unknown"
    assert snapshot.customer_status("other", "x", 99) == "unknown"
    assert snapshot.external_id_of("acme", "c") == "x"
    assert snapshot.external_id_of("other", "c") is None


def test_a_follower_sees_what_was_written(catalog: Catalog) -> None:
    with catalog.writing("ada") as writing:
        feature = features.create(writing, "acme", new_feature("model.usage"))
        customer = customers.create(writing, "acme", NewCustomer(external_id="cust-1"))
    follower = Follower(catalog)
    assert follower.refresh() == follower.refresh() == customer.version == 4
    assert follower.snapshot.feature_at("acme", "model.usage", 4) == Feature(
        id=feature.id,
        meter_id=feature.meter_id,
        account="acme",
        event_name="model.usage",
        aggregation=Aggregation.SUM,
        field="n",
        multiplier=None,
        bucket_size=None,
        group_by=None,
        filters=(("region", frozenset({"EU", "US"})), ("a", frozenset({"1"}))),
        reset_usage=Reset.BILLING_PERIOD,
        status=Status.PUBLISHED,
        created_version=3,
        version=3,
    )
    with catalog.writing("ada") as writing:
        features.archive(writing, "acme", feature.id)
        customers.archive(writing, "acme", customer.id)
        features.update(writing, "acme", feature.id, FeatureUpdate(name="x"))
    snapshot = follower.reach(7)
    archived = snapshot.feature_at("acme", "model.usage", 7)
    active = snapshot.feature_at("acme", "model.usage", 4)
    assert archived is not None and not archived.active
    assert active is not None and active.active
    assert [snapshot.customer_status("acme", "cust-1", v) for v in (3, 4, 5, 6)] == [
        "unknown",
        "active",
        "active",
        "archived",
    ]
    assert snapshot.external_id_of("acme", customer.id) == "cust-1"
    assert snapshot.has_account("acme", 1) and not snapshot.has_account("other", 1)
    assert snapshot.accounts() == ["acme", "other"]
    with pytest.raises(CatalogUnavailable):
        follower.reach(8)


def test_who_sees_a_version_has_seen_all_before_it(catalog: Catalog) -> None:
    done = threading.Event()

    def write(worker: int) -> None:
        for number in range(25):
            with catalog.writing("ada") as writing:
                customers.create(writing, "acme", NewCustomer(external_id=f"{worker}-{number}"))

    follower = Follower(catalog)
    counts: list[tuple[int, int]] = []

    def follow() -> None:
        while not done.is_set():
            version = follower.refresh()
            counts.append((version, len(follower.snapshot._customers.get("acme", {}))))

    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    reader = threading.Thread(target=follow)
    for thread in [reader, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert follower.refresh() == 102
    assert all(customers_seen == max(version - 2, 0) for version, customers_seen in counts)


def test_a_refresh_that_finds_nothing_costs_less_than_a_millisecond(
    sqlite_catalog: Catalog,
) -> None:
    follower = Follower(sqlite_catalog)
    follower.refresh()
    rounds = []
    for _ in range(200):
        start = time.perf_counter()
        follower.refresh()
        rounds.append(time.perf_counter() - start)
    assert sorted(rounds)[100] < 0.001


def test_a_catalog_away_leaves_the_old_snapshot(sqlite_catalog: Catalog) -> None:
    follower = Follower(sqlite_catalog)
    version = follower.refresh()
    with sqlite_catalog.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE changes RENAME TO hidden")
    with pytest.raises(CatalogUnavailable):
        follower.refresh()
    assert follower.snapshot.version == version
    assert follower.snapshot.has_account("acme")


async def test_a_key_opens_what_it_may_until_it_ends(sqlite_catalog: Catalog) -> None:
    follower = Follower(sqlite_catalog)
    now = datetime.now(UTC)
    with sqlite_catalog.writing("ada") as writing:
        wish = NewApiKey(name="k", scopes=[Scope.READ], expires_at=now + timedelta(hours=1))
        row, key = keys.create(writing, "acme", wish)
    found = await follower.authenticate(key, Scope.READ)
    assert (found.id, found.account, found.scopes) == (row.id, "acme", frozenset({Scope.READ}))
    with pytest.raises(PermissionDenied, match="'admin'"):
        await follower.authenticate(key, Scope.ADMIN)
    with pytest.raises(Unauthorized):
        await follower.authenticate(key, Scope.READ, now + timedelta(hours=2))
    for wrong in (None, "", "sk_", key[:-1], keys.new_key(), "sk_\ud800"):
        with pytest.raises(Unauthorized):
            await follower.authenticate(wrong, Scope.READ)
    with sqlite_catalog.writing("ada") as writing:
        keys.revoke(writing, "acme", row.id)
    follower.refresh()
    with pytest.raises(Unauthorized):
        await follower.authenticate(key, Scope.READ)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.tuples(st.sampled_from("cau"), st.sampled_from(NAMES)), max_size=12))
def test_what_the_catalog_writes_is_what_the_snapshot_reads(
    sqlite_catalog: Catalog, steps: list[tuple[str, str]]
) -> None:
    with sqlite_catalog.writing("ada") as writing:
        account = accounts.create(writing, NewAccount(name="One"))
        customer = customers.create(writing, account.id, NewCustomer(external_id="x"))
    made: dict[str, list[str]] = {name: [] for name in NAMES}
    active: dict[str, str] = {}
    expected: list[tuple[int, dict[str, str], dict[str, bool]]] = []
    for step, name in steps:
        with sqlite_catalog.writing("ada") as writing:
            if step == "c" and name not in active:
                feature = features.create(writing, account.id, new_feature(name))
                made[name].append(feature.id)
                active[name] = feature.id
            elif step == "a" and name in active:
                features.archive(writing, account.id, active.pop(name))
            elif step == "u" and name not in active and made[name]:
                wish = FeatureUpdate(status=Status.PUBLISHED)
                features.update(writing, account.id, made[name][0], wish)
                active[name] = made[name][0]
            else:
                wish_for_one = CustomerUpdate(metadata={"step": str(len(expected))})
                customers.update(writing, account.id, customer.id, wish_for_one)
            expected.append((writing.version, dict(active), {n: bool(made[n]) for n in NAMES}))
    follower = Follower(sqlite_catalog)
    follower.refresh()
    for version, active_then, known_then in expected:
        for name in NAMES:
            found = follower.snapshot.feature_at(account.id, name, version)
            assert (found is not None) == known_then[name]
            assert (found.id if found and found.active else None) == active_then.get(name)
