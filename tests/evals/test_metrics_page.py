from pathlib import Path

from dispatcher.checks import CHECKS
from evals.metrics_page import PAGE, list_metrics, render
from tests.fixtures.stack import Stack

ROOT = Path(__file__).parents[2]
#: What could name a person, a job or a file, or have any number of values.
UNBOUNDED = {"tenant", "key_id", "job_id", "prompt", "path", "url", "host", "worker"}


def test_the_committed_tables_are_what_the_code_says_now() -> None:
    page = (ROOT / PAGE).read_text()
    assert page == render(page), "run python -m evals.metrics_page"


def test_every_gauge_of_a_bad_state_has_its_row() -> None:
    page = (ROOT / PAGE).read_text()
    assert len(CHECKS) > 10
    for check in CHECKS:
        assert f"| `latentq_{check.name}` | {check.meaning} | {check.remedy} |" in page


def test_no_label_has_values_without_end() -> None:
    for metrics in list_metrics().values():
        for metric in metrics:
            assert not set(metric.labels) & UNBOUNDED, metric


def test_the_processes_show_what_the_page_lists(stack: Stack) -> None:
    pages = stack.metrics()
    everywhere, api, dispatcher, worker = list_metrics().values()
    for name, listed in (
        ("api", [*everywhere, *api]),
        ("dispatcher", [*everywhere, *dispatcher]),
        ("worker-1", [*everywhere, *worker]),
        ("worker-2", [*everywhere, *worker]),
    ):
        shown = {
            tuple(line.split()[2:4])
            for line in pages[name].splitlines()
            if line.startswith("# TYPE ")
        }
        assert shown >= {(metric.name, metric.kind) for metric in listed}, name
