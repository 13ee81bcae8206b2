"""How bright backgrounds are, and who asks for which."""

import random

import pytest

from evals.brightness import find_brightness, plain_captions, silent_captions
from models.train.render import render
from models.train.world import COLORS


@pytest.mark.parametrize("color", ["black", "white"])
def test_a_picture_of_a_plain_background_is_as_bright_as_its_color(color: str) -> None:
    for caption in plain_captions(random.Random(1), 5, color):
        assert f"on a {color} background" in caption.text
        assert caption.scene.is_held_out
        # Shadows reach the frame here and there.
        assert find_brightness(render(caption.scene)) == pytest.approx(
            sum(COLORS[color]) / 3, abs=4
        )


def test_silent_captions_say_no_background_and_have_all_kinds() -> None:
    captions = silent_captions(random.Random(2), 60)
    assert all(" on " not in caption.text for caption in captions)
    brightness = [find_brightness(render(caption.scene)) for caption in captions]
    assert min(brightness) < 60
    assert max(brightness) > 200
