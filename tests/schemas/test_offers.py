"""Requests about what is sold: what is wrong with one is said with its place and its cure."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from schemas.errors import InvalidRequest
from schemas.offers import NewEntitlement, NewPrice
from schemas.reading import read, read_json
from schemas.subscriptions import Cancellation, NewSubscription
from tests.console.selling import flat, on, tiered


def refusal(model: type[BaseModel], wish: dict[str, Any]) -> InvalidRequest:
    """How a body with this JSON is refused."""
    with pytest.raises(InvalidRequest) as refused:
        read(model, read_json(json.dumps(wish).encode()))
    return refused.value


@pytest.mark.parametrize(
    ("wish", "pointer", "word"),
    [
        ({"type": "FIXED"}, "/type", "USAGE"),
        ({"invoice_cadence": "ADVANCE"}, "/invoice_cadence", "ARREAR"),
        ({"price_unit_type": "CUSTOM"}, "/price_unit_type", "FIAT"),
        ({"entity_type": "ADDON"}, "/entity_type", "PLAN"),
        ({"billing_period": "ONETIME"}, "/billing_period", "MONTHLY"),
        ({"billing_period_count": 0}, "/billing_period_count", "whole number"),
        ({"billing_model": "BLOCKS"}, "/billing_model", "TIERED"),
        ({"currency": "xxx"}, "/currency", "ISO 4217"),
        ({"currency": 840}, "/currency", "ISO 4217"),
        ({"amount": "-0.01"}, "/amount", "negative"),
        ({"amount": "free"}, "/amount", "not a number"),
        ({"amount": "1_000"}, "/amount", "not a number"),
        ({"amount": "0.0000000000000000001"}, "/amount", "too many digits"),
        ({"amount": None}, "/amount", "needs an amount"),
        ({"amount": True}, "/amount", "not a number"),
        ({"tiers": [{"unit_amount": "1"}]}, "/tiers", "takes no tiers"),
        ({"tier_mode": "SLAB"}, "/tier_mode", "takes no tier_mode"),
        ({"transform_quantity": {"divide_by": 2}}, "/transform_quantity", "takes no"),
        ({"billing_model": "PACKAGE"}, "/transform_quantity", "divide_by"),
        ({"trial_period_days": 14}, "/trial_period_days", "not supported"),
        ({"min_quantity": 5}, "/min_quantity", "not supported"),
        ({"filter_values": {"region": ["eu"]}}, "/filter_values", "not supported"),
        ({"bucket_size": "HOUR"}, "/bucket_size", "not supported"),
        ({"start_date": "2030-01-01T00:00:00Z"}, "/start_date", "not supported"),
        ({"end_date": "2030-01-01T00:00:00Z"}, "/end_date", "not supported"),
        ({"group_id": "g"}, "/group_id", "not supported"),
        ({"price_unit_config": {"amount": "1"}}, "/price_unit_config", "not supported"),
        ({"colour": "red"}, "/colour", "not a field"),
        ({"entity_id": None}, "/plan_id", "plan's id"),
        ({"plan_id": "plan_x"}, "/entity_id", "one of both"),
        ({"billing_model": "TIERED"}, "/amount", "in tiers"),
        ({"billing_model": "TIERED", "amount": ""}, "/tier_mode", "VOLUME or SLAB"),
    ],
)
def test_wrong_prices_are_refused_with_place_and_cure(
    wish: dict[str, Any], pointer: str, word: str
) -> None:
    sold = ({"id": "plan_1"}, {"meter_id": "meter_1"})
    refused = refusal(NewPrice, flat(*sold, **wish))
    assert refused.errors[0].pointer == pointer
    assert word in refused.message


@pytest.mark.parametrize(
    ("tiers", "pointer", "word"),
    [
        ([], "/tiers", "needs tiers"),
        ([{"up_to": 10, "unit_amount": "1"}], "/tiers", "end open"),
        ([{"unit_amount": "1"}, {"unit_amount": "2"}], "/tiers", "at the end only"),
        ([{"up_to": 10.5, "unit_amount": "1"}], "/tiers/0/up_to", "whole number"),
        ([{"up_to": 0, "unit_amount": "1"}], "/tiers/0/up_to", "whole number from 1"),
        ([{"unit_amount": "-1"}], "/tiers/0/unit_amount", "negative"),
        ([{"unit_amount": "1", "flat_amount": "-1"}], "/tiers/0/flat_amount", "negative"),
        ([{"up_to": 5}], "/tiers/0/unit_amount", "required"),
        (
            [{"up_to": u, "unit_amount": "1"} for u in (10, 10, None)],
            "/tiers",
            "have to ascend",
        ),
        ([{"unit_amount": "1"}] * 101, "/tiers", "at most 100"),
    ],
)
def test_wrong_tiers_are_refused(tiers: list[Any], pointer: str, word: str) -> None:
    wish = tiered({"id": "plan_1"}, {"meter_id": "meter_1"}, "SLAB", tiers=tiers)
    refused = refusal(NewPrice, wish)
    assert refused.errors[0].pointer == pointer
    assert word in refused.message


@pytest.mark.parametrize("divide_by", [0, -1, 2.5, "2.5", None, True])
def test_packages_have_whole_sizes(divide_by: object) -> None:
    package = {"billing_model": "PACKAGE", "transform_quantity": {"divide_by": divide_by}}
    wish = flat({"id": "plan_1"}, {"meter_id": "meter_1"}, **package)
    refused = refusal(NewPrice, wish)
    assert refused.errors[0].pointer == "/transform_quantity/divide_by"


@pytest.mark.parametrize(
    ("wish", "pointer", "word"),
    [
        ({"feature_type": "boolean"}, "/feature_type", "metered"),
        ({"usage_limit": 1.5}, "/usage_limit", "whole number"),
        ({"usage_limit": -1}, "/usage_limit", "whole number"),
        ({"usage_reset_period": "HOURLY"}, "/usage_reset_period", "NEVER"),
        ({"is_enabled": "yes"}, "/is_enabled", "boolean"),
        ({"grant_quota": "5"}, "/grant_quota", "not supported"),
        ({"static_value": "x"}, "/static_value", "not supported"),
        ({"is_soft_limit": True}, "/is_soft_limit", "not supported"),
        ({"aggregation_mode": "parallel"}, "/aggregation_mode", "additive"),
        ({"start_date": "2030-01-01T00:00:00Z"}, "/start_date", "not supported"),
        ({"entity_type": "SUBSCRIPTION"}, "/entity_type", "PLAN"),
        ({"plan_id": ""}, "/plan_id", "plan's id"),
    ],
)
def test_wrong_entitlements_are_refused(wish: dict[str, Any], pointer: str, word: str) -> None:
    whole = {"plan_id": "plan_1", "feature_id": "feat_1", "feature_type": "metered"} | wish
    refused = refusal(NewEntitlement, whole)
    assert refused.errors[0].pointer == pointer
    assert word in refused.message


@pytest.mark.parametrize(
    ("wish", "pointer", "word"),
    [
        ({"customer_id": ""}, "/customer_id", "external_customer_id"),
        ({"currency": "zzz"}, "/currency", "ISO 4217"),
        ({"billing_period": "ONETIME"}, "/billing_period", "MONTHLY"),
        ({"billing_period_count": 1.5}, "/billing_period_count", "whole number"),
        ({"billing_cycle": "lunar"}, "/billing_cycle", "calendar"),
        ({"timezone": "Mars/Olympus"}, "/timezone", "IANA"),
        ({"start_date": "2030-01-01"}, "/start_date", "ISO 8601"),
        ({"start_date": "1969-12-31T00:00:00Z"}, "/start_date", "1970"),
        (
            {"billing_cycle": "calendar", "billing_anchor": "2030-01-01T00:00:00Z"},
            "/billing_anchor",
            "leave it out",
        ),
        ({"trial_period_days": 14}, "/trial_period_days", "not supported"),
        ({"coupons": ["HALF"]}, "/coupons", "not supported"),
        ({"addons": [{"addon_id": "a"}]}, "/addons", "not supported"),
        ({"commitment_amount": "100"}, "/commitment_amount", "not supported"),
        ({"overage_factor": "1.5"}, "/overage_factor", "not supported"),
        ({"override_line_items": [{"price_id": "p"}]}, "/override_line_items", "not supported"),
        ({"override_entitlements": [{}]}, "/override_entitlements", "not supported"),
        ({"line_items": [{"price_id": "p"}]}, "/line_items", "not supported"),
        ({"line_item_coupons": {"p": ["c"]}}, "/line_item_coupons", "not supported"),
        ({"line_item_commitments": {"p": {}}}, "/line_item_commitments", "not supported"),
        ({"phases": [{"start_date": "2030-01-01T00:00:00Z"}]}, "/phases", "not supported"),
        ({"credit_grants": [{}]}, "/credit_grants", "not supported"),
        ({"tax_rate_overrides": [{}]}, "/tax_rate_overrides", "not supported"),
        ({"proration_behavior": "create_prorations"}, "/proration_behavior", "none"),
        ({"subscription_status": "draft"}, "/subscription_status", "active"),
        ({"collection_method": "charge_automatically"}, "/collection_method", "send_invoice"),
        ({"enable_true_up": True}, "/enable_true_up", "not supported"),
    ],
)
def test_wrong_subscriptions_are_refused(wish: dict[str, Any], pointer: str, word: str) -> None:
    whole = on({"id": "cust_1"}, {"id": "plan_1"}, **wish)
    refused = refusal(NewSubscription, whole)
    assert refused.errors[0].pointer == pointer
    assert word in refused.message


@pytest.mark.parametrize(
    ("wish", "pointer"),
    [
        ({}, "/cancellation_type"),
        ({"cancellation_type": "someday"}, "/cancellation_type"),
        ({"cancellation_type": "scheduled_date"}, "/cancel_at"),
        ({"cancellation_type": "immediate", "cancel_at": "2040-01-01T00:00:00Z"}, "/cancel_at"),
        (
            {"cancellation_type": "immediate", "proration_behavior": "create_prorations"},
            "/proration_behavior",
        ),
        (
            {"cancellation_type": "immediate", "cancel_immediately_invoice_policy": "skip"},
            "/cancel_immediately_invoice_policy",
        ),
    ],
)
def test_wrong_cancellations_are_refused(wish: dict[str, Any], pointer: str) -> None:
    refused = refusal(Cancellation, wish)
    assert refused.errors[0].pointer == pointer
