"""Pages that say which test shows something name tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THREATS = ROOT / "docs" / "explanation" / "threat-model.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_ROW = re.compile(r"^\| (?:[stride](?:, )?)+ \|.*$", re.MULTILINE)
PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if _TEST.search(path.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for name, test in _TEST.findall(page.read_text()):
        source = (ROOT / name).read_text()
        assert not test or f"def {test}(" in source, f"{name}::{test}"


def test_every_threat_has_an_answer_that_something_shows() -> None:
    rows = _ROW.findall(THREATS.read_text())
    assert len(rows) > 20
    named = set()
    for row in rows:
        letters, threat, answer, shown, _left = (cell.strip() for cell in row.split("|")[1:-1])
        named.update(letters.split(", "))
        assert threat
        assert answer
        assert _TEST.search(shown) or "](" in shown, threat
    assert named == set("stride")
