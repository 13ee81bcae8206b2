"""Every route keeps the word of the OpenAPI document, whatever it is asked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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

DOCUMENT: dict[str, Any] = SCHEMA.raw_schema
OPERATIONS = {
    operation["operationId"]: SCHEMA[path][method.upper()]
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
#: What a body is where the document has no example.
BODIES = {"create_prediction": {"version": "3", "input": {"prompt": "a red star"}}}


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


def find_makers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return operations that make something, each with the links that its answer has."""
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                if "links" in answer and operation["operationId"] != "create_replicate_file":
                    yield operation["operationId"], answer["links"]


def body_of(name: str) -> dict[str, Any]:
    """Return arguments of a case: the body of an operation that needs one."""
    raw = OPERATIONS[name].definition.raw
    content = raw.get("requestBody", {}).get("content", {})
    examples = content.get("application/json", {}).get("examples", {})
    if name not in BODIES and not examples:
        return {}
    body = BODIES.get(name) or next(iter(examples.values()))["value"]
    return {"body": body, "media_type": "application/json"}


@pytest.mark.parametrize(("maker", "links"), [*find_makers()])
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_links_may_be_followed_in_any_order(
    client: TestClient, maker: str, links: dict[str, Any], data: st.DataObject
) -> None:
    call = {
        "app": client.app,
        "headers": {"Authorization": client.headers["Authorization"], "Prefer": "respond-async"},
        "timeout": TIMEOUT_S,
    }
    answer = OPERATIONS[maker].Case(**body_of(maker)).call_and_validate(**call)
    assert answer.status_code in {201, 202}, answer.text
    made = answer.json()
    order = data.draw(st.permutations(list(links.values())))
    # Last, when it is canceled: the stream of a prediction that waits says nothing for as long.
    for link in sorted(order, key=lambda link: link["operationId"] == "follow_prediction"):
        (parameter,) = link["parameters"]
        case = OPERATIONS[link["operationId"]].Case(
            path_parameters={parameter: made["id"]}, **body_of(link["operationId"])
        )
        answer = case.call_and_validate(**call)
        # Gone or done: what was made before is known by this id.
        assert answer.status_code in {200, 201, 202, 204, 404, 409}, answer.text
