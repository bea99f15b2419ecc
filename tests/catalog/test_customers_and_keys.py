"""Customers and API keys in the database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalog import accounts, changes, customers, keys
from catalog.database import Catalog
from catalog.tables import CustomerRow
from schemas.catalog import Scope, Status
from schemas.customers import CustomerSearch, CustomerUpdate, NewCustomer
from schemas.errors import AlreadyExists, InvalidRequest, NotFound
from schemas.keys import ApiKeySearch, NewAccount, NewApiKey


def make(catalog: Catalog, external_id: str = "cust-1", **more: Any) -> CustomerRow:
    with catalog.writing("ada") as writing:
        return customers.create(writing, "acme", NewCustomer(external_id=external_id, **more))


def test_an_external_id_stays_taken_after_deletion(catalog: Catalog) -> None:
    customer = make(catalog)
    with catalog.writing("ada") as writing:
        customers.archive(writing, "acme", customer.id)
    with pytest.raises(AlreadyExists) as refused:
        make(catalog)
    assert refused.value.details == {"id": customer.id, "status": "archived"}
    with catalog.writing("ada") as writing:
        revived = customers.update(
            writing, "acme", customer.id, CustomerUpdate(status=Status.PUBLISHED)
        )
    assert revived.status is Status.PUBLISHED


def test_an_update_changes_what_it_names_and_null_empties(catalog: Catalog) -> None:
    customer = make(catalog, email="a@b.c", timezone="Europe/Berlin", address_city="Bonn")
    with catalog.writing("ada") as writing:
        wish = CustomerUpdate.model_validate({"email": None, "address_country": "DE"})
        customers.update(writing, "acme", customer.id, wish)
    with catalog.reading() as session:
        found = customers.get_external(session, "acme", "cust-1").document()
    assert (found["address_city"], found["address_country"]) == ("Bonn", "DE")
    assert found["timezone"] == "Europe/Berlin"
    assert "email" not in found


def test_customers_are_found_by_what_they_are(catalog: Catalog) -> None:
    first = make(catalog, "a", name="Anna", email="a@x.io")
    second = make(catalog, "b")

    def ids(**page: Any) -> list[str]:
        with catalog.reading() as session:
            found = customers.search(session, "acme", CustomerSearch(**page))
        return [customer.id for customer in found.items]

    assert ids() == [second.id, first.id]
    assert ids(external_ids=["a", "zzz"]) == ids(email="a@x.io") == [first.id]
    assert ids(name_contains="ann") == ids(customer_ids=[first.id]) == [first.id]
    assert second.name == "b"


@pytest.mark.parametrize("part", ["Ünï", "ünï", "ÜNÏ", "CÖ_D", "100%"])
def test_a_part_of_a_name_is_found_whatever_its_case_and_alphabet(
    catalog: Catalog, part: str
) -> None:
    found = make(catalog, "a", name="Ünïcö_de 100%")
    make(catalog, "b", name="unicode 100")
    with catalog.reading() as session:
        page = customers.search(session, "acme", CustomerSearch(name_contains=part))
    assert [customer.id for customer in page.items] == [found.id]


def test_an_unknown_customer_is_named_in_the_documented_words(catalog: Catalog) -> None:
    with catalog.reading() as session, pytest.raises(NotFound) as refused:
        customers.get_external(session, "acme", "invalid_id")
    text = "Customer with external_customer_id 'invalid_id' not found"
    assert refused.value.error == text


def test_a_key_is_random_checked_and_stored_as_its_hash_alone(catalog: Catalog) -> None:
    with catalog.writing("ada") as writing:
        row, key = keys.create(writing, "acme", NewApiKey(name="ci", scopes=[Scope.INGEST]))
    assert keys.well_formed(key)
    assert not keys.well_formed(key[:-1] + ("0" if key[-1] != "0" else "1"))
    assert not keys.well_formed(key.swapcase())
    assert not keys.well_formed("sk_" + "ß" * 39)
    assert len({keys.new_key() for _ in range(100)}) == 100
    with catalog.reading() as session:
        history = changes.everything(session, "acme", "api_key", row.id)
        assert keys.get(session, "acme", row.id).hash == keys.hash_of(key)
    assert key not in str(history)
    assert key.startswith(history[0]["after"]["display_id"])


def test_a_revoked_key_stays_revoked_and_is_listed_apart(catalog: Catalog) -> None:
    with catalog.writing("ada") as writing:
        row, _ = keys.create(writing, "acme", NewApiKey(name="ci"))
    with catalog.writing("ada") as writing:
        first = keys.revoke(writing, "acme", row.id).revoked_at
    with catalog.writing("ada") as writing:
        assert keys.revoke(writing, "acme", row.id).revoked_at == first
        with pytest.raises(NotFound):
            keys.revoke(writing, "other", row.id)
    with catalog.reading() as session:
        assert keys.search(session, "acme", ApiKeySearch()).total == 0
        assert keys.search(session, "acme", ApiKeySearch(status="archived")).total == 1
        assert not keys.any_valid(session, "acme", datetime.now(UTC))


def test_a_key_that_would_have_expired_is_refused(catalog: Catalog) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(InvalidRequest, match="expires_at"), catalog.writing("ada") as writing:
        keys.create(writing, "acme", NewApiKey(name="old", expires_at=past))


def test_an_accounts_id_is_taken_once(catalog: Catalog) -> None:
    with pytest.raises(AlreadyExists), catalog.writing("ada") as writing:
        accounts.create(writing, NewAccount(id="acme", name="Again"))
    with catalog.writing("ada") as writing:
        made = accounts.create(writing, NewAccount(name="New"))
    assert made.id.startswith("acc_")
    with catalog.reading() as session:
        assert [each.id for each in accounts.everyone(session)] == ["acme", "other", made.id]
