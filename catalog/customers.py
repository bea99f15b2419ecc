"""Customers: who uses features. Deleting one archives it; its external id stays taken."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog import listing
from catalog.database import Writing
from catalog.tables import CustomerRow
from schemas.catalog import Status
from schemas.customers import Address, CustomerSearch, CustomerUpdate, NewCustomer
from schemas.errors import AlreadyExists, InvalidRequest, NotFound, shown

COLUMNS = {
    "customer_ids": CustomerRow.id,
    "external_id": CustomerRow.external_id,
    "external_ids": CustomerRow.external_id,
    "email": CustomerRow.email,
    "name_contains": CustomerRow.name,
}


def create(writing: Writing, account: str, wish: NewCustomer) -> CustomerRow:
    """Make one. Raises AlreadyExists when its external id is taken, even by an archived one."""
    taken = _by_external_id(writing.session, account, wish.external_id)
    if taken is not None:
        archived = taken.status is Status.ARCHIVED
        raise AlreadyExists(
            f"Customer with external_id {shown(wish.external_id)} already exists",
            cure='it is archived: PUT it with {"status": "published"}' if archived else "update it",
            details={"id": taken.id, "status": taken.status},
        )
    customer = CustomerRow(
        account=account,
        external_id=wish.external_id,
        name=wish.name or wish.external_id,
        email=wish.email,
        timezone=wish.timezone,
        address=_address(wish),
        details=wish.metadata,
        status=Status.PUBLISHED,
    )
    return writing.create(customer)


def get(session: Session, account: str, customer_id: str) -> CustomerRow:
    """The customer of this id, archived or not. Raises NotFound."""
    return listing.get(session, CustomerRow, account, customer_id)


def get_external(session: Session, account: str, external_id: str) -> CustomerRow:
    """The customer of this external id, archived or not. Raises NotFound with the seeds' text."""
    customer = _by_external_id(session, account, external_id)
    if customer is None:
        raise NotFound(f"Customer with external_customer_id {shown(external_id)} not found")
    return customer


def get_named(
    session: Session, account: str, customer_id: str | None, external_id: str | None
) -> CustomerRow:
    """The customer of this id, or else of this external id.

    Raises NotFound; InvalidRequest when both are given and are not the same customer's.
    """
    if customer_id is None:
        return get_external(session, account, external_id or "")
    customer = get(session, account, customer_id)
    if external_id not in (None, customer.external_id):
        detail = f"customer_id {shown(customer_id)} is another customer: send one of both"
        raise InvalidRequest.at("/customer_id", "not_allowed", detail)
    return customer


def search(session: Session, account: str, page: CustomerSearch) -> listing.Found[CustomerRow]:
    """A page of an account's customers."""
    return listing.find(session, CustomerRow, account, page, COLUMNS)


def update(writing: Writing, account: str, customer_id: str, wish: CustomerUpdate) -> CustomerRow:
    """Change what the request names; the rest stays. Raises NotFound."""
    customer = get(writing.session, account, customer_id)
    before = customer.document()
    named = wish.model_fields_set
    if wish.name is not None:
        customer.name = wish.name
    if "email" in named:
        customer.email = wish.email
    if "timezone" in named:
        customer.timezone = wish.timezone
    if wish.metadata is not None:
        customer.details = wish.metadata
    if wish.status is not None:
        customer.status = wish.status
    address = {**customer.address, **_address(wish)}
    customer.address = {
        field: text
        for field, text in address.items()
        if field not in named or getattr(wish, field) is not None
    }
    return writing.update(customer, before)


def archive(writing: Writing, account: str, customer_id: str) -> CustomerRow:
    """Archive a customer; once more changes nothing. Raises NotFound."""
    return update(writing, account, customer_id, CustomerUpdate(status=Status.ARCHIVED))


def _by_external_id(session: Session, account: str, external_id: str) -> CustomerRow | None:
    query = select(CustomerRow).where(
        CustomerRow.account == account, CustomerRow.external_id == external_id
    )
    return session.scalars(query).one_or_none()


def _address(wish: Address) -> dict[str, str]:
    values = wish.model_dump(include=set(Address.model_fields), exclude_none=True)
    return {field: str(text) for field, text in values.items()}
