"""The parts of the OpenAPI document that the framework does not write by itself."""

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.examples import EXAMPLES
from api.problems import MEDIA_TYPE, Problem

_EVENT_STREAM = "text/event-stream"
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")
#: What the document says of each group of operations, in this order.
TAGS = [
    {"name": "jobs", "description": "Submit jobs, follow them, fetch what they made"},
    {"name": "uploads", "description": "Pictures for jobs to start from"},
    {"name": "webhooks", "description": "Who is told of what becomes of jobs, and what was told"},
    {"name": "catalog", "description": "What can be asked for"},
    {"name": "openai", "description": "OpenAI's Images API over the same jobs"},
    {"name": "replicate", "description": "Replicate's predictions API over the same jobs"},
    {"name": "keys", "description": "Who may use the service, for what and how much"},
    {"name": "problems", "description": "What refusals mean"},
    {"name": "health", "description": "For whoever watches the process"},
]
SERVERS = [{"url": "/", "description": "This service"}]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the refusals of a route."""
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses
    }


def events_named(*names: str) -> dict[str, Any]:
    """Document the content of an answer that is a stream of server-sent events."""
    event = {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"enum": list(names)},
            "data": {"type": "string"},
            "id": {"type": "string"},
        },
    }
    return {_EVENT_STREAM: {"schema": event}}


def name_operation(route: APIRoute) -> str:
    """Name an operation after its function, so that generated clients read well."""
    return route.name


def describe(app: FastAPI) -> None:
    """Have the document say that refusals come as problem details, and what leads where.

    The framework's own description of a 422 is taken out: no route answers so.
    """
    generate = app.openapi

    def describe_with_problems() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        document = generate()
        if is_new:
            for path in (*document["paths"].values(), *document["webhooks"].values()):
                for operation in path.values():
                    operation["responses"] = dict(_correct(operation["responses"]))
                    _add_examples(operation)
            _add_links(document["paths"])
            for name in _FRAMEWORKS_OWN:
                document["components"]["schemas"].pop(name, None)
        return document

    app.openapi = describe_with_problems  # type: ignore[method-assign]


def _correct(responses: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for status, answer in responses.items():
        if "content" not in answer or status == "default" or int(status) < 400:
            yield status, _as_3_1(answer)
            continue
        # Of the media type of the route's other answers.
        (content,) = answer["content"].values()
        schema = content["schema"].get("$ref", "")
        if schema.endswith(Problem.__name__):
            yield status, answer | {"content": {MEDIA_TYPE: content}}
        elif not schema.endswith(_FRAMEWORKS_OWN):
            yield status, answer


def _as_3_1(answer: dict[str, Any]) -> dict[str, Any]:
    """Write what an event of a stream is where a reader of OpenAPI 3.1 looks for it.

    The framework writes `itemSchema`, which only 3.2 knows, into a document that says it is 3.1.
    """
    stream = answer.get("content", {}).get(_EVENT_STREAM)
    if stream is None or "itemSchema" not in stream:
        return answer
    return answer | {"content": {_EVENT_STREAM: {"schema": stream["itemSchema"]}}}


def _add_examples(operation: dict[str, Any]) -> None:
    examples = EXAMPLES.get(operation["operationId"])
    if examples:
        operation["requestBody"]["content"]["application/json"]["examples"] = {
            name: {"summary": example.summary, "value": dict(example.value)}
            for name, example in examples.items()
        }


def _add_links(paths: dict[str, Any]) -> None:
    """Say of whatever is made in a list that its id leads to the operations on one of the list."""
    for path, operations in paths.items():
        made = operations.get("post", {}).get("responses", {})
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {name: "$response.body#/id"},
            }
            for below, others in paths.items()
            if (name := _only_parameter(below.removeprefix(path)))
            for operation in others.values()
        }
        for status in {"201", "202"} & made.keys():
            if links:
                made[status]["links"] = links


def _only_parameter(rest: str) -> str | None:
    """Return the name of the parameter that a path begins with, if it has no other."""
    match = re.fullmatch(r"/\{(\w+)\}(/[^{]*)?", rest)
    return None if match is None else match[1]
