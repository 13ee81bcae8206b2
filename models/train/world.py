"""The world of the demo model: scenes, and what captions say of them."""

import random
import zlib
from dataclasses import dataclass
from enum import StrEnum

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "diamond")
#: Each emoji, and the backgrounds on which it would hardly be seen.
EMOJI = {
    "cat": ("orange", "yellow"),
    "dog": ("orange",),
    "panda": ("white", "black"),
    "frog": ("green",),
    "fish": ("blue", "cyan"),
    "apple": ("red",),
    "strawberry": ("red",),
    "burger": ("orange",),
    "rocket": ("white", "red"),
    "sailboat": ("blue", "cyan", "white"),
    "tree": ("green",),
    "mushroom": ("red", "white"),
}
#: Far enough apart that a program can tell them, shaded and blurred.
COLORS = {
    "white": (245, 245, 245),
    "black": (40, 40, 46),
    "red": (220, 40, 50),
    "orange": (250, 140, 30),
    "yellow": (250, 215, 50),
    "green": (45, 165, 75),
    "cyan": (60, 205, 215),
    "blue": (45, 95, 220),
    "purple": (135, 60, 190),
    "pink": (250, 150, 190),
}
SHAPE_COLORS = tuple(name for name in COLORS if name not in ("white", "black"))
BACKGROUNDS = tuple(COLORS)
#: Side of a picture, in pixels.
SIDE = 64
#: Longer side of an object, in pixels, smallest and largest.
SIZES = {"small": (14, 18), "medium": (22, 26), "large": (31, 36)}
#: Pixels between an object and the edge, and between two objects.
MARGIN = 2
#: How far from the center an object of a corner is at least, and one of the center at most.
CORNER_OFFSET, CENTER_OFFSET = 7, 2
#: How far the centers of two objects may differ across their relation's axis, in pixels.
RELATION_SLACK = 8
#: One of so many combinations is never seen in training.
HELD_OUT_ONE_IN = 10


class Position(StrEnum):
    """Where a single object is said to be."""

    TOP_LEFT = "at the top left"
    TOP_RIGHT = "at the top right"
    BOTTOM_LEFT = "at the bottom left"
    BOTTOM_RIGHT = "at the bottom right"
    CENTER = "in the center"


class Relation(StrEnum):
    """Where the first of two objects is, seen from the second."""

    LEFT = "left of"
    RIGHT = "right of"
    ABOVE = "above"
    BELOW = "below"


