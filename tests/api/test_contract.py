"""Every route keeps the word of the OpenAPI document, whatever it is asked."""

import json
from pathlib import Path

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from api.openai import routes as openai_routes
from evals.openapi_document import DOCUMENT
from shared.access import ALL_SCOPES, KeyTerms
from shared.storage import ObjectStore
from tests.fixtures.api import Api

ROOT = Path(__file__).parents[2]
#: Nothing takes long: there is nobody else, and nobody waits.
TIMEOUT_S = 10
CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 1,
        "base-url": "http://testserver",
        # A stream of a job that waits never ends; its first event is enough.
        "max-stream-events": 1,
        # Whoever prefers to wait is held for up to a minute.
        "parameters": {"header.prefer": "respond-async"},
        "checks": {
            # There is no worker: who asks for a picture in the same answer asks in vain.
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "504"]},
            # What a catalog has and what a tenant has made stand in no document.
            "positive_data_acceptance": {"enabled": False},
            # Every route is asked without a key, and with wrong ones, in test_auth.py.
            "ignored_auth": {"enabled": False},
        },
        "generation": {"deterministic": True, "no-shrink": True},
    }
)
SCHEMA = schemathesis.openapi.from_dict(json.loads((ROOT / DOCUMENT).read_text()), config=CONFIG)


@pytest.fixture
def client(api: Api, real_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Somebody who may do everything."""
    monkeypatch.setattr(openai_routes, "MAX_WAIT_S", 0.0)
    return api.new_client(terms=KeyTerms(scopes=ALL_SCOPES), store=real_store)


@SCHEMA.parametrize()
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_route_keeps_the_documents_word(case: schemathesis.Case, client: TestClient) -> None:
    key = {"Authorization": client.headers["Authorization"]}
    case.call_and_validate(app=client.app, headers=key, timeout=TIMEOUT_S)
