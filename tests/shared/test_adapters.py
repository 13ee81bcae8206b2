from pathlib import Path

import pytest

from shared.adapters import FILE_NAME
from shared.catalog import Catalog
from shared.errors import ConfigurationError
from tests.fixtures.loras import write_catalog


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What the catalog looks for; it does not look into it."""
    (tmp_path / "a.safetensors").touch()
    return tmp_path / "a.safetensors"


def test_an_adapter_says_what_it_fits_and_which_weights_it_takes(
    tmp_path: Path, file: Path
) -> None:
    catalog = write_catalog(
        tmp_path, {"plain": file, "own": file}, own="weight = 0.5\nmin_weight = -1\nmax_weight = 1"
    )
    plain, own = catalog.adapters["plain"], catalog.adapters["own"]
    assert (plain.weight, plain.min_weight, plain.max_weight) == (1.0, 0.0, 2.0)
    assert (own.weight, own.min_weight, own.max_weight) == (0.5, -1.0, 1.0)
    assert plain.path == file
    assert catalog.adapters_of("demo") == [plain, own]
    assert catalog.adapters_of("other") == []


def test_of_a_folder_the_file_is_taken_that_diffusers_writes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / FILE_NAME).touch()
    catalog = write_catalog(tmp_path, {"one": Path("one")})
    assert catalog.adapters["one"].path == tmp_path / "one" / FILE_NAME


@pytest.mark.parametrize(
    ("adapter_id", "path", "options", "complaint"),
    [
        ("a", "missing.safetensors", "", "adapter a: .*missing.safetensors is no safetensors"),
        ("a", "catalog.toml", "", "adapter a: .*catalog.toml is no safetensors file; name one"),
        ("a", ".", "", f"adapter a: .*{FILE_NAME} is no safetensors"),
        ("A", "a.safetensors", "", "adapters.A"),
        ("a", "a.safetensors", "weight = 3", "adapters.a: .*weight must lie between"),
        ("a", "a.safetensors", "min_weight = 1.5", "adapters.a: .*weight must lie between"),
        ("a", "a.safetensors", "max_weight = 11", "adapters.a.max_weight"),
        ("a", "a.safetensors", "max_weight = nan", "adapters.a.max_weight"),
        ("a", "a.safetensors", "rank = 4", "adapters.a.rank"),
    ],
)
def test_an_adapter_that_cannot_be_used_says_why(
    tmp_path: Path, file: Path, adapter_id: str, path: str, options: str, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        write_catalog(tmp_path, {adapter_id: Path(path)}, **{adapter_id: options})


@pytest.mark.parametrize(
    ("models", "complaint"), [('["other"]', "no model 'other'; known: demo"), ("[]", "models")]
)
def test_an_adapter_is_for_models_that_exist(
    tmp_path: Path, file: Path, models: str, complaint: str
) -> None:
    write_catalog(tmp_path, {"a": file})
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(catalog.read_text().replace('models = ["demo"]', f"models = {models}"))
    with pytest.raises(ConfigurationError, match=complaint):
        Catalog.load(catalog)
