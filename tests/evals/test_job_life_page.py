from pathlib import Path

from evals.job_life_page import EDGES, PAGE, draw, edges, render
from shared.job import TRANSITIONS

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_code_says_now() -> None:
    again = "run python -m evals.job_life_page"
    assert (ROOT / PAGE).read_text() == render(), again


def test_every_transition_is_drawn_and_explained_and_nothing_else_is() -> None:
    expected = {(here, there) for here, targets in TRANSITIONS.items() for there in targets}
    assert set(edges()) == set(EDGES) == expected
    drawn = {line.strip().partition(":")[0] for line in draw().splitlines()[1:]}
    ends = {"succeeded --> [*]", "failed --> [*]", "canceled --> [*]"}
    transitions = {f"{here} --> {there}" for here, there in expected}
    assert drawn == {"[*] --> queued"} | transitions | ends
