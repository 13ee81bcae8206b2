import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.tokens import TokenCounter
from shared.catalog import Catalog
from shared.errors import ConfigurationError


@pytest.fixture(scope="session")
def counter(catalog: Catalog) -> TokenCounter:
    return TokenCounter(catalog)


@pytest.fixture(scope="session")
def older(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    """The demo model as an older one would ship: without tokenizer.json."""
    demo = catalog.models["demo"]
    folder = tmp_path_factory.mktemp("older")
    (folder / "tokenizer").mkdir()
    model = json.loads((demo.path / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(merges) + "\n")
    return TokenCounter(Catalog("demo", {"demo": replace(demo, path=folder)}))


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 2), ("star", 3), ("a red star", 5), ("  A  RED\nstar ", 5), ("a red star " * 8, 26)],
)
def test_the_marks_count_and_nothing_is_cut_or_filled(
    counter: TokenCounter, text: str, count: int
) -> None:
    assert counter.count("demo", text) == count


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_both_forms_of_a_tokenizer_count_alike(
    counter: TokenCounter, older: TokenCounter, text: str
) -> None:
    assert counter.count("demo", text) == older.count("demo", text)


def test_a_tokenizer_that_cannot_be_read_stops_the_process(
    catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps({}))
    broken = replace(catalog.models["demo"], path=tmp_path)
    with pytest.raises(ConfigurationError, match="demo"):
        TokenCounter(Catalog("demo", {"demo": broken}))