@dataclass(frozen=True, slots=True)
class Object:
    """A thing in a picture; `x` and `y` are its center, `diameter` its longer side, in pixels."""

    kind: str
    #: None for an emoji, which has its own.
    color: str | None
    size: str
    diameter: int
    x: int
    y: int

    @property
    def name(self) -> str:
        """What it is called: `red star`, `frog`."""
        return self.kind if self.color is None else f"{self.color} {self.kind}"


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two objects on a background of one color, or of two from top to bottom."""

    objects: tuple[Object, ...]
    background: tuple[str, ...]
    #: Of a single object, if it is where a word for it fits.
    position: Position | None
    #: Of two objects.
    relation: Relation | None

    @property
    def is_held_out(self) -> bool:
        """Whether it has a combination of attributes that training never sees."""
        return any(zlib.crc32(key.encode()) % HELD_OUT_ONE_IN == 0 for key in self._combinations())

    def _combinations(self) -> list[str]:
        background = " to ".join(self.background)
        keys = [f"{thing.name} on {background}" for thing in self.objects]
        if self.relation is not None:
            first, second = self.objects
            keys.append(f"{first.name} {self.relation} {second.name}")
        return keys


@dataclass(frozen=True, slots=True)
class Caption:
    """A scene and which of its attributes are said; what is not said may be anything."""

    scene: Scene
    says_size: tuple[bool, ...]
    says_position: bool
    says_background: bool

    @property
    def text(self) -> str:
        """The prompt."""
        scene = self.scene
        names = [
            f"a {thing.size} {thing.name}" if says else _with_article(thing.name)
            for thing, says in zip(scene.objects, self.says_size, strict=True)
        ]
        words = names[0]
        if scene.relation is not None:
            words += f" {scene.relation} {names[1]}"
        if self.says_position:
            words += f" {scene.position}"
        if self.says_background:
            colors = scene.background
            words += (
                f" on {_with_article(colors[0])} background"
                if len(colors) == 1
                else f" on {_with_article(colors[0])} to {colors[1]} gradient"
            )
        return words


def draw_scene(rng: random.Random, *, two_objects: float, held_out: bool = False) -> Scene:
    """Draw a scene; `two_objects` is the share of those with two.

    Without `held_out` it has no combination of attributes that is kept from training, with it at
    least one.
    """
    while True:
        background = _draw_background(rng)
        is_pair = rng.random() < two_objects
        scene = _draw_pair(rng, background) if is_pair else _draw_single(rng, background)
        if scene is not None and scene.is_held_out == held_out:
            return scene


def draw_caption(rng: random.Random, scene: Scene) -> Caption:
    """Choose what a caption says, so that what it leaves out really varies."""
    return Caption(
        scene=scene,
        says_size=tuple(rng.random() < 0.6 for _ in scene.objects),
        says_position=scene.position is not None and rng.random() < 0.6,
        says_background=rng.random() < 0.9,
    )


def _draw_background(rng: random.Random) -> tuple[str, ...]:
    return tuple(rng.sample(BACKGROUNDS, 2 if rng.random() < 0.3 else 1))


def _draw_kind(rng: random.Random, background: tuple[str, ...]) -> tuple[str, str | None]:
    if rng.random() < 0.5:
        visible = [kind for kind, hidden_on in EMOJI.items() if not {*hidden_on} & {*background}]
        return rng.choice(visible), None
    colors = [color for color in SHAPE_COLORS if color not in background]
    return rng.choice(SHAPES), rng.choice(colors)


def _draw_single(rng: random.Random, background: tuple[str, ...]) -> Scene:
    size = rng.choice(tuple(SIZES))
    diameter = rng.randint(*SIZES[size])
    kind, color = _draw_kind(rng, background)
    reach = SIDE // 2 - MARGIN - (diameter + 1) // 2
    position: Position | None
    if rng.random() < 0.7:
        position = rng.choice(tuple(Position))
        dx, dy = _draw_offset(rng, position, reach)
    else:
        dx, dy = rng.randint(-reach, reach), rng.randint(-reach, reach)
        position = _find_position(dx, dy)
    thing = Object(kind, color, size, diameter, SIDE // 2 + dx, SIDE // 2 + dy)
    return Scene((thing,), background, position, None)


def _draw_offset(rng: random.Random, position: Position, reach: int) -> tuple[int, int]:
    if position is Position.CENTER:
        return rng.randint(-CENTER_OFFSET, CENTER_OFFSET), rng.randint(
            -CENTER_OFFSET, CENTER_OFFSET
        )
    right = 1 if position in (Position.TOP_RIGHT, Position.BOTTOM_RIGHT) else -1
    down = 1 if position in (Position.BOTTOM_LEFT, Position.BOTTOM_RIGHT) else -1
    return (right * rng.randint(CORNER_OFFSET, reach), down * rng.randint(CORNER_OFFSET, reach))


def _find_position(dx: int, dy: int) -> Position | None:
    if abs(dx) <= CENTER_OFFSET and abs(dy) <= CENTER_OFFSET:
        return Position.CENTER
    if min(abs(dx), abs(dy)) < CORNER_OFFSET:
        return None
    if dy < 0:
        return Position.TOP_LEFT if dx < 0 else Position.TOP_RIGHT
    return Position.BOTTOM_LEFT if dx < 0 else Position.BOTTOM_RIGHT


def _draw_pair(rng: random.Random, background: tuple[str, ...]) -> Scene | None:
    """Place two objects beside or above each other; None if they do not fit."""
    relation = rng.choice(tuple(Relation))
    sizes = [rng.choice(tuple(SIZES)) for _ in range(2)]
    diameters = [rng.randint(*SIZES[size]) for size in sizes]
    kinds = [_draw_kind(rng, background) for _ in range(2)]
    room = SIDE - 2 * MARGIN - sum(diameters) - MARGIN
    if room < 0 or kinds[0] == kinds[1]:
        return None
    # Along the axis: the room that is left is split into three gaps.
    first_gap, second_gap = sorted((rng.randint(0, room), rng.randint(0, room)))
    is_first_before = relation in (Relation.LEFT, Relation.ABOVE)
    before, after = (0, 1) if is_first_before else (1, 0)
    along = [0, 0]
    along[before] = MARGIN + first_gap + diameters[before] // 2
    along[after] = 2 * MARGIN + second_gap + diameters[before] + diameters[after] // 2
    # Across it: near each other, so that the relation is plain.
    reaches = [SIDE // 2 - MARGIN - (diameter + 1) // 2 for diameter in diameters]
    middle = rng.randint(-min(reaches), min(reaches))
    across = [
        SIDE // 2
        + max(-reach, min(reach, middle + rng.randint(-RELATION_SLACK // 2, RELATION_SLACK // 2)))
        for reach in reaches
    ]
    is_horizontal = relation in (Relation.LEFT, Relation.RIGHT)
    objects = tuple(
        Object(
            *kinds[n],
            sizes[n],
            diameters[n],
            x=along[n] if is_horizontal else across[n],
            y=across[n] if is_horizontal else along[n],
        )
        for n in range(2)
    )
    return Scene(objects, background, None, relation)


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
