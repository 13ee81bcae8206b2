"""The parts of the OpenAPI document that the framework does not write by itself."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.problems import MEDIA_TYPE, Problem

_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the refusals of a route."""
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses
    }


def name_operation(route: APIRoute) -> str:
    """Name an operation after its function, so that generated clients read well."""
    return route.name


def describe(app: FastAPI) -> None:
    """Have the document say that refusals come as problem details.

    The framework's own description of a 422 is taken out: no route answers so.
    """
    generate = app.openapi

    def describe_with_problems() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        document = generate()
        if is_new:
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"] = dict(_correct(operation["responses"]))
            for name in _FRAMEWORKS_OWN:
                document["components"]["schemas"].pop(name, None)
        return document

    app.openapi = describe_with_problems  # type: ignore[method-assign]


def _correct(responses: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for status, answer in responses.items():
        if int(status) < 400:
            yield status, answer
            continue
        # Of the media type of the route's other answers.
        (content,) = answer["content"].values()
        if not content["schema"]["$ref"].endswith(_FRAMEWORKS_OWN):
            yield status, answer | {"content": {MEDIA_TYPE: content}}
