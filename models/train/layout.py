"""A second task for the denoiser in training: say what is where, from its inner features.

The squared error hardly tells a frog from a tree while both are noise; this does. Aligning inner
features with what a picture means is known to shorten training (Yu et al., REPA, 2024); here the
meaning is known exactly. The head is not shipped.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.train.world import EMOJI, SHAPE_COLORS, SHAPES, SIDE, Scene

#: Cells along each side of the map; the features' size.
GRID = 8
KINDS = ("nothing", *SHAPES, *EMOJI)
COLORS = (None, *SHAPE_COLORS)


class LayoutHead(nn.Conv2d):
    """Reads kinds and colors off features [B, C, GRID, GRID]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, len(KINDS) + len(COLORS), kernel_size=1)

    def loss(self, features: Tensor, layout: Tensor) -> Tensor:
        """Compare with the layouts of the scenes, [B, 2, GRID, GRID]."""
        kinds, colors = self(features).split([len(KINDS), len(COLORS)], dim=1)
        return cross_entropy(kinds, layout[:, 0]) + cross_entropy(colors, layout[:, 1])


def map_layout(scene: Scene) -> Tensor:
    """Number the kind and the color of what lies in each cell; returns [2, GRID, GRID]."""
    layout = torch.zeros(2, GRID, GRID, dtype=torch.long)
    cell = SIDE / GRID
    for thing in scene.objects:
        rows, columns = (
            slice(
                round((center - thing.diameter / 2) / cell),
                round((center + thing.diameter / 2) / cell),
            )
            for center in (thing.y, thing.x)
        )
        layout[0, rows, columns] = KINDS.index(thing.kind)
        layout[1, rows, columns] = COLORS.index(thing.color)
    return layout
