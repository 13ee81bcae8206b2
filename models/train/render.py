"""Draw scenes as pixels."""

import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from models.train.world import COLORS, SIDE, Object, Scene

EMOJI_FOLDER = Path(__file__).parent / "emoji"
#: Sprites are drawn so much larger and then reduced, which smooths their edges.
OVERSAMPLING = 8
#: Brightness at the top and at the bottom of a shape.
SHADE_TOP, SHADE_BOTTOM = 1.06, 0.9
SHADOW_OFFSET, SHADOW_BLUR, SHADOW_STRENGTH = 1, 1.2, 0.3

Pixels = NDArray[np.float32]


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene; returns [SIDE, SIDE, 3]."""
    canvas = _background(scene.background).copy()
    for thing in scene.objects:
        _paste(canvas, thing)
    levels: NDArray[np.uint8] = np.rint(canvas.clip(0, 255)).astype(np.uint8)
    return levels


@cache
def sprite(kind: str, color: str | None, diameter: int) -> Pixels:
    """Draw an object alone; returns [diameter, diameter, 4], alpha from 0 to 1."""
    if color is None:
        image = Image.open(EMOJI_FOLDER / f"{kind}.png").convert("RGBa")
        image = image.resize((diameter, diameter), Image.Resampling.LANCZOS).convert("RGBA")
        pixels = np.asarray(image, dtype=np.float32).copy()
        pixels[..., 3] /= 255
        return pixels
    side = diameter * OVERSAMPLING
    mask = Image.new("L", (side, side))
    _SHAPES[kind](ImageDraw.Draw(mask), side - 1)
    alpha = np.asarray(mask.resize((diameter, diameter), Image.Resampling.BOX), dtype=np.float32)
    shade = np.linspace(SHADE_TOP, SHADE_BOTTOM, diameter, dtype=np.float32)[:, None, None]
    tint = (np.array(COLORS[color], dtype=np.float32) * shade).clip(0, 255)
    pixels = np.empty((diameter, diameter, 4), dtype=np.float32)
    pixels[..., :3] = tint
    pixels[..., 3] = alpha / 255
    return pixels


@cache
def _background(colors: tuple[str, ...]) -> Pixels:
    top, bottom = (np.array(COLORS[name], dtype=np.float32) for name in (colors[0], colors[-1]))
    share = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top + (bottom - top) * share, (SIDE, SIDE, 3))


@cache
def _shadow(kind: str, color: str | None, diameter: int) -> Pixels:
    """Draw the shadow's strength with room for its blur; returns [diameter + 8, diameter + 8]."""
    alpha = sprite(kind, color, diameter)[..., 3]
    room = np.pad(alpha, 4)
    blurred = Image.fromarray((room * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(SHADOW_BLUR)
    )
    return np.asarray(blurred, dtype=np.float32) * np.float32(SHADOW_STRENGTH / 255)


def _paste(canvas: Pixels, thing: Object) -> None:
    left, top = thing.x - thing.diameter // 2, thing.y - thing.diameter // 2
    shadow = _shadow(thing.kind, thing.color, thing.diameter)
    window, part = _overlap(shadow.shape[0], left - 4 + SHADOW_OFFSET, top - 4 + SHADOW_OFFSET)
    canvas[window] *= 1 - shadow[part][..., None]
    pixels = sprite(thing.kind, thing.color, thing.diameter)
    window, part = _overlap(thing.diameter, left, top)
    alpha = pixels[part][..., 3:]
    canvas[window] = canvas[window] * (1 - alpha) + pixels[part][..., :3] * alpha


def _overlap(side: int, left: int, top: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Find where a square lies on the canvas, and which part of it that is."""
    rows = slice(max(top, 0), min(top + side, SIDE))
    columns = slice(max(left, 0), min(left + side, SIDE))
    part = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    return (rows, columns), part


def _circle(draw: ImageDraw.ImageDraw, side: int) -> None:
    draw.ellipse((0, 0, side, side), fill=255)


def _ring(draw: ImageDraw.ImageDraw, side: int) -> None:
    draw.ellipse((0, 0, side, side), fill=255)
    hole = side * 0.27
    draw.ellipse((hole, hole, side - hole, side - hole), fill=0)


def _square(draw: ImageDraw.ImageDraw, side: int) -> None:
    inset = side * 0.05
    draw.rounded_rectangle((inset, inset, side - inset, side - inset), radius=side * 0.06, fill=255)


def _triangle(draw: ImageDraw.ImageDraw, side: int) -> None:
    draw.polygon([(side / 2, 0), (side, side * 0.93), (0, side * 0.93)], fill=255)


def _diamond(draw: ImageDraw.ImageDraw, side: int) -> None:
    middle = side / 2
    draw.polygon(
        [(middle, 0), (side * 0.86, middle), (middle, side), (side * 0.14, middle)], fill=255
    )


def _star(draw: ImageDraw.ImageDraw, side: int) -> None:
    center = side / 2
    points = []
    for corner in range(10):
        radius = center * (1.05 if corner % 2 == 0 else 0.46)
        angle = -math.pi / 2 + corner * math.pi / 5
        points.append((center + radius * math.cos(angle), center * 1.05 + radius * math.sin(angle)))
    draw.polygon(points, fill=255)


def _heart(draw: ImageDraw.ImageDraw, side: int) -> None:
    points = []
    for degree in range(0, 360, 3):
        t = math.radians(degree)
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((side * (0.5 + x / 34), side * (0.44 - y / 32)))
    draw.polygon(points, fill=255)


_SHAPES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "diamond": _diamond,
}
