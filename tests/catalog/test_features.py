"""Features in the database: what is unique, what is kept, what may change."""

import threading
from decimal import Decimal
from typing import Any

import pytest

from catalog import changes, features, meters
from catalog.database import Catalog, CatalogUnavailable
from catalog.tables import FeatureRow, MeterRow
from schemas.catalog import Aggregation, Reset, Status
from schemas.errors import AlreadyExists, InvalidRequest, NotFound
from schemas.features import FeatureSearch, FeatureUpdate, MeterUpdate, NewFeature, NewMeter
from schemas.requests import Sort


def wish(event_name: str = "model.usage", **more: Any) -> NewFeature:
    meter = {"event_name": event_name, "aggregation": {"type": "COUNT"}}
    return NewFeature.model_validate({"name": "Model", "meter": meter, **more})


def make(catalog: Catalog, account: str = "acme", **more: Any) -> FeatureRow:
    with catalog.writing("ada") as writing:
        return features.create(writing, account, wish(**more))


def change(catalog: Catalog, feature: FeatureRow, **more: Any) -> FeatureRow:
    with catalog.writing("bob") as writing:
        return features.update(
            writing, feature.account, feature.id, FeatureUpdate.model_validate(more)
        )


def test_a_feature_is_read_back_as_it_was_made(catalog: Catalog) -> None:
    tiny = "0.000000000000000001"
    rule = {"type": "SUM_WITH_MULTIPLIER", "field": "gb", "multiplier": tiny}
    meter = {
        "name": "GB moved",
        "event_name": "storage.GB",
        "aggregation": rule,
        "filters": [{"key": "region", "values": ["EU", "1"]}],
        "reset_usage": "NEVER",
    }
    made = make(
        catalog,
        name="Storage",
        lookup_key="storage",
        unit_singular="GB",
        unit_plural="GBs",
        metadata={"team": "infra"},
        meter=meter,
    )
    with catalog.reading() as session:
        found = features.get(session, "acme", made.id)
        document = found.document()
    assert found.meter.multiplier == Decimal(tiny)
    assert found.meter.aggregation is Aggregation.SUM_WITH_MULTIPLIER
    assert found.created_at.utcoffset() is not None
    assert document == made.document()
    assert document["meter"]["aggregation"]["multiplier"] == tiny
    assert (made.id[:5], made.meter_id[:6]) == ("feat_", "meter_")


def test_an_event_name_has_one_active_feature_per_account(catalog: Catalog) -> None:
    first = make(catalog)
    with pytest.raises(AlreadyExists, match=r"event_name 'model\.usage' already exists") as refused:
        make(catalog)
    assert refused.value.details == {"field": "event_name", "feature_id": first.id}
    make(catalog, account="other")
    make(catalog, event_name="Model.usage")


def test_the_database_itself_refuses_a_second_active_feature_of_a_name(catalog: Catalog) -> None:
    first = make(catalog)
    with pytest.raises(AlreadyExists), catalog.writing("ada") as writing:
        twin = {
            column.key: getattr(first, column.key)
            for column in FeatureRow.__mapper__.column_attrs
            if column.key not in ("id", "meter_id")
        }
        meter = meters.build("acme", wish().meter or pytest.fail(), "twin")
        writing.stamp(meter)
        writing.session.add(FeatureRow(id="feat_twin", meter=meter, **twin))
        writing.session.flush()


def test_of_threads_that_create_the_same_event_name_exactly_one_wins(catalog: Catalog) -> None:
    results: list[str] = []
    start = threading.Barrier(8)

    def race() -> None:
        start.wait()
        try:
            make(catalog, event_name="raced")
            results.append("made")
        except AlreadyExists:
            results.append("refused")

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["made"] + ["refused"] * 7
    with catalog.reading() as session:
        page = FeatureSearch(event_name="raced", status="all")
        assert features.search(session, "acme", page).total == 1


def test_an_archived_name_is_free_and_unarchiving_needs_it_free(catalog: Catalog) -> None:
    first = make(catalog)
    change(catalog, first, status="archived")
    second = make(catalog)
    with pytest.raises(AlreadyExists):
        change(catalog, first, status="published")
    change(catalog, second, status="archived")
    assert change(catalog, first, status="published").status is Status.PUBLISHED
    assert first.meter.id != second.meter.id


def test_a_lookup_key_finds_one_active_feature(catalog: Catalog) -> None:
    first = make(catalog, lookup_key="key")
    with pytest.raises(AlreadyExists, match="lookup_key 'key'"):
        make(catalog, event_name="b", lookup_key="key")
    second = make(catalog, event_name="b")
    with pytest.raises(AlreadyExists, match="lookup_key 'key'"):
        change(catalog, second, lookup_key="key")
    with catalog.reading() as session:
        assert features.get(session, "acme", second.id).lookup_key is None
        page = FeatureSearch(lookup_key="key")
        assert [found.id for found in features.search(session, "acme", page).items] == [first.id]


