from pathlib import Path

from evals.catalog_page import PAGE, render
from shared.catalog_entry import ModelEntry

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_code_says_now() -> None:
    again = "run python -m evals.catalog_page"
    assert (ROOT / PAGE).read_text() == render(), again


def test_every_field_has_its_row() -> None:
    page = render()
    for name, field in ModelEntry.model_fields.items():
        assert f"| `{name}` | {field.description} |" in page
