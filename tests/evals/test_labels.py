"""Scores of pictures that were asked by label."""

import random

import numpy as np
import pytest

from evals.label_drawing import Picture, score
from evals.labels import JUDGE
from models.train.label_denoiser import LABELS
from models.train.label_judge import LabelJudge
from models.train.render import render
from models.train.world import draw_scene


@pytest.fixture
def judge() -> LabelJudge:
    return LabelJudge.load(JUDGE)


def draw_one(rng: random.Random, label: str, *, two_objects: float = 0) -> Picture:
    while True:
        scene = draw_scene(rng, two_objects=two_objects)
        if scene.objects[0].kind == label:
            return render(scene)


def test_both_judges_accept_renders_and_refuse_other_labels(judge: LabelJudge) -> None:
    rng = random.Random(4)
    labels = LABELS * 2
    pictures = [draw_one(rng, label) for label in labels]
    right = score(judge, labels, pictures)
    assert right.named.hits >= 36
    assert right.found.hits >= 35
    assert right.named.count == right.found.count == len(right.names) == 38
    # As if each had been asked for the next label.
    wrong = score(judge, (LABELS[1:] + LABELS[:1]) * 2, pictures)
    assert wrong.named.hits + wrong.found.hits <= 3


def test_two_objects_are_not_the_one_that_was_asked(judge: LabelJudge) -> None:
    rng = random.Random(5)
    labels = LABELS[:5] * 2
    pictures = [draw_one(rng, label, two_objects=1) for label in labels]
    assert score(judge, labels, pictures).found.hits == 0


def test_diversity_is_how_far_pictures_of_one_label_are_apart(judge: LabelJudge) -> None:
    rng = random.Random(6)
    one, two = draw_one(rng, "star"), draw_one(rng, "star")
    assert score(judge, ["star", "star"], [one, one]).diversity == 0
    difference = np.sqrt(np.square(one.astype(float) - two).mean())
    assert score(judge, ["star", "star"], [one, two]).diversity == pytest.approx(difference)
    # Other labels' pictures do not count.
    labels, pictures = ["star", "ring", "star", "ring"], [one, two, one, two]
    assert score(judge, labels, pictures).diversity == 0
