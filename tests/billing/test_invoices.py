"""Invoices and adjustments: rounding, totals, the copy that is kept, what late usage changes."""

import json
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from billing.charges import Basis, Charge
from billing.invoices import (
    TEXT_QUANTITY,
    Adjustment,
    Invoice,
    Late,
    Line,
    Mark,
    Step,
    adjust,
    bill,
    needed,
    restored,
    shown,
    stored,
)
from billing.units import Unit
from schemas.plans import Subscription
from tests.billing.metering import Event, event, measure
from tests.billing.sold import (
    at,
    make_basis,
    make_charge,
    make_entitlement,
    make_feature,
    make_period,
    make_price,
    make_subscription,
)


def invoice_of(basis: Basis, events: list[Event], upto: int | None = None) -> Invoice:
    return bill(basis, measure(needed(basis), events, upto))


def three_charges() -> tuple[Charge, ...]:
    """Half a cent per unit of each of three features."""
    names = ("feat_1", "feat_2", "feat_3")
    return tuple(
        make_charge(make_price("0.005", feature=name), make_feature(name=name)) for name in names
    )


def basis_of(*charges: Charge, subscription: Subscription | None = None, digits: int = 2) -> Basis:
    sold_to = subscription or make_subscription()
    return Basis(sold_to, make_period(sold_to), digits, charges)


def test_a_line_says_all_about_what_a_price_comes_to() -> None:
    charge = make_charge(
        make_price(tiers="2:1 *:0.125", mode="SLAB"), entitlement=make_entitlement(3)
    )
    found = invoice_of(make_basis(charge), [event("2025-01-05", "6.5")])
    assert found.lines == (
        Line(
            price_id="price_plan_a_feat_1",
            feature_id="feat_1",
            meter_id="meter_feat_1",
            display_name="Things",
            usage=Decimal("6.5"),
            text=None,
            free=Decimal(3),
            billable=Decimal("3.5"),
            counted="3.5 credits",
            amount=Decimal("2.19"),
            steps=(Step(2, Decimal(2), Decimal(2)), Step(None, Decimal("1.5"), Decimal("0.1875"))),
            warnings=(),
        ),
    )
    assert (found.total, found.adjustments) == (Decimal("2.19"), ())


def test_a_line_is_rounded_once_and_a_total_is_the_sum_of_its_lines() -> None:
    events = [event("2025-01-05", 1, feature=f"feat_{n}") for n in (1, 2, 3)]
    found = invoice_of(basis_of(*three_charges()), events)
    assert [str(line.amount) for line in found.lines] == ["0.01", "0.01", "0.01"]
    assert str(found.total) == "0.03"


def test_every_price_has_a_line_also_at_0() -> None:
    found = invoice_of(basis_of(*three_charges()), [event("2025-01-05", 1)])
    assert [str(line.amount) for line in found.lines] == ["0.01", "0.00", "0.00"]
    assert [line.counted for line in found.lines] == ["1 credit", "0 credits", "0 credits"]


@pytest.mark.parametrize(("digits", "amount"), [(0, "1"), (2, "0.56"), (3, "0.555")])
def test_amounts_have_the_digits_of_the_currency(digits: int, amount: str) -> None:
    charge = make_charge(make_price("0.555"))
    found = invoice_of(make_basis(charge, digits=digits), [event("2025-01-05", 1)])
    assert (str(found.lines[0].amount), str(found.total)) == (amount, amount)


def test_amounts_larger_than_any_usual_context_are_exact() -> None:
    charge = make_charge(make_price("99999999999999999999.01"))
    events = [event("2025-01-05", "99999999999999999999.000000000000000001")] * 2
    total = invoice_of(make_basis(charge), events).total
    exact = Fraction("99999999999999999999.01") * 2 * Fraction(events[0].value)
    assert abs(Fraction(total) - exact) <= Fraction("0.005")


def test_a_text_quantity_is_billed_0_with_a_warning() -> None:
    charge = make_charge(feature=make_feature("LATEST"), entitlement=make_entitlement(0))
    events = [event("2025-01-05", 7), event("2025-01-06", "gold")]
    line = invoice_of(make_basis(charge), events).lines[0]
    assert (line.usage, line.text, line.amount) == (None, "gold", Decimal("0.00"))
    assert (line.counted, line.warnings) == ("0 credits", (TEXT_QUANTITY,))


def test_a_latest_number_is_billed_without_a_warning() -> None:
    charge = make_charge(feature=make_feature("LATEST"))
    events = [event("2025-01-05", "a"), event("2025-01-06", 7)]
    line = invoice_of(make_basis(charge), events).lines[0]
    assert (line.usage, line.text, line.warnings) == (Decimal(7), None, ())
    assert line.amount == 7


