"""Judge pictures of the demo model's world against captions, with no learned model."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evals.matching import Levels, Mask, Match, View, box_of, explain, grow
from models.train.world import (
    COLORS,
    SIDE,
    Caption,
    Position,
    Relation,
)

#: Width of the frame that shows the background, in pixels.
FRAME = 2
#: How often the fit of the background is repeated, and the residual that halves a pixel's say.
FIT_ROUNDS, FIT_SCALE = 8, 8.0
#: How far a color may be from its name's, and a pixel of the frame from the background, in levels.
COLOR_TOLERANCE = 40.0
#: Share of the frame that must show the background, or the picture is not of this world.
MIN_FRAME_SHARE = 0.6
#: How far a pixel of an object is from the background at least: in levels, and in medians of the
#: frame's distances.
MIN_CONTRAST, MIN_CONTRAST_NOISE = 18.0, 3.3
#: Brightness of the darkest shadow, as a share of the background's.
DARKEST_SHADOW = 0.66
#: Pixels: smaller parts are specks; smaller ones near another part belong to it.
SPECK_AREA, FRAGMENT_AREA = 12, 30
#: How far a fragment may be from the part that it belongs to, in pixels.
FRAGMENT_REACH = 3
#: Lengths in pixels where small ends and where medium ends.
SMALL_BELOW, MEDIUM_BELOW = 20.0, 28.5
#: Pixels from the picture's center: more is a corner, less is the center.
POSITION_LIMIT = 4.5


@dataclass(frozen=True, slots=True)
class Found:
    """An object that is seen; `kind` is None if it is like none of the world's."""

    kind: str | None
    color: str | None
    x: int
    y: int
    diameter: int
    #: Root mean squared difference from the object it is taken for, in levels.
    error: float

    @property
    def size(self) -> str:
        """The word for its diameter."""
        if self.diameter < SMALL_BELOW:
            return "small"
        return "medium" if self.diameter < MEDIUM_BELOW else "large"


