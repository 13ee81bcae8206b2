"""Make captions that are wrong in one attribute."""

import random
from collections.abc import Callable
from dataclasses import replace

from models.train.world import (
    BACKGROUNDS,
    EMOJI,
    SHAPE_COLORS,
    SHAPES,
    SIZES,
    Caption,
    Object,
    Position,
    Relation,
)


def swap_one(rng: random.Random, caption: Caption) -> Caption:
    """Change one attribute that the caption says; every other word stays."""
    swaps = [_swap_kind]
    if _colored(caption):
        swaps.append(_swap_color)
    if any(caption.says_size):
        swaps.append(_swap_size)
    if caption.says_position:
        swaps.append(_swap_position)
    if caption.scene.relation is not None:
        swaps.append(_swap_relation)
    if caption.says_background:
        swaps.append(_swap_background)
    swap: Callable[[random.Random, Caption], Caption] = rng.choice(swaps)
    return swap(rng, caption)


def _swap_kind(rng: random.Random, caption: Caption) -> Caption:
    index = rng.randrange(len(caption.scene.objects))
    thing = caption.scene.objects[index]
    family = tuple(EMOJI) if thing.color is None else SHAPES
    return _draw_other(rng, caption, index, [replace(thing, kind=kind) for kind in family])


def _swap_color(rng: random.Random, caption: Caption) -> Caption:
    index = rng.choice(_colored(caption))
    thing = caption.scene.objects[index]
    return _draw_other(rng, caption, index, [replace(thing, color=color) for color in SHAPE_COLORS])


def _swap_size(rng: random.Random, caption: Caption) -> Caption:
    index = rng.choice([n for n, says in enumerate(caption.says_size) if says])
    thing = caption.scene.objects[index]
    size = rng.choice([size for size in SIZES if size != thing.size])
    return _with_object(caption, index, replace(thing, size=size))


def _swap_position(rng: random.Random, caption: Caption) -> Caption:
    scene = caption.scene
    position = rng.choice([position for position in Position if position is not scene.position])
    return replace(caption, scene=replace(scene, position=position))


def _swap_relation(rng: random.Random, caption: Caption) -> Caption:
    scene = caption.scene
    relation = rng.choice([relation for relation in Relation if relation is not scene.relation])
    return replace(caption, scene=replace(scene, relation=relation))


def _swap_background(rng: random.Random, caption: Caption) -> Caption:
    """Name another color for the whole background or for one end of it, or turn it around."""
    scene = caption.scene
    old = scene.background
    backgrounds: list[tuple[str, ...]] = [(color,) for color in BACKGROUNDS]
    if len(old) == 2:
        backgrounds = [old[::-1]]
        backgrounds += [(color, old[1]) for color in BACKGROUNDS if color != old[1]]
        backgrounds += [(old[0], color) for color in BACKGROUNDS if color != old[0]]
    others = [
        background
        for background in backgrounds
        if background != old and all(_is_visible(thing, background) for thing in scene.objects)
    ]
    return replace(caption, scene=replace(scene, background=rng.choice(others)))


def _colored(caption: Caption) -> list[int]:
    return [n for n, thing in enumerate(caption.scene.objects) if thing.color is not None]


def _draw_other(rng: random.Random, caption: Caption, index: int, objects: list[Object]) -> Caption:
    """Replace an object by one of another name that the scene has not and that would be seen."""
    scene = caption.scene
    taken = {thing.name for thing in scene.objects}
    others = [
        thing
        for thing in objects
        if thing.name not in taken and _is_visible(thing, scene.background)
    ]
    return _with_object(caption, index, rng.choice(others))


def _with_object(caption: Caption, index: int, thing: Object) -> Caption:
    objects = list(caption.scene.objects)
    objects[index] = thing
    return replace(caption, scene=replace(caption.scene, objects=tuple(objects)))


def _is_visible(thing: Object, background: tuple[str, ...]) -> bool:
    hidden_on = EMOJI[thing.kind] if thing.color is None else (thing.color,)
    return not {*hidden_on} & {*background}