def test_a_quotient_is_shown_with_18_places_and_billed_undivided() -> None:
    charge = make_charge(make_price("3000000000000000000"), make_feature("AVG"))
    events = [event("2025-01-05", value) for value in (1, 0, 0)]
    line = invoice_of(make_basis(charge), events).lines[0]
    assert str(line.usage) == str(line.billable) == "0.333333333333333333"
    assert line.amount == 10**18


@pytest.mark.parametrize(
    ("value", "is_quotient", "text"),
    [
        ("1/3", True, "0.333333333333333333"),
        ("-2/3", True, "-0.666666666666666667"),
        ("0", True, "0"),
        ("-1/10000000000000000000", True, "0"),
        ("1/1099511627776", False, "9.094947017729282379150390625E-13"),
        ("120", False, "1.2E+2"),
    ],
)
def test_what_is_shown_of_a_fraction(value: str, is_quotient: bool, text: str) -> None:
    assert str(shown(Fraction(value), is_quotient=is_quotient)) == text


def test_an_invoice_says_how_far_the_log_was_counted() -> None:
    basis = make_basis()
    measured = measure(needed(basis), [])
    places = {(2, 0): 7, (1, 1): 5, (1, 0): 9}
    measured = type(measured)(measured.quantities, measured.parts, places)
    assert bill(basis, measured).upto == (Mark(1, 0, 9), Mark(1, 1, 5), Mark(2, 0, 7))


def test_an_invoice_keeps_all_that_it_was_computed_with() -> None:
    charges = (
        make_charge(
            make_price(tiers="2:1 *:0.125+3", mode="VOLUME"),
            make_feature("MAX", bucket_size="DAY"),
            make_entitlement(3, "DAILY"),
        ),
        make_charge(
            make_price("0.1", divide_by=7, rounding="down", feature="feat_2"),
            make_feature("SUM_WITH_MULTIPLIER", multiplier="0.000000000000000001", name="feat_2"),
            unit=Unit("Grüße", None),
        ),
    )
    basis = basis_of(
        *charges,
        subscription=make_subscription(
            "2025-01-31 00:30+01:00",
            "2026-01-01",
            zone="Europe/Berlin",
            changes={"plan_b": "2025-03-01"},
        ),
    )
    events = [event("2025-02-05", 6), event("2025-02-05", "1.5", feature="feat_2")]
    first = invoice_of(basis, events)
    late = Late("feat_1", "c1", at("1970-01-01"), at("2025-01-01"), (), (Mark(1, 2, 3),))
    adjustments = (
        Adjustment(
            "inv_0", at("2025-01-01"), at("2025-01-31"), first.lines[0], Decimal("-1.50"), late
        ),
    )
    invoice = bill(basis, measure(needed(basis), events), adjustments)
    assert invoice.total == first.total - Decimal("1.50")
    text = stored(invoice)
    assert restored(text) == invoice
    assert stored(restored(text)) == text
    kept = json.loads(text)["basis"]
    assert kept["subscription"]["zone"] == "Europe/Berlin"
    assert kept["charges"][0]["entitlement"]["usage_limit"] == 3
    assert kept["charges"][0]["price"]["tiers"][1] == {
        "up_to": None,
        "unit_amount": "0.125",
        "flat_amount": "3",
    }
    assert kept["charges"][1]["feature"]["multiplier"] == "1E-18"


def test_what_is_needed_is_asked_for_once() -> None:
    feature = make_feature()
    charges = [make_charge(feature=feature), make_charge(feature=feature)]
    assert len(needed(basis_of(*charges))) == 1
    both = [make_basis(moment=f"2025-0{month}-05") for month in (1, 2)]
    assert [(one.start, one.end) for one in needed(*both, both[0])] == [
        (1735689600000, 1738368000000),
        (1738368000000, 1740787200000),
    ]


# Late usage

FIRST = Event("feat_1", at("2025-01-05"), Decimal(10), position=1)
LATE = Event("feat_1", at("2025-01-20"), Decimal(5), position=2)
LATER = Event("feat_1", at("2025-01-21"), Decimal(-5), position=3)
LATEST = Event("feat_1", at("2025-01-22"), Decimal(1), position=4)
LOG = [FIRST, LATE, LATER, LATEST]


def test_late_usage_is_one_line_of_what_the_period_comes_to_now_less_what_was_billed() -> None:
    closed = invoice_of(make_basis(), LOG, upto=1)
    found = adjust("inv_1", closed, (), measure(needed(closed.basis), LOG, upto=2))
    assert found == (
        Adjustment(
            invoice_id="inv_1",
            period_start=at("2025-01-01"),
            period_end=at("2025-02-01"),
            line=invoice_of(make_basis(), LOG, upto=2).lines[0],
            amount=Decimal("5.00"),
            late=Late(
                feature_id="feat_1",
                external_customer_id="c1",
                start=at("2025-01-01"),
                end=at("2025-02-01"),
                after=(Mark(0, 0, 1),),
                upto=(Mark(0, 0, 2),),
            ),
        ),
    )


