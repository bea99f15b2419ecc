"""Requests made from the OpenAPI, good and bad: no answer that it doesn't announce, no 5xx."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from console import app, openapi
from ingest_gateway.description import OPERATIONS
from schemas.openapi import document
from tests.e2e.running import Tallylog

EXAMPLES = 8
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
DESCRIBED = [*OPERATIONS, *openapi.operations_of(app.routes())]
DOCUMENT = document(DESCRIBED, title="Tallylog", version="0")
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
NO_HTTP = {"invalid_http", "headers_too_large"}
"""What is answered before there is a request: to an address of 64 KiB, say."""
STREAMS = {"/v1/events/stream"}
"""Answers without an end."""


def codes(answer: Any) -> set[str]:
    """The code of a refusal, and those of its faults."""
    if answer.status_code not in (400, 431):
        return set()
    told = answer.json()
    return {told["code"], *(each["code"] for each in told["errors"])}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method.upper(), path)
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
        if path not in STREAMS
    ],
)
def test_every_answer_is_one_that_the_openapi_announces(
    method: str, path: str, mode: GenerationMode, tallylog: Tallylog
) -> None:
    operation = SCHEMA[path][method]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        headers = {"x-api-key": tallylog.api_key}
        answer = case.call(base_url=tallylog.base_url, headers=headers, timeout=20)
        if not NO_HTTP & codes(answer):
            case.validate_response(answer, checks=CHECKS)

    check()
