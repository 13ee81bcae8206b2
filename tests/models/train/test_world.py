import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.train.render import render, sprite
from models.train.world import (
    CENTER_OFFSET,
    COLORS,
    CORNER_OFFSET,
    EMOJI,
    MARGIN,
    SHAPE_COLORS,
    SHAPES,
    SIDE,
    SIZES,
    Object,
    Position,
    Relation,
    Scene,
    draw_caption,
    draw_scene,
)

seeds = st.integers(0, 2**32)


def box(thing: Object) -> tuple[int, int, int, int]:
    left, top = thing.x - thing.diameter // 2, thing.y - thing.diameter // 2
    return left, top, left + thing.diameter, top + thing.diameter


@given(seeds, st.floats(0, 1), st.booleans())
def test_objects_are_whole_apart_and_visible(seed: int, two_objects: float, held_out: bool) -> None:
    scene = draw_scene(random.Random(seed), two_objects=two_objects, held_out=held_out)
    assert scene.is_held_out == held_out
    for thing in scene.objects:
        left, top, right, bottom = box(thing)
        assert min(left, top) >= MARGIN - 1
        assert max(right, bottom) <= SIDE - MARGIN + 1
        smallest, largest = SIZES[thing.size]
        assert smallest <= thing.diameter <= largest
        hidden_on = EMOJI[thing.kind] if thing.color is None else (thing.color,)
        assert not {*hidden_on} & {*scene.background}


@given(seeds)
def test_a_relation_is_true_and_its_objects_do_not_touch(seed: int) -> None:
    scene = draw_scene(random.Random(seed), two_objects=1)
    first, second = map(box, scene.objects)
    gaps = {
        Relation.LEFT: second[0] - first[2],
        Relation.RIGHT: first[0] - second[2],
        Relation.ABOVE: second[1] - first[3],
        Relation.BELOW: first[1] - second[3],
    }
    assert scene.relation is not None
    assert gaps[scene.relation] >= MARGIN - 1
    assert scene.objects[0].name != scene.objects[1].name


@given(seeds)
def test_a_position_is_true(seed: int) -> None:
    scene = draw_scene(random.Random(seed), two_objects=0)
    (thing,) = scene.objects
    dx, dy = thing.x - SIDE // 2, thing.y - SIDE // 2
    match scene.position:
        case Position.CENTER:
            assert max(abs(dx), abs(dy)) <= CENTER_OFFSET
        case None:
            assert min(abs(dx), abs(dy)) < CORNER_OFFSET
        case corner:
            assert min(abs(dx), abs(dy)) >= CORNER_OFFSET
            assert ("left" in corner, "top" in corner) == (dx < 0, dy < 0)


@given(seeds)
def test_a_caption_names_its_objects_and_nothing_that_is_not_there(seed: int) -> None:
    rng = random.Random(seed)
    scene = draw_scene(rng, two_objects=0.5)
    text = draw_caption(rng, scene).text
    known = {thing.kind for thing in scene.objects} | {thing.color for thing in scene.objects}
    for word in text.split():
        if word in SHAPES or word in EMOJI:
            assert word in known
        if word in COLORS:
            assert word in known or word in scene.background
    assert all(thing.name in text for thing in scene.objects)
    assert text.startswith(("a ", "an "))
    assert not {"a orange", "an red"} & {text[n : n + 8] for n in range(len(text))}


def test_some_combinations_are_kept_from_training_and_all_their_parts_are_seen() -> None:
    rng = random.Random(0)
    scenes = [draw_scene(rng, two_objects=0.5) for _ in range(20_000)]
    names = {thing.name for scene in scenes for thing in scene.objects}
    assert names == {*EMOJI} | {f"{color} {shape}" for color in SHAPE_COLORS for shape in SHAPES}
    held_out = [draw_scene(rng, two_objects=0.5, held_out=True) for _ in range(200)]
    assert {thing.name for scene in held_out for thing in scene.objects} <= names


@pytest.mark.parametrize("kind", [*SHAPES, *EMOJI])
def test_a_sprite_fills_its_box_and_leaves_its_corners_or_center(kind: str) -> None:
    pixels = sprite(kind, "red" if kind in SHAPES else None, 32)
    alpha = pixels[..., 3]
    assert pixels.shape == (32, 32, 4)
    assert alpha.min() >= 0
    assert alpha.max() <= 1.001
    extent = [np.flatnonzero(alpha.max(axis=axis) > 0.5) for axis in (0, 1)]
    assert max(np.ptp(places) for places in extent) >= 27
    assert alpha.min() < 0.5


def test_a_scene_is_drawn_where_it_says() -> None:
    thing = Object("circle", "red", "medium", 24, 20, 40)
    picture = render(Scene((thing,), ("white",), None, None))
    assert picture.shape == (SIDE, SIDE, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture[40, 20].astype(int) - COLORS["red"]).max() < 20
    assert tuple(picture[5, 60]) == COLORS["white"]
    gradient = render(Scene((thing,), ("white", "blue"), None, None))
    assert tuple(gradient[0, 60]) == COLORS["white"]
    assert tuple(gradient[SIDE - 1, 60]) == COLORS["blue"]
