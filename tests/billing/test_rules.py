"""The rules of a bill in plain numbers, and mistakes planted in billing: each breaks its rule.

A subscription at 1 dollar for an event (0.005 for a small one), monthly from January on, in UTC.
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest

from billing import charges as charging
from billing import invoices as invoicing
from billing import periods as cutting
from billing.charges import Basis, Charge, charges_of, due
from billing.invoices import Invoice, adjust, bill, needed
from billing.limits import Granted, beyond
from billing.periods import Period, periods
from billing.pricing import rounded
from billing.windows import to_ms
from schemas.plans import Subscription
from tests.billing.metering import Event, event, measure
from tests.billing.sold import at, make_entitlement, make_feature, make_price, make_subscription

MANY = "2025-12-31"


def invoices_of(
    subscription: Subscription, used: list[Event], sold: list[Charge], until: str
) -> list[Invoice]:
    """The invoices of the periods that start before a day, each with its plan's prices."""
    found = []
    for period in cutting.periods(subscription, at(until)):
        prices = [charge.price for charge in sold]
        limits = [charge.entitlement for charge in sold if charge.entitlement is not None]
        features = {charge.feature.id: charge.feature for charge in sold}
        of_plan = charging.charges_of(period.plan_id, "usd", prices, limits, features, {})
        basis = Basis(subscription, period, 2, of_plan)
        found.append(invoicing.bill(basis, measure(needed(basis), used)))
    return found


def totals(subscription: Subscription, used: list[Event], *sold: Charge, until: str) -> list[str]:
    """What the periods come to."""
    return [str(each.total) for each in invoices_of(subscription, used, list(sold), until)]


def charge(amount: str = "1", **more: Any) -> Charge:
    """A feature at an amount for each event."""
    plan, limit = more.pop("plan", "plan_a"), more.pop("limit", None)
    name = more.pop("feature", "feat_1")
    return Charge(
        price=make_price(amount, plan=plan, feature=name),
        feature=make_feature("COUNT", name=name),
        entitlement=None if limit is None else make_entitlement(limit, plan=plan, feature=name),
    )


def rule_of_edges() -> None:
    """What lies on the edge of two periods belongs to the later one, and to it alone."""
    used = [event("2025-01-31T23:59:59.999"), event("2025-02-01"), event("2025-02-28T23:59:59.999")]
    assert totals(make_subscription(), used, charge(), until="2025-03-02") == [
        "1.00",
        "2.00",
        "0.00",
    ]


def rule_of_changes() -> None:
    """A plan ends in the moment in which the next begins: each event has one price."""
    used = [event("2025-01-14T23:59:59.999"), event("2025-01-15"), event("2025-01-15T12:00")]
    subscription = make_subscription(changes={"plan_b": "2025-01-15"})
    sold = charge(), charge("10", plan="plan_b")
    assert totals(subscription, used, *sold, until="2025-02-01") == ["1.00", "20.00"]


def rule_of_phases() -> None:
    """Each period is priced by the plan that held in it, also when others followed."""
    used = [event(f"2025-0{month}-10") for month in (1, 2, 3)]
    subscription = make_subscription(changes={"plan_b": "2025-02-01", "plan_c": "2025-03-01"})
    sold = charge(), charge("10", plan="plan_b"), charge("100", plan="plan_c")
    assert totals(subscription, used, *sold, until="2025-03-02") == ["1.00", "10.00", "100.00"]


def rule_of_limits() -> None:
    """A free limit is taken off once a period, and is full again in the next."""
    used = [event(f"2025-0{month}-0{day}") for month in (1, 2) for day in range(1, 8)]
    found = totals(make_subscription(), used, charge(limit=3), until="2025-02-02")
    assert found == ["4.00", "4.00"]


def rule_of_rounding() -> None:
    """A line is rounded once, half up, and a total is the sum of its lines."""
    sold = [charge("0.005", feature=f"feat_{n}") for n in range(3)]
    used = [event("2025-01-05", feature=f"feat_{n}") for n in range(3)]
    [invoice] = invoices_of(make_subscription(), used, sold, "2025-01-02")
    assert [str(line.amount) for line in invoice.lines] == ["0.01"] * 3
    assert str(invoice.total) == "0.03"
    doubled = [*used, *used]
    [invoice] = invoices_of(make_subscription(), doubled, sold, "2025-01-02")
    assert str(invoice.total) == "0.03"  # two events of half a cent are one cent, not two


def rule_of_adjustments() -> None:
    """What was billed for a period, with all its adjustments, is what it comes to now."""
    subscription, sold = make_subscription(), [charge()]
    used = [event("2025-01-05")]
    closed, *_ = invoices_of(subscription, used, sold, "2025-01-02")
    billed = [closed.total]
    earlier: list[Any] = []
    for late in range(3):
        used.append(event(f"2025-01-1{late}"))
        found = invoicing.adjust("inv_1", closed, earlier, measure(needed(closed.basis), used))
        later = Basis(subscription, next(periods(subscription, at(MANY))), 2, ())
        billed.append(invoicing.bill(later, measure([], used), found).total)
        earlier += found
    assert billed == [Decimal("1.00")] * 4
    assert invoicing.adjust("inv_1", closed, earlier, measure(needed(closed.basis), used)) == ()


