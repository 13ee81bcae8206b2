"""Find which of the world's objects explain the parts of a picture."""

from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from models.train.render import SHADOW_BLUR, SHADOW_OFFSET, SHADOW_STRENGTH, sprite
from models.train.world import EMOJI, SHAPE_COLORS, SHAPES, SIDE

#: Diameters that objects are looked for in, in pixels.
MIN_DIAMETER, MAX_DIAMETER = 11, 41
#: Longer side of the smallest part that may be an object: some of it may be hard to see.
MIN_PART = 7
#: Room around a sprite for its shadow and its blur, in pixels.
TEMPLATE_ROOM = 4
#: Room around the picture, so that templates may reach over its edge, in pixels.
CANVAS_ROOM = 48
#: Cover from which a pixel of an object is plainly not the background.
VISIBLE = 0.2
#: Cover from which it shows nothing of the background.
SOLID = 0.9
#: Pixels around a part that its match must explain too.
REGION_ROOM = 3
#: How many kinds are matched closely, and how much worse than the best they may start.
CLOSE_MATCHES, CLOSE_COST = 4, 3.0
#: By how much the diameter may change at once in matching closely, in pixels.
STEPS = (-2, -1, 1, 2)
ALL_VARIANTS = slice(None)
#: Root mean squared error over an object, in levels: a plain match, and the worst accepted as is.
PLAIN_ERROR, MAX_ERROR = 22.0, 40.0
#: The same as a share of what the object adds to the background: a plain match, and the worst.
PLAIN_SHARE, MAX_SHARE = 0.2, 0.38
#: An object that is only roughly like its match: how far its mean color may be off, in levels, and
#: how many times the squared error the next likely kind leaves at least.
MAX_TINT, MIN_LEAD = 30.0, 1.3
#: Two objects explain a part better than one if they leave less than this share of its error.
SPLIT_GAIN = 0.6
#: How strong a part is at a cut at most, as a share of its strongest row or column.
MAX_CUT = 0.5
#: Pixels that a cut leaves on each side at least.
MIN_PIECE = 6
#: A picture with more parts is no picture of one or two objects; the smallest are not explained.
MAX_PARTS = 5
#: A part that differs less from the found objects is explained by them, in levels.
MIN_LEFT = 18.0

Levels = NDArray[np.float32]
Mask = NDArray[np.bool_]
#: Top, left, bottom and right; the last two are outside.
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class View:
    """A fitted background and what the picture adds to it, smoothed, with room around both."""

    #: Both [side, side, 3].
    background: Levels
    residual: Levels

    @classmethod
    def of(cls, background: Levels, levels: Levels) -> "View":
        """Compare a picture [SIDE, SIDE, 3] with its background."""
        room = ((CANVAS_ROOM,) * 2, (CANVAS_ROOM,) * 2, (0, 0))
        return cls(np.pad(background, room), np.pad(_smooth(levels - background), room))

    @property
    def inside(self) -> Levels:
        """What the picture adds to the background; [SIDE, SIDE, 3]."""
        room = slice(CANVAS_ROOM, -CANVAS_ROOM)
        return self.residual[room, room]


@dataclass(frozen=True, slots=True)
class Match:
    """The object that explains a part best; without a kind if none can."""

    part: Mask
    kind: str | None
    #: Which of its kind's colors it has.
    variant: int
    diameter: int
    left: int
    top: int
    #: Squared error that it leaves, and the root of its mean over the object, in levels.
    cost: float
    error: float
    #: Root of its cost as a share of the cost of no object; 1 is no better than none.
    share: float
    #: How far its mean color is off, in levels.
    tint: float = float("inf")
    #: How many times its cost the best of another kind has.
    lead: float = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether nothing else needs to be tried."""
        return self.error < PLAIN_ERROR or (self.share < PLAIN_SHARE and self.is_found)

    @property
    def is_found(self) -> bool:
        """Whether it is like an object: closely, or roughly but more than like any other."""
        return self.error < MAX_ERROR or (
            self.share < MAX_SHARE and self.tint < MAX_TINT and self.lead > MIN_LEAD
        )

    @property
    def color(self) -> str | None:
        """Its color's name; None for an emoji."""
        return None if self.kind in EMOJI else SHAPE_COLORS[self.variant]


@dataclass(frozen=True, slots=True)
class _Template:
    """A kind of object in all its colors, ready to be laid on a background."""

    #: What it takes from the background and what it adds; [side, side, 1], [colors, side, side, 3].
    cover: Levels
    paint: Levels
    #: Of its visible part, without the room.
    box: Box
    area: float


def explain(view: View, parts: list[Mask]) -> list[Match]:
    """Find the objects that explain the parts best: one for each, two for one, or one for two."""
    matches: list[Match] = []
    bare = view
    for n, part in enumerate(parts[:MAX_PARTS]):
        # A crumb of a shadow, or of an edge, goes with its object.
        if not _is_left(bare, part):
            continue
        others = _union([*parts[n + 1 :], *_unknown(matches)])
        new = _explain_part(bare, part, others)
        matches += new
        bare = _peel(bare, new)
    return _join_poor(view, matches)


