"""What is made of what teacher and student drew."""

import pytest

from api.presets import Sampling
from evals.checker import Verdict
from evals.consistency import Row, describe
from evals.judgement import Judgement
from shared.vocab import Sampler, Schedule


def row(hits: list[bool], *, steps: int, guidance: float) -> Row:
    sampling = Sampling(
        sampler=Sampler.LCM, schedule=Schedule.NATIVE, steps=steps, guidance=guidance
    )
    verdicts = [
        Verdict(background=hit, count=True, objects=(hit,), sizes=(), position=None, relation=None)
        for hit in hits
    ]
    return Row("it", sampling, [Judgement(verdict, 5.0) for verdict in verdicts])


def test_a_student_is_measured_by_its_teacher() -> None:
    teacher = row([True] * 40 + [False] * 10, steps=25, guidance=2)
    student = row([True] * 30 + [False] * 20, steps=4, guidance=1)
    figures = describe(student, teacher)
    assert figures["of_teacher"] == pytest.approx(0.75)
    low, high = figures["of_teacher_interval"]
    assert 0.55 < low < 0.75 < high < 0.9
    assert (figures["one_object"], figures["two_objects"]) == (1.0, 0.2)
    assert figures["error"] == 5
    assert describe(teacher, teacher)["of_teacher_interval"] == (1, 1)


def test_what_a_picture_costs_is_counted_in_rows() -> None:
    assert row([True], steps=25, guidance=2).forward_rows == 50
    assert row([True], steps=4, guidance=1).forward_rows == 4
