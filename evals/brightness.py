"""How bright backgrounds come out, and captions that ask for dark ones, bright ones and any."""

import random
from dataclasses import replace

import numpy as np

from evals.drawing import Picture
from models.train.world import Caption, Scene, draw_caption, draw_scene

#: Width of the frame that shows the background, in pixels: no object reaches into it.
FRAME = 2
#: Share of pictures with two objects.
TWO_OBJECTS = 0.4


def find_brightness(picture: Picture) -> float:
    """Return the mean of red, green and blue over the frame of a picture [H, W, 3]."""
    frame = np.ones(picture.shape[:2], dtype=np.bool_)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    return float(picture[frame].mean())


def plain_captions(rng: random.Random, count: int, color: str) -> list[Caption]:
    """Draw held-out captions that say a background of one color."""
    captions: list[Caption] = []
    while len(captions) < count:
        scene = _draw_scene(rng)
        if scene.background == (color,):
            captions.append(replace(draw_caption(rng, scene), says_background=True))
    return captions


def silent_captions(rng: random.Random, count: int) -> list[Caption]:
    """Draw held-out captions that say nothing of the background."""
    return [
        replace(draw_caption(rng, _draw_scene(rng)), says_background=False) for _ in range(count)
    ]


def _draw_scene(rng: random.Random) -> Scene:
    return draw_scene(rng, two_objects=TWO_OBJECTS, held_out=True)
