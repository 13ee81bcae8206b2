from pathlib import Path

from dispatcher.checks import CHECKS
from evals.metrics_page import PAGE, render

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_code_says_now() -> None:
    again = "run python -m evals.metrics_page"
    assert (ROOT / PAGE).read_text() == render(), again


def test_every_gauge_has_its_row() -> None:
    page = render()
    assert len(CHECKS) > 10
    for check in CHECKS:
        assert f"| `latentq_{check.name}` | {check.meaning} | {check.remedy} |" in page
