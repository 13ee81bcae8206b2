from pathlib import Path

from api.problem_guide import GUIDES
from api.problems import PROBLEM_TYPES
from evals.problems_page import PAGE, render

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_code_says_now() -> None:
    again = "run python -m evals.problems_page"
    assert (ROOT / PAGE).read_text() == render(), again


def test_every_code_is_explained_and_nothing_else_is() -> None:
    assert GUIDES.keys() == PROBLEM_TYPES.keys()
    sections = [line[3:] for line in render().splitlines() if line.startswith("## ")]
    assert sections == list(PROBLEM_TYPES)
