"""The map of what is where."""

import random

import pytest
import torch

from models.train.layout import COLORS, GRID, KINDS, LayoutHead, map_layout
from models.train.world import SIDE, Object, Scene, draw_scene


def test_every_object_is_on_the_map_where_it_lies() -> None:
    rng = random.Random(5)
    for _ in range(500):
        scene = draw_scene(rng, two_objects=0.5)
        layout = map_layout(scene)
        assert layout.shape == (2, GRID, GRID)
        for thing in scene.objects:
            cells = layout[:, thing.y * GRID // SIDE, thing.x * GRID // SIDE]
            assert cells.tolist() == [KINDS.index(thing.kind), COLORS.index(thing.color)]
        share = (layout[0] > 0).float().mean().item()
        covered = sum(thing.diameter**2 for thing in scene.objects) / SIDE**2
        assert share == pytest.approx(covered, abs=0.15)


def test_the_head_learns_a_map_from_features_that_tell_it() -> None:
    torch.manual_seed(0)
    scene = Scene((Object("star", "red", "large", 32, 32, 32),), ("white",), None, None)
    layout = map_layout(scene)[None]
    features = torch.stack([layout[0, 0] > 0, layout[0, 0] == 0]).float()[None]
    head = LayoutHead(channels=2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.3)
    for _ in range(60):
        loss = head.loss(features, layout)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.05