@dataclass(frozen=True, slots=True)
class Reading:
    """What is seen in a picture; no background if its colors have no name."""

    background: tuple[str, ...]
    objects: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a picture shows what its caption says; None where it says nothing."""

    background: bool | None
    count: bool
    objects: tuple[bool, ...]
    sizes: tuple[bool | None, ...]
    position: bool | None
    relation: bool | None

    @property
    def all(self) -> bool:
        """Whether every claim holds."""
        claims = (
            self.background,
            self.count,
            *self.objects,
            *self.sizes,
            self.position,
            self.relation,
        )
        return all(claim is not False for claim in claims)


def judge(picture: NDArray[np.uint8], caption: Caption) -> Verdict:
    """Check every claim of a caption against a picture [SIDE, SIDE, 3]."""
    return compare(read(picture), caption)


def compare(reading: Reading, caption: Caption) -> Verdict:
    """Check every claim of a caption against what is seen in a picture."""
    scene = caption.scene
    named = _find_named(reading, caption)
    return Verdict(
        background=reading.background == scene.background if caption.says_background else None,
        count=len(reading.objects) == len(scene.objects),
        objects=tuple(found is not None for found in named),
        sizes=tuple(
            (found is not None and found.size == thing.size) if says else None
            for found, thing, says in zip(named, scene.objects, caption.says_size, strict=True)
        ),
        position=(
            _is_at(named[0], scene.position)
            if caption.says_position and scene.position is not None
            else None
        ),
        relation=(
            _is_related(named[0], named[1], scene.relation) if scene.relation is not None else None
        ),
    )


def read(picture: NDArray[np.uint8]) -> Reading:
    """Tell the background and the objects of a picture [SIDE, SIDE, 3]."""
    levels = picture.astype(np.float32)
    background = _fit_background(levels)
    distances = np.linalg.norm(levels - background, axis=-1)
    frame = distances[_frame()]
    if (frame < COLOR_TOLERANCE).mean() < MIN_FRAME_SHARE:
        return Reading((), ())
    noise = float(np.median(frame))
    contrast = max(MIN_CONTRAST, MIN_CONTRAST_NOISE * noise)
    foreground = (distances > contrast) & ~_is_shadow(levels, background, contrast)
    parts = _join_fragments(_split_parts(foreground))
    matches = explain(View.of(background, levels), parts)
    return Reading(_name_background(background), tuple(_to_found(match) for match in matches))


def _find_named(reading: Reading, caption: Caption) -> list[Found | None]:
    """Find each object of a caption, the clearest first; none stands for two."""
    left = sorted(reading.objects, key=lambda found: found.error)
    named: list[Found | None] = []
    for thing in caption.scene.objects:
        alike = (n for n, f in enumerate(left) if (f.kind, f.color) == (thing.kind, thing.color))
        index = next(alike, None)
        named.append(None if index is None else left.pop(index))
    return named


def _is_at(found: Found | None, position: Position) -> bool:
    if found is None:
        return False
    right, down = found.x - SIDE / 2, found.y - SIDE / 2
    if position is Position.CENTER:
        return max(abs(right), abs(down)) <= POSITION_LIMIT
    is_right = position in (Position.TOP_RIGHT, Position.BOTTOM_RIGHT)
    is_down = position in (Position.BOTTOM_LEFT, Position.BOTTOM_RIGHT)
    return (
        min(abs(right), abs(down)) >= POSITION_LIMIT
        and (right > 0) == is_right
        and (down > 0) == is_down
    )


def _is_related(first: Found | None, second: Found | None, relation: Relation) -> bool:
    if first is None or second is None:
        return False
    right, down = second.x - first.x, second.y - first.y
    if abs(right) > abs(down):
        return relation is (Relation.LEFT if right > 0 else Relation.RIGHT)
    return relation is (Relation.ABOVE if down > 0 else Relation.BELOW)


@cache
def _frame() -> Mask:
    frame = np.ones((SIDE, SIDE), dtype=np.bool_)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    return frame


def _fit_background(levels: Levels) -> Levels:
    """Fit a line in y to the frame of [SIDE, SIDE, 3], unmoved by objects that reach into it."""
    share = np.linspace(0, 1, SIDE, dtype=np.float32)
    rows = share[np.nonzero(_frame())[0]]
    design = np.stack([1 - rows, rows], axis=1)
    colors = levels[_frame()]
    weights = np.ones_like(rows)
    for _ in range(FIT_ROUNDS):
        weighted = design * weights[:, None]
        ends = np.linalg.solve(weighted.T @ design, weighted.T @ colors)
        distances = np.linalg.norm(colors - design @ ends, axis=1)
        weights = 1 / (1 + (distances / FIT_SCALE) ** 2)
    line: Levels = np.stack([1 - share, share], axis=1) @ ends
    return np.broadcast_to(line[:, None], (SIDE, SIDE, 3))


def _name_background(background: Levels) -> tuple[str, ...]:
    names = tuple(_name_color(background[row, 0]) for row in (0, -1))
    if None in names:
        return ()
    top, bottom = (str(name) for name in names)
    return (top,) if top == bottom else (top, bottom)


def _name_color(color: Levels) -> str | None:
    distances = {
        name: float(np.linalg.norm(color - np.array(levels))) for name, levels in COLORS.items()
    }
    name = min(distances, key=distances.__getitem__)
    return name if distances[name] < COLOR_TOLERANCE else None


def _is_shadow(levels: Levels, background: Levels, tolerance: float) -> Mask:
    """Find pixels [SIDE, SIDE] that are the background, only darker."""
    share = (levels * background).sum(-1) / (background**2).sum(-1).clip(1)
    off = np.linalg.norm(levels - background * share[..., None], axis=-1)
    shadow: Mask = (share > DARKEST_SHADOW) & (share < 1) & (off < tolerance)
    return shadow


def _split_parts(foreground: Mask) -> list[Mask]:
    """Split a mask [SIDE, SIDE] into its connected parts."""
    labels = np.pad(np.where(foreground, np.arange(1, SIDE * SIDE + 1).reshape(SIDE, SIDE), 0), 1)
    inside = labels[1:-1, 1:-1]
    while True:
        # Each pixel takes the largest label around it, until nothing changes.
        rows = np.maximum(np.maximum(labels[:-2], labels[1:-1]), labels[2:])
        largest = np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
        largest = np.where(foreground, largest, 0)
        if np.array_equal(largest, inside):
            return [inside == label for label in np.unique(inside) if label]
        inside[:] = largest


def _join_fragments(parts: list[Mask]) -> list[Mask]:
    """Give fragments to the part next to them, and drop specks."""
    parts = sorted(parts, key=lambda part: -int(part.sum()))
    whole: list[Mask] = []
    for part in parts:
        area = int(part.sum())
        near = grow(part, FRAGMENT_REACH) if area < FRAGMENT_AREA else None
        owner = next(
            (n for n, other in enumerate(whole) if near is not None and (near & other).any()), None
        )
        if owner is not None:
            whole[owner] = whole[owner] | part
        elif area >= SPECK_AREA:
            whole.append(part)
    return whole


def _to_found(match: Match) -> Found:
    if match.is_found:
        half = match.diameter // 2
        x, y = match.left + half, match.top + half
        return Found(match.kind, match.color, x, y, match.diameter, match.error)
    top, left, bottom, right = box_of(match.part)
    x, y = (left + right) // 2, (top + bottom) // 2
    return Found(None, None, x, y, max(bottom - top, right - left), match.error)