RULES = {
    rule.__name__: rule
    for rule in (
        rule_of_edges, rule_of_changes, rule_of_phases, rule_of_limits, rule_of_rounding,
        rule_of_adjustments,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_a_bill_keeps_to(name: str) -> None:
    RULES[name]()


Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: dict[str, tuple[str, Plant]] = {}


def breaks(rule: str) -> Callable[[Plant], Plant]:
    """Note a mistake, and the rule that it breaks."""

    def noted(plant: Plant) -> Plant:
        PLANTED[plant.__name__] = rule, plant
        return plant

    return noted


@breaks("rule_of_edges")
def a_period_ends_a_moment_late(patch: pytest.MonkeyPatch) -> None:
    def usage(basis: Basis, charge: Charge) -> Any:
        end = to_ms(basis.period.end) + 1
        return charging._measure(basis, charge, to_ms(basis.period.start), end)

    patch.setattr(charging, "_usage", usage)


@breaks("rule_of_edges")
def a_period_begins_a_moment_late(patch: pytest.MonkeyPatch) -> None:
    def usage(basis: Basis, charge: Charge) -> Any:
        start = to_ms(basis.period.start) + 1
        return charging._measure(basis, charge, start, to_ms(basis.period.end))

    patch.setattr(charging, "_usage", usage)


@breaks("rule_of_changes")
def the_day_of_a_change_belongs_to_both_plans(patch: pytest.MonkeyPatch) -> None:
    def usage(basis: Basis, charge: Charge) -> Any:
        end = min(basis.period.end + timedelta(days=1), basis.period.whole_end)
        start = to_ms(basis.period.start)
        return charging._measure(basis, charge, start, to_ms(end))

    patch.setattr(charging, "_usage", usage)


@breaks("rule_of_changes")
def the_whole_period_is_billed_by_each_plan(patch: pytest.MonkeyPatch) -> None:
    real = cutting._periods

    def whole(*rest: Any, **named: Any) -> Any:
        for period in real(*rest, **named):
            yield Period(
                period.whole_start, period.whole_end, period.plan_id, period.plan_start,
                period.whole_start, period.whole_end,
            )  # fmt: skip

    patch.setattr(cutting, "_periods", whole)


@breaks("rule_of_phases")
def the_newest_plan_prices_every_period(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(charging, "charges_of", lambda _, *rest: charges_of("plan_c", *rest))


@breaks("rule_of_limits")
def a_limit_is_taken_off_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(charging, "beyond", lambda values, limit: beyond(beyond(values, limit), limit))


@breaks("rule_of_limits")
def a_limit_is_granted_once_for_good(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(charging, "granted", lambda *_: Granted.ONCE)


@breaks("rule_of_rounding")
def only_the_total_is_rounded(patch: pytest.MonkeyPatch) -> None:
    def billed(basis: Basis, measured: Any, adjustments: Any = ()) -> Invoice:
        invoice = bill(basis, measured, adjustments)
        whole = sum((due(basis, each, measured).amount for each in basis.charges), Fraction())
        return type(invoice)(
            basis, invoice.lines, invoice.adjustments, rounded(whole, basis.digits), invoice.upto
        )

    patch.setattr(invoicing, "bill", billed)


@breaks("rule_of_rounding")
def every_event_is_rounded(patch: pytest.MonkeyPatch) -> None:
    def amount(price: Any, quantity: Fraction) -> Fraction:
        return Fraction(rounded(Fraction(price.amount), 2)) * quantity

    patch.setattr(charging, "amount", amount)


@breaks("rule_of_adjustments")
def an_adjustment_counts_twice(patch: pytest.MonkeyPatch) -> None:
    real = invoicing.total_of

    def total_of(items: Any, digits: int) -> Decimal:
        every = list(items)
        return real([*every, *(each for each in every if hasattr(each, "late"))], digits)

    patch.setattr(invoicing, "total_of", total_of)


@breaks("rule_of_adjustments")
def earlier_adjustments_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        invoicing, "adjust", lambda name, closed, _, measured: adjust(name, closed, [], measured)
    )


@breaks("rule_of_adjustments")
def an_adjustment_bills_the_whole_line_again(patch: pytest.MonkeyPatch) -> None:
    def again(*rest: Any) -> tuple[Any, ...]:
        return tuple(msgspec.structs.replace(one, amount=one.line.amount) for one in adjust(*rest))

    patch.setattr(invoicing, "adjust", again)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_breaks_its_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, plant = PLANTED[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        RULES[rule]()
