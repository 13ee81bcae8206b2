"""What import-linter cannot say about the tree."""

from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PROCESSES = ("api", "worker", "dispatcher")
MAX_LINES = 400
NAMES_WITHOUT_A_SUBJECT = {"utils", "util", "helpers", "common", "misc", "base"}


def python_files() -> list[Path]:
    folders = (*PROCESSES, "shared", "client", "cli", "bench", "evals", "models", "tests")
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]


def test_every_gateway_and_word_in_shared_is_used_by_two_processes() -> None:
    graph = grimp.build_graph("shared", *PROCESSES)

    def processes_reaching(module: str) -> set[str]:
        downstream = graph.find_downstream_modules(module, as_package=True)
        return {name.split(".")[0] for name in downstream} & set(PROCESSES)

    children = graph.find_children("shared")
    strays = {name for name in children if len(processes_reaching(name)) < 2}
    assert len(children) > 5
    assert not strays


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    files = python_files()
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert len(files) > 40
    assert not long


def test_every_file_has_a_subject() -> None:
    assert not [path for path in python_files() if path.stem in NAMES_WITHOUT_A_SUBJECT]


def test_no_package_marker_stands_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
