"""Many pictures judged at once."""

import random

import numpy as np

from evals.checker import judge
from evals.judgement import judge_all
from models.train.render import render
from models.train.world import draw_caption, draw_scene


def test_each_picture_is_judged_by_its_own_caption() -> None:
    rng = random.Random(4)
    captions = [draw_caption(rng, draw_scene(rng, two_objects=0.5)) for _ in range(4)]
    pictures = [render(caption.scene) for caption in captions]
    noise = np.random.default_rng(0).integers(0, 256, pictures[0].shape, dtype=np.uint8)
    blurred = [picture // 2 + 60 for picture in pictures]
    judged = judge_all([*captions, *captions, captions[0]], [*pictures, *blurred, noise])
    for caption, picture, judgement in zip(captions, pictures, judged, strict=False):
        assert judgement.verdict == judge(picture, caption)
        assert judgement.error < 10
    clean, faded = judged[: len(captions)], judged[len(captions) : -1]
    assert np.mean([j.error for j in clean]) < np.mean([j.error for j in faded])
    assert not judged[-1].verdict.all
    assert judged[-1].error == float("inf")
