from typing import Any

from openapi_spec_validator import validate

from shared.webhook import EndpointEvent, EventType
from tests.fixtures.api import Api


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
        "check_alive", "check_ready", "explain_problem_type",
    }  # fmt: skip


def test_refusals_are_documented_as_problem_details(api: Api) -> None:
    document = describe(api)
    submit = document["paths"]["/v1/jobs"]["post"]["responses"]
    assert set(submit) == {"202", "400", "401", "413", "415", "422", "500", "503"}
    for status in set(submit) - {"202"}:
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
    assert fields["required"] == ["prompt"]
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
