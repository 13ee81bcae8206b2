"""`python -m evals.problems_page`: write the page of problems, from the registry's own word."""

from pathlib import Path
from typing import Annotated

import typer

from api.problem_guide import explain_problem
from api.problems import PROBLEM_TYPES

PAGE = Path("docs/reference/problems.md")
_INTRODUCTION = """\
# Problems

Every answer that is not a success is `application/problem+json` (RFC 9457). `code` and `title`
never change; `detail` tells of this occurrence, `errors` of each field by a JSON Pointer, and
neither repeats what was sent. `type` leads to the section below that the service itself shows at
this path, without a key. Beside what the examples show stand `instance`, `request_id`, and `error`
and `error_type` for the SDKs of other services. Answers of 429 and 503 say in `Retry-After` when to
come back.

Made by `python -m evals.problems_page`; do not edit it by hand.
"""


def main(output: Annotated[Path, typer.Option(help="Where to write it.")] = PAGE) -> None:
    """Write the page."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render())
    print(f"wrote {output}")  # noqa: T201


def render() -> str:
    """Write the whole page as markdown."""
    return "\n".join([_INTRODUCTION, *map(explain_problem, PROBLEM_TYPES)])


if __name__ == "__main__":
    typer.run(main)
