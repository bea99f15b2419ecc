"""The console compares some customers' states with their rows, and says where they differ."""

import logging

import pytest
from clickhouse_connect.driver import Client
from prometheus_client import REGISTRY

from console.store import Store
from console.verifying import Verifying
from tests.verification.conftest import client as client  # a store with blocks

pytestmark = pytest.mark.clickhouse


def test_what_differs_is_logged_and_measured(
    client: Client, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    verifying = Verifying(Store(store_url))
    assert verifying.look() == []
    assert REGISTRY.get_sample_value("verification_differing_states") == 0
    client.command("DELETE FROM usage_states WHERE feature_id = 'feat_SUM'")
    with caplog.at_level(logging.ERROR):
        found = verifying.look()
    assert found
    assert REGISTRY.get_sample_value("verification_differing_states") == len(found)
    assert "tallylog verify --repair" in caplog.text
