"""`python -m evals.openapi_document`: write the OpenAPI document as the service would show it."""

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from api.main import create_app
from api.services import Services

DOCUMENT = Path("docs/reference/openapi.json")


def main(output: Annotated[Path, typer.Option(help="Where to write it.")] = DOCUMENT) -> None:
    """Write the document."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render())
    print(f"wrote {output}")  # noqa: T201


def render() -> str:
    """Write the document as JSON, a member a line, so that a change shows what it changes."""
    return json.dumps(describe_api(), indent=2, ensure_ascii=False) + "\n"


def describe_api() -> dict[str, Any]:
    """Make the document; it tells of the routes alone, and they ask for services when called."""
    return create_app(cast("Services", None)).openapi()


if __name__ == "__main__":
    typer.run(main)
