"""The checker accepts what is drawn, and refuses captions that are wrong in one attribute."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from evals.checker import judge, read
from evals.swaps import swap_one
from models.train.render import render
from models.train.world import (
    COLORS,
    SIDE,
    Caption,
    Object,
    Position,
    Relation,
    Scene,
    draw_caption,
    draw_scene,
)

PICTURES = 300
TWO_OBJECTS = 0.45
#: In pixels and in levels: worse than the pictures of a trained model.
BLUR, NOISE = 0.7, 6.0


def draw(rng: random.Random) -> Iterator[tuple[Caption, NDArray[np.uint8]]]:
    for _ in range(PICTURES):
        scene = draw_scene(rng, two_objects=TWO_OBJECTS)
        yield draw_caption(rng, scene), render(scene)


def degrade(picture: NDArray[np.uint8], noise: np.random.Generator) -> NDArray[np.uint8]:
    blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(BLUR))
    levels = np.asarray(blurred) + noise.normal(0, NOISE, picture.shape)
    return np.rint(levels.clip(0, 255)).astype(np.uint8)


def caption_of(scene: Scene) -> Caption:
    return Caption(
        scene,
        says_size=tuple(True for _ in scene.objects),
        says_position=scene.position is not None,
        says_background=True,
    )


def flat(color: str) -> NDArray[np.uint8]:
    return np.full((SIDE, SIDE, 3), COLORS[color], dtype=np.uint8)


SINGLE = caption_of(
    Scene((Object("frog", None, "small", 16, 20, 20),), ("red",), Position.TOP_LEFT, None)
)
PAIR = caption_of(
    Scene(
        (Object("star", "red", "medium", 24, 18, 32), Object("cat", None, "small", 16, 48, 30)),
        ("white", "blue"),
        None,
        Relation.LEFT,
    )
)


def test_clean_pictures_pass() -> None:
    passed = [judge(picture, caption).all for caption, picture in draw(random.Random(1))]
    assert np.mean(passed) >= 0.95


def test_soft_and_noisy_pictures_pass() -> None:
    noise = np.random.default_rng(2)
    passed = [
        judge(degrade(picture, noise), caption).all for caption, picture in draw(random.Random(2))
    ]
    assert np.mean(passed) >= 0.85


def test_captions_wrong_in_one_attribute_are_refused() -> None:
    rng = random.Random(3)
    accepted = [judge(picture, swap_one(rng, caption)).all for caption, picture in draw(rng)]
    assert np.mean(accepted) <= 0.02


def test_a_swap_changes_the_text() -> None:
    rng = random.Random(4)
    for caption, _ in draw(rng):
        assert swap_one(rng, caption).text != caption.text


@pytest.mark.parametrize("caption", [SINGLE, PAIR], ids=["single", "pair"])
def test_each_claim_is_judged(caption: Caption) -> None:
    verdict = judge(render(caption.scene), caption)
    assert verdict.all
    assert verdict.sizes == (True,) * len(caption.scene.objects)
    assert verdict.position is (True if caption is SINGLE else None)
    assert verdict.relation is (True if caption is PAIR else None)


@pytest.mark.parametrize("caption", [SINGLE, PAIR], ids=["single", "pair"])
def test_a_claim_that_is_not_made_is_not_judged(caption: Caption) -> None:
    silent = Caption(caption.scene, tuple(False for _ in caption.says_size), False, False)
    verdict = judge(render(caption.scene), silent)
    assert verdict.all
    assert (verdict.background, verdict.position) == (None, None)
    assert set(verdict.sizes) == {None}


@pytest.mark.parametrize("caption", [SINGLE, PAIR], ids=["single", "pair"])
def test_a_picture_without_objects_shows_at_most_a_background(caption: Caption) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert read(flat("red")).background == ("red",)
    for picture in (noise, flat("red"), flat("blue")):
        verdict = judge(picture, caption)
        assert not verdict.count
        assert not any(verdict.objects)
        assert not any(verdict.sizes)
        assert not verdict.position
        assert not verdict.relation


def test_an_object_like_none_of_the_worlds_counts_but_has_no_name() -> None:
    picture = flat("white")
    picture[20:44, 12:16] = COLORS["blue"]
    picture[40:44, 12:36] = COLORS["red"]
    (found,) = read(picture).objects
    assert found.kind is None
