import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import CATALOG
from models.fit_preview import fit_preview, read_pictures, scenes
from models.preview_map import FILE_NAME, PreviewMap, load_preview_map

DEMO = CATALOG.parent / "demo"
MAP = PreviewMap(((1.0, 0.0, 0.0), (0.0, 0.5, 0.0)), (0.0, 0.0, 0.2), 1.5)


def test_a_cell_becomes_its_weighted_channels_plus_the_bias() -> None:
    latents = np.array([[[0.0, 1.0, -9.0]], [[0.0, 1.0, 9.0]]], np.float32)  # [2, 1, 3]
    assert MAP.apply(latents).tolist() == [[[0, 0, 51], [255, 128, 51], [0, 255, 51]]]


def test_a_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert load_preview_map(tmp_path, channels=2) is None
    MAP.save(tmp_path)
    read = load_preview_map(tmp_path, channels=2)
    assert read is not None
    assert np.allclose(read.weights, MAP.weights)
    assert np.allclose(read.bias, MAP.bias)
    assert read.rms_error == MAP.rms_error


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"weights": [[1, 2, 3]], "bias": [1, 2, 3], "rms_error": 1}',
        '{"weights": [[1, 2], [3, 4]], "bias": [1, 2, 3], "rms_error": 1}',
        '{"weights": [[1, 2, 3], [4, 5, 6]], "bias": 1, "rms_error": 1}',
        '{"weights": [[1, 2, 3], [4, 5, "x"]], "bias": [1, 2, 3], "rms_error": 1}',
    ],
)
def test_a_file_that_is_no_fit_of_the_model_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ValueError, match=r"fit|Expecting|convert"):
        load_preview_map(tmp_path, channels=2)


def test_the_fit_of_the_shipped_model_is_near_what_a_few_scenes_give() -> None:
    torch.set_num_threads(1)
    shipped = load_preview_map(DEMO, channels=4)
    few = fit_preview(DEMO, itertools.islice(scenes(), 64))
    assert shipped is not None
    assert few.rms_error == pytest.approx(shipped.rms_error, rel=0.1)
    assert np.allclose(few.weights, shipped.weights, atol=0.05)


@pytest.mark.slow
def test_the_shipped_fit_is_what_the_command_writes(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    fit_preview(DEMO, scenes()).save(tmp_path)
    written, shipped = (json.loads((folder / FILE_NAME).read_text()) for folder in (tmp_path, DEMO))
    # Another processor may round the last digit otherwise.
    assert np.allclose(written["weights"], shipped["weights"], atol=2e-5)
    assert np.allclose(written["bias"], shipped["bias"], atol=2e-5)


def test_pictures_of_any_size_and_kind_can_be_fitted_to(tmp_path: Path) -> None:
    Image.new("RGB", (300, 80), "red").save(tmp_path / "wide.png")
    Image.new("L", (20, 30)).save(tmp_path / "gray.png")
    assert [pixels.shape for pixels in read_pictures(tmp_path)] == [(256, 256, 3)] * 2
