"""What holds for every model that is shipped, whatever it makes."""

import json
from pathlib import Path

import pytest

from models import CATALOG
from shared.catalog import Catalog

#: Bytes of everything in a model's folder.
MOST_BYTES = 25_000_000
SHELF = Catalog.load(CATALOG).models


@pytest.mark.parametrize("model", SHELF)
def test_it_is_small_and_names_no_place(model: str) -> None:
    files = files_of(SHELF[model].path)
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    for path in files:
        if path.suffix == ".json":
            content = json.loads(path.read_text())
            assert not str(content.get("_name_or_path", "")).startswith(("/", "."))


@pytest.mark.parametrize("model", SHELF)
def test_it_has_a_card_with_a_licence_and_the_logs_of_its_training(model: str) -> None:
    folder = SHELF[model].path
    assert (folder / "README.md").read_text().startswith("---\nlicense: mit\n")
    assert list((folder / "training").glob("*.csv"))
    assert not [path for path in files_of(folder) if path.suffix in {".bin", ".ckpt", ".pt"}]


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
