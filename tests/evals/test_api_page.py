import re
from pathlib import Path

from evals.api_page import PAGE, render
from evals.openapi_document import describe_api

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_code_says_now() -> None:
    again = "run python -m evals.api_page"
    assert (ROOT / PAGE).read_text() == render(), again


def test_every_route_has_its_row_with_all_its_answers() -> None:
    rows = dict(re.findall(r"^\| `(.+?)`.*\| (.*?) \|$", render(), re.MULTILINE))
    routes = {
        f"{method.upper()} {path}": operation
        for path, operations in describe_api()["paths"].items()
        for method, operation in operations.items()
    }
    assert rows.keys() == routes.keys()
    for route, operation in routes.items():
        told = [answer.split()[0] for answer in rows[route].split(", ")]
        assert told == sorted(operation["responses"])
