"""What is made of what the variants drew."""

import numpy as np
import pytest

from evals.checker import Verdict
from evals.judgement import Judgement
from evals.training_schedules import Row, describe, make_captions
from models.train.denoiser import TRAINING_SCHEDULE
from shared.schedule import TrainingSchedule

SCHEDULE = TrainingSchedule(
    num_train_timesteps=1000,
    **{name: TRAINING_SCHEDULE[name] for name in ("beta_start", "beta_end", "beta_schedule")},
)


def judged(*, right: bool, error: float) -> Judgement:
    verdict = Verdict(
        background=right, count=right, objects=(right,), sizes=(None,), position=None, relation=None
    )
    return Judgement(verdict, error)


def row(name: str, hits: list[bool], level: float) -> Row:
    judgements = [judged(right=hit, error=level) for hit in hits]
    plain = {color: np.full(10, level) for color in ("black", "white")}
    return Row(name, SCHEDULE, judgements, plain, np.linspace(0, 2 * level, 11))


def test_a_variant_is_compared_caption_by_caption() -> None:
    first = row("first", [True, False] * 20, level=10.0)
    second = row("second", [True, True] * 20, level=20.0)
    same, better = describe(first, first), describe(second, first)
    assert (same["gain"], same["gain_interval"]) == (0, (0, 0))
    assert better["gain"] == 0.5
    low, high = better["gain_interval"]
    assert 0.3 < low < 0.5 < high < 0.7
    assert (same["all_claims"], better["all_claims"]) == (0.5, 1.0)
    assert (same["one_object"], better["two_objects"]) == (0.5, 1.0)
    assert better["error"] == 20
    assert better["black"] == 20
    assert better["spread"] == pytest.approx(2 * same["spread"])
    assert (better["darkest"], better["brightest"]) == pytest.approx((2, 38))


def test_all_are_asked_for_the_same_and_in_one_order() -> None:
    captions, again = make_captions(2), make_captions(2)
    assert captions == again
    assert captions.all[:4] == list(captions.told)
    assert captions.all[-4:] == list(captions.silent)
    assert len(captions.all) == 4 + 2 * 2 + 4