def box_of(part: Mask) -> Box:
    """Find the box around a part [side, side]."""
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def grow(part: Mask, reach: int) -> Mask:
    """Fill the box of a part [SIDE, SIDE], `reach` wider on each side."""
    top, left, bottom, right = box_of(part)
    grown = np.zeros_like(part)
    grown[max(top - reach, 0) : bottom + reach, max(left - reach, 0) : right + reach] = True
    return grown


def _explain_part(view: View, part: Mask, others: Mask) -> list[Match]:
    """Explain a part as one object, or as two if that is far better."""
    whole = _match(view, part, others)
    if whole.is_plain:
        return [whole]
    best, best_cost = [whole], whole.cost * SPLIT_GAIN
    for half in _cut(view, part):
        rest = part & ~half
        halves = [_match(view, half, others | rest), _match(view, rest, others | half)]
        cost = sum(match.cost for match in halves)
        if cost < best_cost:
            best, best_cost = halves, cost
    return best


def _join_poor(view: View, matches: list[Match]) -> list[Match]:
    """Explain two parts as one object where that is better, if one of them is badly explained."""
    for first, second in combinations(matches, 2):
        if first.is_plain and second.is_plain:
            continue
        rest = [match for match in matches if match is not first and match is not second]
        joined = _match(_peel(view, rest), first.part | second.part, _union(_unknown(rest)))
        if joined.is_plain or joined.cost < first.cost + second.cost:
            return _join_poor(view, [joined, *rest])
    return matches


def _cut(view: View, part: Mask) -> list[Mask]:
    """Cut a part at its thinnest row and at its thinnest column; returns one side of each cut."""
    strength = np.linalg.norm(view.inside, axis=-1) * part
    box = box_of(part)
    halves = []
    for axis in (0, 1):
        first, last = box[axis] + MIN_PIECE, box[axis + 2] - MIN_PIECE
        if first < last:
            profile = strength.sum(1 - axis)
            cut = first + int(profile[first:last].argmin())
            if profile[cut] > MAX_CUT * profile.max():
                continue
            before = np.arange(SIDE) < cut
            halves.append(part & (before[:, None] if axis == 0 else before))
    return halves


def _unknown(matches: list[Match]) -> list[Mask]:
    return [match.part for match in matches if not match.is_found]


def _union(parts: list[Mask]) -> Mask:
    union: Mask = np.logical_or.reduce([np.zeros((SIDE, SIDE), dtype=np.bool_), *parts])
    return union


def _is_left(view: View, part: Mask) -> bool:
    """Whether a part still differs from the background after objects are peeled off."""
    return bool(np.square(view.inside[part]).sum(-1).mean() > MIN_LEFT**2)


def _peel(view: View, matches: list[Match]) -> View:
    """Take the found objects off the picture."""
    residual = view.residual.copy()
    for match in matches:
        if match.kind is not None and match.is_found:
            template = _template(match.kind, match.diameter)
            window = _window(match.diameter, match.left, match.top)
            residual[window] += view.background[window] * template.cover
            residual[window] -= template.paint[match.variant]
    return View(view.background, residual)


def _match(view: View, part: Mask, others: Mask) -> Match:
    """Find the object that explains a part best, wherever the others are not."""
    box = box_of(part)
    longer = max(box[2] - box[0], box[3] - box[1])
    if not MIN_PART <= longer <= MAX_DIAMETER:
        return Match(part, None, 0, longer, box[1], box[0], float("inf"), float("inf"), 1)
    # Others are painted over with background, so that no template may cover them.
    alone = view.residual * ~np.pad(others, CANVAS_ROOM)[..., None]
    nothing = np.square(alone).sum(-1) * np.pad(grow(part, REGION_ROOM), CANVAS_ROOM)
    fitter = _Fitter(View(view.background, alone), part, nothing, float(nothing.sum()))
    matches = fitter.try_all(box, (0.5,))
    if not matches[0].is_plain:
        # Where much of an object looks like the background, its part is only one side of it.
        matches = sorted(matches + fitter.try_all(box, (0, 1)), key=_cost)
    best = matches[0]
    rival = next(match for match in matches if match.kind != best.kind)
    lead = rival.cost / max(best.cost, 1.0)
    return replace(best, tint=fitter.tint(best), lead=lead)


def _cost(match: Match) -> float:
    return match.cost


