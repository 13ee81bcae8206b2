import json
from pathlib import Path

from openapi_spec_validator import validate

from evals.openapi_document import DOCUMENT, render

ROOT = Path(__file__).parents[2]


def test_the_committed_document_is_what_the_code_says_now() -> None:
    again = "run python -m evals.openapi_document"
    assert (ROOT / DOCUMENT).read_text() == render(), again


def test_the_committed_document_is_valid() -> None:
    validate(json.loads((ROOT / DOCUMENT).read_text()))
