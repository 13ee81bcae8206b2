"""`python -m evals.api_page`: write the page of the API's routes, from its OpenAPI document."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from evals.openapi_document import describe_api
from evals.report import Table, render_page

PAGE = Path("docs/reference/api.md")
TITLE = "The API"
QUESTION = """\
What can be asked of the service? Each route with its parameters, its body and its answers; those
in bold must be there. The fields of the bodies are in [the OpenAPI document](openapi.json), which
every service shows at `/openapi.json`. A key goes into `Authorization: Bearer KEY`; routes marked
*open* need none. Answers from 400 are [problems](problems.md)."""
COLUMNS = ("route", "what it does", "parameters", "body", "answers")

JsonObject = Mapping[str, Any]


def main(output: Annotated[Path, typer.Option(help="Where to write it.")] = PAGE) -> None:
    """Write the page."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render())
    print(f"wrote {output}")  # noqa: T201


def render() -> str:
    """Write the whole page as markdown."""
    document = describe_api()
    tables = [
        Table(
            f"{tag['name']}: {tag['description'][0].lower()}{tag['description'][1:]}",
            COLUMNS,
            [
                _row(route, operation)
                for route, operation in _operations(document)
                if tag["name"] in operation["tags"]
            ],
            num_names=len(COLUMNS),
        )
        for tag in document["tags"]
    ]
    return render_page(TITLE, QUESTION, tables, "python -m evals.api_page")


def _operations(document: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"`{method.upper()} {path}`", operation
    for name, operations in document["webhooks"].items():
        for operation in operations.values():
            yield f"sent to you: `{name}`", operation


def _row(route: str, operation: JsonObject) -> tuple[str, ...]:
    is_sent = route.startswith("sent")
    return (
        route if is_sent or "security" in operation else f"{route} *open*",
        _flow(operation["description"]),
        ", ".join(map(_name_parameter, operation.get("parameters", []))),
        _name_body(operation.get("requestBody")),
        ", ".join(
            f"{status}{_name_answer(a)}" for status, a in sorted(operation["responses"].items())
        ),
    )


def _flow(text: str) -> str:
    """Write a description into one cell."""
    return " ".join(text.split())


def _name_parameter(parameter: JsonObject) -> str:
    name = f"`{parameter['name']}`" if parameter["in"] != "header" else f"{parameter['name']}:"
    return f"**{name}**" if parameter["required"] and parameter["in"] != "path" else name


def _name_body(body: JsonObject | None) -> str:
    if body is None:
        return ""
    names = [
        _name_schema(content["schema"]) or media_type
        for media_type, content in body["content"].items()
    ]
    name = " or ".join(dict.fromkeys(names))
    return f"**{name}**" if body.get("required") else name


def _name_answer(answer: JsonObject) -> str:
    schemas = [_name_schema(content["schema"]) for content in answer.get("content", {}).values()]
    names = [name for name in schemas if name not in {"", "Problem"}]
    return f" {' or '.join(names)}" if names else ""


def _name_schema(schema: JsonObject) -> str:
    """Name what a schema refers to; empty for one that stands where it is used."""
    choices = schema.get("anyOf", [schema])
    return " or ".join(ref.rpartition("/")[2] for one in choices if (ref := one.get("$ref", "")))


if __name__ == "__main__":
    typer.run(main)