@dataclass(frozen=True, slots=True)
class _Fitter:
    """Lays templates on one part of a view."""

    view: View
    part: Mask
    #: Squared error around the part where nothing is laid, and its sum; [side, side].
    nothing: Levels
    total: float

    def try_all(self, box: Box, anchors: tuple[float, ...]) -> list[Match]:
        """Match all kinds, the most likely closely; returns them from the best to the worst.

        They start with their middle or their ends on the box's.
        """
        kinds = (*EMOJI, *SHAPES)
        starts = [self.place(kind, box, anchor) for kind in kinds for anchor in anchors]
        starts.sort(key=_cost)
        best = self.climb(starts[0])
        matches = [best, *starts[CLOSE_MATCHES:]]
        for start in starts[1:CLOSE_MATCHES]:
            matches.append(self.climb(start) if start.cost < best.cost * CLOSE_COST else start)
            best = min(best, matches[-1], key=_cost)
        return sorted(matches, key=_cost)

    def tint(self, match: Match) -> float:
        """Measure how far the mean color of a match's solid pixels is off, in levels."""
        template = _template(str(match.kind), match.diameter)
        window = _window(match.diameter, match.left, match.top)
        bare = self.view.residual[window] + self.view.background[window] * template.cover
        off = bare - template.paint[match.variant]
        solid = template.cover[..., 0] > SOLID
        return float(np.linalg.norm(off[solid].mean(0))) if solid.any() else float("inf")

    def place(self, kind: str, box: Box, anchor: float) -> Match:
        """Lay a kind on a box at the diameters that fit its longer side."""
        height, width = box[2] - box[0], box[3] - box[1]
        likely = round(max(height, width) / _fill(kind))
        matches = []
        # Blur makes a part larger, so that smaller objects are likelier.
        for diameter in range(likely - 2, likely + 2):
            bounded = min(max(diameter, MIN_DIAMETER), MAX_DIAMETER)
            inner = _template(kind, bounded).box
            left = box[1] - inner[1] + anchor * (width - inner[3] + inner[1])
            top = box[0] - inner[0] + anchor * (height - inner[2] + inner[0])
            matches.append(self.lay(kind, bounded, round(left), round(top)))
        return min(matches, key=_cost)

    def climb(self, match: Match) -> Match:
        """Shift and scale a match by few pixels for as long as that improves it."""
        kind, best = str(match.kind), match
        variants = slice(match.variant, match.variant + 1)
        while True:
            d, x, y = best.diameter, best.left, best.top
            steps = [(d, x - 1, y), (d, x + 1, y), (d, x, y - 1), (d, x, y + 1)]
            for change in STEPS:
                if MIN_DIAMETER <= d + change <= MAX_DIAMETER:
                    # Either side of the object, or both, stays where it is.
                    moves = sorted({0, -change, -change // 2})
                    steps += [(d + change, x + i, y + j) for i in moves for j in moves]
            new = min((self.lay(kind, *step, variants) for step in steps), key=_cost)
            if new.cost >= best.cost:
                return best
            best = new

    def lay(
        self, kind: str, diameter: int, left: int, top: int, variants: slice = ALL_VARIANTS
    ) -> Match:
        """Measure what a template in the best of some of its colors leaves unexplained."""
        template = _template(kind, diameter)
        window = _window(diameter, left, top)
        bare = self.view.residual[window] + self.view.background[window] * template.cover
        paint = template.paint[variants]
        costs = np.square(bare - paint).reshape(len(paint), -1).sum(1)
        variant = int(costs.argmin())
        cost = max(self.total - float(self.nothing[window].sum()) + float(costs[variant]), 0.0)
        variant += variants.start or 0
        error = (cost / max(template.area, int(self.part.sum()))) ** 0.5
        share = (cost / max(self.total, 1.0)) ** 0.5
        return Match(self.part, kind, variant, diameter, left, top, cost, error, share)


def _window(diameter: int, left: int, top: int) -> tuple[slice, slice]:
    """Find where a template lies on the view."""
    row, column = (start - TEMPLATE_ROOM + CANVAS_ROOM for start in (top, left))
    side = diameter + 2 * TEMPLATE_ROOM
    return slice(row, row + side), slice(column, column + side)


@cache
def _template(kind: str, diameter: int) -> _Template:
    colors = (None,) if kind in EMOJI else SHAPE_COLORS
    room = ((0, 0), (TEMPLATE_ROOM,) * 2, (TEMPLATE_ROOM,) * 2, (0, 0))
    sprites = np.pad(np.stack([sprite(kind, color, diameter) for color in colors]), room)
    alpha = sprites[0, ..., 3]
    spread = Image.fromarray((alpha * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(SHADOW_BLUR)
    )
    shadow = np.roll(np.asarray(spread, dtype=np.float32), SHADOW_OFFSET, (0, 1)) / 255
    cover = 1 - (1 - alpha) * (1 - shadow * SHADOW_STRENGTH)
    bare = slice(TEMPLATE_ROOM, -TEMPLATE_ROOM)
    return _Template(
        cover=_smooth(cover[..., None].astype(np.float32)),
        paint=_smooth(sprites[..., :3] * sprites[..., 3:]),
        box=box_of(alpha[bare, bare] > VISIBLE),
        area=float(alpha.sum()),
    )


@cache
def _fill(kind: str) -> float:
    """Tell which share of its diameter the longer side of a kind's visible part has."""
    top, left, bottom, right = _template(kind, MAX_DIAMETER).box
    return max(bottom - top, right - left) / MAX_DIAMETER


def _smooth(levels: Levels) -> Levels:
    """Blur rows and columns of [..., side, side, channels], so that sharpness hardly counts."""
    for axis in (-3, -2):
        both = np.roll(levels, 1, axis) + np.roll(levels, -1, axis)
        levels = ((both + 2 * levels) / 4).astype(np.float32)
    return levels