def test_every_change_is_kept_with_who_when_before_and_after(catalog: Catalog) -> None:
    feature = make(catalog)
    change(catalog, feature, name="Renamed", unit_singular="call")
    change(catalog, feature, name="Renamed")
    change(catalog, feature, status="archived")
    with catalog.reading() as session:
        history = changes.everything(session, "acme", "feature", feature.id)
        assert changes.everything(session, "other", "feature", feature.id) == []
    assert [each["actor"] for each in history] == ["ada", "bob", "bob"]
    assert history[0]["before"] is None
    assert [each["after"]["name"] for each in history] == ["Model", "Renamed", "Renamed"]
    assert [each["before"] for each in history[1:]] == [each["after"] for each in history[:-1]]
    assert history[2]["after"]["status"] == history[2]["after"]["meter"]["status"] == "archived"
    versions = [each["version"] for each in history]
    assert versions == list(range(versions[0], versions[0] + 3))


def test_a_reset_can_change_but_not_so_that_a_bucketed_max_keeps_its_level(
    catalog: Catalog,
) -> None:
    feature = make(catalog)
    assert change(catalog, feature, meter={"reset_usage": "NEVER"}).meter.reset_usage is Reset.NEVER
    rule = {"type": "MAX", "field": "n", "bucket_size": "DAY"}
    bucketed = make(catalog, meter={"event_name": "peak", "aggregation": rule})
    with pytest.raises(InvalidRequest, match="bucketed MAX"):
        change(catalog, bucketed, meter=MeterUpdate(reset_usage=Reset.NEVER))
    with catalog.reading() as session:
        kept = features.get(session, "acme", bucketed.id).meter.reset_usage
    assert kept is Reset.BILLING_PERIOD


def test_a_meter_made_first_belongs_to_one_feature(catalog: Catalog) -> None:
    with catalog.writing("ada") as writing:
        meter: MeterRow = meters.create(
            writing, "acme", NewMeter.model_validate(wish("m").model_dump()["meter"])
        )
    feature = make(catalog, meter=None, meter_id=meter.id)
    assert (feature.meter.id, feature.event_name) == (meter.id, "m")
    with pytest.raises(AlreadyExists, match="belongs to feature"):
        make(catalog, meter=None, meter_id=meter.id)
    with pytest.raises(InvalidRequest, match="not found"):
        make(catalog, account="other", meter=None, meter_id=meter.id)


def test_another_accounts_feature_is_not_found(catalog: Catalog) -> None:
    feature = make(catalog)
    with catalog.reading() as session, pytest.raises(NotFound):
        features.get(session, "other", feature.id)
    with pytest.raises(NotFound), catalog.writing("eve") as writing:
        features.archive(writing, "other", feature.id)


def test_a_list_is_paged_newest_first_and_counts_all(catalog: Catalog) -> None:
    made = [make(catalog, event_name=f"e{n}", name=f"Name {n}_x") for n in range(5)]
    make(catalog, account="other")
    change(catalog, made[4], status="archived")

    def ids(**page: Any) -> tuple[list[int], int]:
        with catalog.reading() as session:
            found = features.search(session, "acme", FeatureSearch(**page))
        order = [feature.id for feature in made]
        return [order.index(feature.id) for feature in found.items], found.total

    assert ids(limit=2) == ([3, 2], 4)
    assert ids(limit=2, offset=3) == ([0], 4)
    assert ids(status="all", order="asc") == ([0, 1, 2, 3, 4], 5)
    assert ids(status="archived") == ([4], 1)
    assert ids(name_contains="name 3_") == ([3], 1)
    assert ids(name_contains="%") == ([], 0)
    assert ids(feature_ids=[made[1].id, made[2].id]) == ([2, 1], 2)
    assert ids(sort=[Sort(field="name", direction="asc")], limit=1) == ([0], 4)
    assert ids(start_time=made[0].created_at, end_time=made[0].created_at) == ([], 0)


def test_what_fails_leaves_no_version_behind(catalog: Catalog) -> None:
    with pytest.raises(AlreadyExists), catalog.writing("ada") as writing:
        features.create(writing, "acme", wish("a"))
        features.create(writing, "acme", wish("a"))
    with catalog.reading() as session:
        assert features.search(session, "acme", FeatureSearch()).total == 0
    first = make(catalog)
    assert (first.created_version, first.version) == (3, 3)


def test_a_catalog_that_is_away_says_so(tmp_path: Any) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'never-migrated.db'}")
    with pytest.raises(CatalogUnavailable) as refused, catalog.reading() as session:
        features.get(session, "acme", "x")
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    catalog.close()