def test_an_adjustment_may_be_negative_and_so_may_a_total() -> None:
    closed = invoice_of(make_basis(), LOG, upto=2)
    found = adjust("inv_1", closed, (), measure(needed(closed.basis), LOG, upto=3))
    assert [one.amount for one in found] == [Decimal("-5.00")]
    later = make_basis(moment="2025-02-05")
    invoice = bill(later, measure(needed(later), LOG), found)
    assert (str(invoice.lines[0].amount), str(invoice.total)) == ("0.00", "-5.00")


def test_what_was_adjusted_before_is_not_adjusted_again() -> None:
    closed = invoice_of(make_basis(), LOG, upto=1)
    earlier = adjust("inv_1", closed, (), measure(needed(closed.basis), LOG, upto=2))
    assert adjust("inv_1", closed, earlier, measure(needed(closed.basis), LOG, upto=2)) == ()
    second = adjust("inv_1", closed, earlier, measure(needed(closed.basis), LOG, upto=4))
    assert [(one.amount, one.late.after) for one in second] == [(Decimal(-4), (Mark(0, 0, 2),))]


def test_adjustments_of_other_invoices_are_not_ours() -> None:
    closed = invoice_of(make_basis(), LOG, upto=1)
    others = adjust("inv_2", closed, (), measure(needed(closed.basis), LOG, upto=2))
    found = adjust("inv_1", closed, others, measure(needed(closed.basis), LOG, upto=2))
    assert [one.amount for one in found] == [Decimal(5)]


def test_late_usage_that_makes_no_difference_has_no_line_and_goes_with_the_next() -> None:
    closed = invoice_of(make_basis(), LOG, upto=1)
    assert adjust("inv_1", closed, (), measure(needed(closed.basis), LOG, upto=3)) == ()
    found = adjust("inv_1", closed, (), measure(needed(closed.basis), LOG, upto=4))
    assert [(one.amount, one.late.after) for one in found] == [(Decimal(1), (Mark(0, 0, 1),))]


def test_late_usage_within_the_free_limit_makes_no_difference() -> None:
    basis = make_basis(make_charge(entitlement=make_entitlement(100)))
    closed = invoice_of(basis, LOG, upto=1)
    assert adjust("inv_1", closed, (), measure(needed(basis), LOG)) == ()


def test_a_late_event_of_a_level_adjusts_every_closed_period_from_its_own_on() -> None:
    charge = make_charge(feature=make_feature(reset="NEVER"))
    months = [make_basis(charge, moment=f"2025-0{month}-05") for month in (1, 2, 3)]
    late = Event("feat_1", at("2025-02-20"), Decimal(5), position=2)
    log = [FIRST, late]
    adjusted = [
        adjust("inv", invoice_of(basis, log, upto=1), (), measure(needed(basis), log))
        for basis in months
    ]
    assert [[one.amount for one in found] for found in adjusted] == [[], [5], [5]]
    assert [(one.late.start, one.late.end) for found in adjusted for one in found] == [
        (at("1970-01-01"), at("2025-03-01")),
        (at("1970-01-01"), at("2025-04-01")),
    ]


def test_an_adjustment_is_computed_with_the_copy_not_with_what_holds_today() -> None:
    closed = restored(stored(invoice_of(make_basis(), LOG, upto=1)))
    changed = make_charge(make_price("100"), entitlement=make_entitlement(1000))
    assert make_basis(changed) != closed.basis
    found = adjust("inv_1", closed, (), measure(needed(closed.basis), LOG, upto=2))
    assert [one.amount for one in found] == [Decimal(5)]


def test_after_the_last_period_an_invoice_holds_adjustments_only() -> None:
    ended = make_subscription("2025-01-01", "2025-02-01")
    closed = invoice_of(make_basis(subscription=ended), LOG, upto=1)
    found = adjust("inv_1", closed, (), measure(needed(closed.basis), LOG, upto=2))
    invoice = bill(basis_of(subscription=ended), measure([], LOG), found)
    assert (invoice.lines, str(invoice.total)) == ((), "5.00")
    assert needed(invoice.basis) == []
    assert adjust("inv_2", invoice, found, measure([], LOG)) == ()


def test_each_price_is_adjusted_by_itself() -> None:
    closed = invoice_of(basis_of(*three_charges()), [])
    start = at("2025-01-05")
    log = [
        Event("feat_1", start, Decimal(1), position=1),
        Event("feat_3", start + timedelta(days=1), Decimal(4), position=2),
    ]
    found = adjust("inv_1", closed, (), measure(needed(closed.basis), log))
    assert [(one.line.feature_id, str(one.amount)) for one in found] == [
        ("feat_1", "0.01"),
        ("feat_3", "0.02"),
    ]
