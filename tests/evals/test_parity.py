from collections import Counter
from dataclasses import replace

import pytest

from evals.parity import STEPS_QUICK, Row, compare, make_cases
from evals.stock import StockDiffusers
from models import CATALOG
from shared.catalog import Catalog
from shared.vocab import GuidanceForm, Sampler, Schedule
from tests.fixtures.families import TINY

DEMO = Catalog.load(CATALOG)
SPEC = DEMO.models["demo"]


def test_every_sampler_of_the_demo_model_is_compared() -> None:
    cases = make_cases(STEPS_QUICK, SPEC)
    seeds = [case.request.seed for case in cases]
    assert len(set(seeds)) == len(cases)
    foreign = {Sampler.FLOW_EULER, Sampler.FLOW_HEUN, Sampler.EDM_DPMPP_2M}
    assert {case.request.sampler for case in cases} == set(Sampler) - foreign
    assert {case.request.schedule for case in cases} == set(Schedule) - {
        Schedule.LINEAR,
        Schedule.COSINE,
    }


@pytest.mark.parametrize("model_id", TINY)
def test_every_size_of_another_family_has_company(tiny_catalog: Catalog, model_id: str) -> None:
    spec = tiny_catalog.models[model_id]
    requests = [case.request for case in make_cases(STEPS_QUICK, spec)]
    assert len({one.seed for one in requests}) == len(requests)
    assert min(Counter((one.width, one.height) for one in requests).values()) > 1
    assert all(one.width % spec.size_step == one.height % spec.size_step == 0 for one in requests)
    if spec.guidance is not GuidanceForm.CLASSIFIER_FREE:
        assert not any(one.negative_prompt or one.guidance_rescale for one in requests)


@pytest.mark.parametrize("is_told_right", [True, False])
def test_another_schedule_than_the_stock_one_is_seen(is_told_right: bool) -> None:
    (case,) = [
        case
        for case in make_cases([3], SPEC)
        if (case.request.sampler, case.request.schedule) == (Sampler.EULER, Schedule.KARRAS)
    ]
    (row,) = compare([case if is_told_right else replace(case, config={})], DEMO)
    assert row.passes == is_told_right
    assert row.is_bitwise_alone == is_told_right


@pytest.mark.parametrize(
    ("company", "rounding", "passes"),
    [(1e-5, 0.0, True), (1.1e-5, 2e-6, False), (4e-5, 1e-5, True), (4.1e-5, 1e-5, False)],
)
def test_company_may_change_what_roundings_change(
    company: float, rounding: float, passes: bool
) -> None:
    row = Row(
        model="demo",
        sampler=Sampler.EULER,
        schedule=Schedule.NATIVE,
        steps=7,
        guidance=7.5,
        guidance_rescale=0.0,
        is_bitwise_alone=True,
        latent_change=company,
        rounding_change=rounding,
        usual_levels=0.0,
        most_levels=1,
    )
    assert row.passes == passes


def test_a_nudge_changes_last_bits_and_no_draw_of_noise() -> None:
    stock = StockDiffusers()
    (request,) = [
        case.request.model_copy(update={"steps": 1, "guidance": 1.0})
        for case in make_cases([1], SPEC)
        if case.request.sampler is Sampler.EULER_ANCESTRAL and not case.config
    ][:1]
    plain, nudged = stock.draw(request), stock.draw(request, nudge_seed=0)
    change = (nudged.latents - plain.latents).abs().max() / plain.latents.abs().max()
    assert 0 < change < 1e-5
