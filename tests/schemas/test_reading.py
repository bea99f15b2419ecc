"""What is said of a field that has the wrong type: a sentence, with what belongs there."""

from typing import Any

import pytest

from schemas.errors import InvalidRequest
from schemas.event_queries import EventQuery
from schemas.reading import read
from schemas.usage import UsageRequest

SUM = {"event_name": "e", "aggregation_type": "SUM_WITH_MULTIPLIER", "property_name": "n"}


@pytest.mark.parametrize(
    ("model", "body", "said"),
    [
        (EventQuery, [1], "The body should be an object"),
        (EventQuery, {"event_name": 5}, "event_name should be a valid string"),
        (EventQuery, {"property_filters": 5}, "property_filters should be an object"),
        (EventQuery, {"property_filters": {"a": 5}}, "property_filters.a should be a valid list"),
        (
            UsageRequest,
            SUM | {"multiplier": "NaN"},
            'multiplier is not a number: write it as a text, like "0.001"',
        ),
    ],
)
def test_a_wrong_type_is_named_with_the_right_one(model: Any, body: Any, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(model, body)
    assert str(refused.value) == said
    assert [fault.code for fault in refused.value.errors] == ["wrong_type"]
