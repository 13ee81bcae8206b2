from dataclasses import replace

import pytest

from evals.parity import STEPS_QUICK, compare, make_cases
from shared.vocab import Sampler, Schedule


def test_every_sampler_of_the_demo_model_is_compared() -> None:
    cases = make_cases(STEPS_QUICK)
    seeds = [case.request.seed for case in cases]
    assert len(set(seeds)) == len(cases)
    foreign = {Sampler.FLOW_EULER, Sampler.FLOW_HEUN, Sampler.EDM_DPMPP_2M}
    assert {case.request.sampler for case in cases} == set(Sampler) - foreign
    assert {case.request.schedule for case in cases} == set(Schedule) - {
        Schedule.LINEAR,
        Schedule.COSINE,
    }


@pytest.mark.parametrize("is_told_right", [True, False])
def test_another_schedule_than_the_stock_one_is_seen(is_told_right: bool) -> None:
    (case,) = [
        case
        for case in make_cases([3])
        if (case.request.sampler, case.request.schedule) == (Sampler.EULER, Schedule.KARRAS)
    ]
    (row,) = compare([case if is_told_right else replace(case, config={})])
    assert row.passes == is_told_right
    assert row.is_bitwise_alone == is_told_right
