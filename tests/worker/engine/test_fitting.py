"""What would fit where something did not, said in what the job is measured in."""

import pytest

from models import CATALOG
from shared.catalog import Catalog
from worker.engine.fitting import advise_size


def advise(catalog: Catalog, model: str, shape: tuple[int, ...], limit: int) -> str:
    """Ask where at most `limit` cells fit."""

    def call(asked: tuple[int, ...]) -> None:
        cells = 1
        for side in asked:
            cells *= side
        if cells > limit:
            raise RuntimeError("out of memory")

    return advise_size(catalog.models[model], shape, call, where="in the decoder")


def test_a_picture_is_made_smaller_to_both_sides() -> None:
    said = advise(Catalog.load(CATALOG), "demo", (16, 32), 16 * 32 - 1)
    assert said.startswith("the device has too little memory for 128x64 pixels in the decoder")
    assert said.endswith("and has enough for 124x60")


@pytest.mark.parametrize(
    ("limit", "end"), [(4 * 30, "and has enough for 0.12"), (3, "and for any shorter sound")]
)
def test_a_sound_is_made_shorter(sound_catalog: Catalog, limit: int, end: str) -> None:
    said = advise(sound_catalog, "spectral", (50, 4), limit)
    assert said.startswith("the device has too little memory for 0.2 seconds in the decoder")
    assert said.endswith(end)


def test_a_sound_whose_latents_have_one_length_is_not(sound_catalog: Catalog) -> None:
    said = advise(sound_catalog, "tiny", (128,), 127)
    assert "for 1.024 seconds" in said
    assert said.endswith("and for any shorter sound")
