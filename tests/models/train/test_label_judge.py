"""The network that names what a picture shows."""

import random
from pathlib import Path

import pytest

from evals.labels import JUDGE
from models import CATALOG
from models.train import label_judge
from models.train.classes import load_vae
from models.train.label_denoiser import LABELS, number_of
from models.train.label_judge import LabelJudge, reconstruct
from models.train.render import render
from models.train.vae import to_pixels, to_tensor
from models.train.world import draw_scene

DEMO = CATALOG.parent / "demo"


def test_the_kept_judge_names_what_no_training_saw() -> None:
    rng = random.Random(11)
    scenes = [draw_scene(rng, two_objects=0, held_out=True) for _ in range(100)]
    labels = [LABELS[number_of(scene)] for scene in scenes]
    decoded = to_pixels(reconstruct(load_vae(DEMO), to_tensor(scenes)))
    judge = LabelJudge.load(JUDGE)
    for pictures in ([render(scene) for scene in scenes], list(decoded)):
        names = judge.name(pictures)
        assert sum(name == label for name, label in zip(names, labels, strict=True)) >= 97


def test_pixels_come_back_as_levels() -> None:
    scene = draw_scene(random.Random(1), two_objects=0)
    assert (to_pixels(to_tensor([scene]))[0] == render(scene)).all()


@pytest.mark.slow
def test_its_training_makes_weights_that_judge(tmp_path: Path) -> None:
    weights = tmp_path / "judge.safetensors"
    label_judge.main(weights, DEMO, rounds=1, num_scenes=64)
    scene = draw_scene(random.Random(1), two_objects=0)
    (name,) = LabelJudge.load(weights).name([render(scene)])
    assert name in LABELS
