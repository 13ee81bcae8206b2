import json
from pathlib import Path
from typing import Any

from openapi_spec_validator import validate

from api.examples import EXAMPLES
from evals.openapi_document import DOCUMENT
from shared.access import ALL_SCOPES, KeyTerms
from shared.webhook import EndpointEvent, EventType
from tests.fixtures.api import Api

ROOT = Path(__file__).parents[2]


def describe(api: Api) -> dict[str, Any]:
    document: dict[str, Any] = api.client.get("/openapi.json").json()
    return document


def test_operations_are_named_for_what_they_do(api: Api) -> None:
    names = {
        operation["operationId"]
        for path in describe(api)["paths"].values()
        for operation in path.values()
    }
    assert names == {
        "submit_job", "get_job", "list_jobs", "cancel_job", "delete_job", "retry_job",
        "list_attempts", "get_artifact", "list_models", "list_presets", "list_samplers",
        "create_upload", "complete_upload",
        "list_deliveries", "redeliver", "create_webhook_endpoint", "list_webhook_endpoints",
        "get_webhook_endpoint", "update_webhook_endpoint", "delete_webhook_endpoint",
        "get_webhook_secret", "rotate_webhook_secret", "test_webhook_endpoint",
        "list_keys", "create_key", "rotate_key", "revoke_key",
        "check_alive", "check_ready", "explain_problem_type",
        "create_prediction", "create_model_prediction", "get_prediction", "list_predictions",
        "cancel_prediction", "follow_prediction", "get_default_secret",
        "get_replicate_model", "get_replicate_version",
        "create_replicate_file", "get_replicate_file",
        "generate_images", "edit_images", "list_openai_models", "get_openai_model",
        "estimate_job", "submit_batch", "submit_sweep", "get_preset", "put_preset", "delete_preset",
        "stream_events",
    }  # fmt: skip


def test_refusals_are_documented_as_problem_details(api: Api) -> None:
    document = describe(api)
    submit = document["paths"]["/v1/jobs"]["post"]["responses"]
    refused = {"400", "401", "403", "413", "415", "422", "429", "500", "503"}
    assert set(submit) == {"200", "202"} | refused
    for status in refused:
        assert submit[status]["content"] == {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        }
    assert describe(api) == document
    assert "422" not in document["paths"]["/v1/jobs/{job_id}"]["get"]["responses"]
    assert "ValidationError" not in str(document)


def test_the_key_and_the_body_are_documented(api: Api) -> None:
    document = describe(api)
    submit = document["paths"]["/v1/jobs"]["post"]
    assert submit["security"] == [{"HTTPBearer": []}]
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert submit["requestBody"]["required"] is True
    fields = document["components"]["schemas"]["JobCreate"]
    # A prompt or a label, as the model has it.
    assert "required" not in fields
    assert fields["additionalProperties"] is False
    assert "security" not in document["paths"]["/livez"]["get"]


def test_messages_to_receivers_are_documented(api: Api) -> None:
    document = describe(api)
    validate(document)
    messages = document["webhooks"]
    assert set(messages) == {*EventType, *EndpointEvent}
    for name, message in messages.items():
        parameters = {parameter["name"] for parameter in message["post"]["parameters"]}
        assert parameters == {"webhook-id", "webhook-timestamp", "webhook-signature"}
        schema = message["post"]["requestBody"]["content"]["application/json"]["schema"]
        body = "EndpointEventBody" if name == EndpointEvent.TEST else "JobEventBody"
        assert schema == {"$ref": f"#/components/schemas/{body}"}


def test_whatever_is_made_leads_to_what_can_be_done_with_it(api: Api) -> None:
    document = describe(api)
    validate(document)
    links = document["paths"]["/v1/jobs"]["post"]["responses"]["202"]["links"]
    assert links["cancel_job"] == {
        "operationId": "cancel_job",
        "parameters": {"job_id": "$response.body#/id"},
    }
    assert {"get_job", "cancel_job", "delete_job", "retry_job", "list_attempts"} <= links.keys()
    assert "get_artifact" not in links
    created = document["paths"]["/v1/webhook-endpoints"]["post"]["responses"]["201"]["links"]
    assert {"get_webhook_endpoint", "test_webhook_endpoint"} <= created.keys()
    assert "links" not in document["paths"]["/v1/jobs/{job_id}/cancel"]["post"]["responses"]["202"]


def test_every_group_of_operations_is_described(api: Api) -> None:
    document = describe(api)
    used = {
        tag
        for path in (*document["paths"].values(), *document["webhooks"].values())
        for operation in path.values()
        for tag in operation["tags"]
    }
    assert used == {tag["name"] for tag in document["tags"]}
    assert document["servers"] == [{"url": "/", "description": "This service"}]


def test_every_example_is_taken_as_it_is(api: Api) -> None:
    client = api.new_client(terms=KeyTerms(scopes=ALL_SCOPES))
    sent = 0
    for path, operations in describe(api)["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {})
            examples = content.get("application/json", {}).get("examples", {})
            for example in examples.values():
                where = path.replace("{name}", "house")
                if "{endpoint_id}" in path:
                    endpoints = client.get("/v1/webhook-endpoints").json()["data"]
                    where = path.replace("{endpoint_id}", endpoints[0]["id"])
                answer = client.request(method, where, json=example["value"])
                assert answer.status_code in {200, 201, 202}, answer.text
                sent += 1
    assert sent == sum(map(len, EXAMPLES.values()))
    # A batch of two and a sweep of two by two among them.
    assert api.count_jobs() == len(EXAMPLES["submit_job"]) + 2 + 4


def test_the_document_that_is_served_is_the_committed_one(api: Api) -> None:
    assert describe(api) == json.loads((ROOT / DOCUMENT).read_text())


def test_routes_that_take_an_idempotency_key_say_so(api: Api) -> None:
    taking = {
        operation["operationId"]
        for path in describe(api)["paths"].values()
        for operation in path.values()
        if any(p["name"] == "Idempotency-Key" for p in operation.get("parameters", []))
    }
    assert {"submit_job", "submit_batch", "submit_sweep", "retry_job"} <= taking
