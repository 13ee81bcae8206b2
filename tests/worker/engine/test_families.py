"""Every family of pictures: alone stock diffusers' bits, in company rounding only."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline
from PIL import Image

from evals.parity import LONG_PROMPT, draw_together
from shared.catalog import Catalog
from shared.errors import InvalidInput
from shared.request import GenerationRequest
from shared.vocab import GuidanceForm, Process
from tests.fixtures.families import TINY, Stock
from tests.worker.engine.conftest import run_alone
from tests.worker.engine.test_resume import assert_same, go_on, record
from tests.worker.engine.test_source import run_together
from worker.engine import ModelCache, SourceImage
from worker.engine.families.told_guidance import ToldPrompt, embed_guidance

#: Of the model's size, lying, standing.
SIZES = ((32, 32), (48, 32), (32, 64))
#: What company may change, of latents relative to their largest: see ADR 16.
TOLERANCE = 1e-5
#: One model of each family; the others, which differ little, take their time.
ONE_EACH = [
    model_id
    if model_id in ("sdxl", "sd3", "flux")
    else pytest.param(model_id, marks=pytest.mark.slow)
    for model_id in TINY
]
WITH_T5 = ["sd3", "flux", "flux-fast"]


def ask(models: ModelCache, model_id: str, **changes: Any) -> GenerationRequest:
    """Ask a model for something that it can do."""
    spec = models.get(model_id).spec
    sampler = "flow_euler" if spec.process is Process.FLOW else "euler"
    fields: dict[str, Any] = {
        "prompt": "a red star on a blue background",
        "model": model_id,
        "sampler": "lcm" if spec.is_distilled and sampler == "euler" else sampler,
        "schedule": "native",
        "steps": 4,
        "guidance": 1.0 if spec.guidance is GuidanceForm.NONE else 3.5,
        "seed": 7,
        "width": 32,
        "height": 32,
    }
    return GenerationRequest.model_validate(fields | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"negative_prompt": "blue"},
        {"prompt": "a", "width": 48},
        {"guidance": 1.0, "height": 64, "seed": 1},
        {"schedule": "karras", "sampler": None},
        pytest.param({"schedule": "exponential", "sampler": None}, marks=pytest.mark.slow),
        pytest.param({"schedule": "beta", "sampler": None}, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("model_id", TINY)
def test_a_job_alone_equals_stock_diffusers(
    tiny_models: ModelCache, tiny_stock: Stock, model_id: str, changes: dict[str, Any]
) -> None:
    spec = tiny_models.get(model_id).spec
    if spec.guidance is not GuidanceForm.CLASSIFIER_FREE:
        changes = {name: value for name, value in changes.items() if name != "negative_prompt"}
    if spec.guidance is GuidanceForm.NONE:
        changes = changes | {"guidance": 1.0}
    config = {}
    if "schedule" in changes:
        sampler = "flow_euler" if spec.process is Process.FLOW else "dpmpp_2m"
        changes, config = (
            changes | {"sampler": sampler},
            {f"use_{changes['schedule']}_sigmas": True},
        )
    mine = ask(tiny_models, model_id, **changes)
    (ours,) = draw_together(tiny_models, [mine])
    theirs = tiny_stock(model_id).draw(mine, **config)
    assert torch.equal(ours.latents, theirs.latents)
    assert np.array_equal(ours.pixels, theirs.pixels)


@pytest.mark.parametrize("model_id", ["sd3", "sd3-without-t5"])
def test_heuns_method_equals_stock_diffusers(
    tiny_models: ModelCache, tiny_stock: Stock, model_id: str
) -> None:
    mine = ask(tiny_models, model_id, sampler="flow_heun")
    result = run_alone(tiny_models, mine)
    assert result.iterations == mine.iterations == 7
    assert np.array_equal(result.outputs[0].pixels, tiny_stock(model_id).draw(mine).pixels)


@pytest.mark.parametrize("model_id", WITH_T5)
def test_of_a_long_prompt_clip_reads_the_beginning_and_t5_all_as_in_stock_diffusers(
    tiny_models: ModelCache, tiny_stock: Stock, model_id: str
) -> None:
    mine = ask(tiny_models, model_id, prompt=LONG_PROMPT)
    ours = run_alone(tiny_models, mine).outputs[0].pixels
    assert np.array_equal(ours, tiny_stock(model_id).draw(mine).pixels)
    cut = ask(tiny_models, model_id, prompt=LONG_PROMPT.removesuffix("star "))
    assert not np.array_equal(ours, run_alone(tiny_models, cut).outputs[0].pixels)


@pytest.mark.parametrize("model_id", ONE_EACH)
def test_company_of_other_prompts_sizes_and_guidance_changes_rounding_only(
    tiny_models: ModelCache, model_id: str
) -> None:
    is_free = tiny_models.get(model_id).spec.guidance is not GuidanceForm.NONE
    jobs = [
        ask(
            tiny_models,
            model_id,
            prompt="a small star " * (1 + n),
            width=width,
            height=height,
            steps=3 + n,
            seed=10 * n + width + height,
            **({"guidance": guidance} if is_free else {}),
        )
        for n, guidance in enumerate((1.0, 7.5))
        for width, height in SIZES
    ]
    for mine, shared in zip(jobs, draw_together(tiny_models, jobs), strict=True):
        (alone,) = draw_together(tiny_models, [mine])
        change = (shared.latents - alone.latents).abs().max() / alone.latents.abs().max()
        assert change < TOLERANCE
        assert np.abs(shared.pixels.astype(int) - alone.pixels).max() <= 1


@pytest.mark.parametrize("model_id", ONE_EACH)
def test_an_exact_job_gives_the_same_bits_in_any_company(
    tiny_models: ModelCache, model_id: str
) -> None:
    mine = ask(tiny_models, model_id, determinism="exact", prompt="a red star")
    alone = run_alone(tiny_models, mine)
    company = [ask(tiny_models, model_id, seed=n, steps=3 + n) for n in range(3)]
    *_, together = run_together(tiny_models, [(job, None) for job in (*company, mine)])
    assert together.mean_rows > alone.mean_rows
    assert_same(together, alone)


@pytest.mark.parametrize("model_id", ONE_EACH)
def test_it_goes_on_from_the_middle_on_another_engine(
    tiny_models: ModelCache, model_id: str
) -> None:
    mine = ask(tiny_models, model_id, num_outputs=2)
    whole, states = record(tiny_models, mine)
    assert_same(go_on(tiny_models, mine, states[len(states) // 2]), whole)


@pytest.mark.parametrize("model_id", TINY)
def test_prompt_and_guidance_show_in_the_picture(tiny_models: ModelCache, model_id: str) -> None:
    spec = tiny_models.get(model_id).spec
    changes: list[dict[str, Any]] = [{"prompt": "a small blue star"}]
    if spec.guidance is not GuidanceForm.NONE:
        changes.append({"guidance": 9.0})
    if spec.guidance is GuidanceForm.CLASSIFIER_FREE:
        changes.append({"negative_prompt": "blue"})
    plain = run_alone(tiny_models, ask(tiny_models, model_id)).outputs[0].pixels
    for change in changes:
        changed = run_alone(tiny_models, ask(tiny_models, model_id, **change)).outputs[0].pixels
        assert not np.array_equal(changed, plain)


@pytest.mark.parametrize("model_id", TINY)
def test_only_classifier_free_guidance_takes_two_rows(
    tiny_models: ModelCache, model_id: str
) -> None:
    is_told = tiny_models.get(model_id).spec.guidance is not GuidanceForm.CLASSIFIER_FREE
    guided = run_alone(tiny_models, ask(tiny_models, model_id))
    assert guided.mean_rows == (1 if is_told else 2)


@pytest.mark.parametrize("model_id", TINY)
def test_a_prompt_that_is_too_long_is_refused(tiny_models: ModelCache, model_id: str) -> None:
    family = tiny_models.get(model_id)
    prompt = "star " * (family.spec.max_tokens + 1)
    is_told = isinstance(family.conditions(ask(tiny_models, model_id))[0], ToldPrompt)
    with pytest.raises(InvalidInput, match=f"tokens, the model takes {family.spec.max_tokens}"):
        family.encode(ToldPrompt(prompt, 1.0) if is_told else prompt)


@pytest.mark.parametrize("is_masked", [False, True], ids=["image", "mask"])
@pytest.mark.parametrize("model_id", ["sdxl", "sdxl-told"])
def test_a_job_from_a_picture_equals_stock_diffusers(
    tiny_models: ModelCache, tiny_stock: Stock, model_id: str, is_masked: bool
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    mask = np.repeat([[0.0, 1.0]], 24, axis=1).repeat(32, axis=0).astype(np.float32)
    mine = ask(tiny_models, model_id, width=48, strength=0.6, steps=5)
    source = SourceImage(pixels, mask if is_masked else None)
    ours = run_alone(tiny_models, mine, source).outputs[0].pixels
    region = Image.fromarray((mask * 255).astype(np.uint8)) if is_masked else None
    assert np.array_equal(ours, tiny_stock(model_id).redraw(mine, Image.fromarray(pixels), region))


@pytest.mark.parametrize("guidance", [1.0, 1.1, 7.5, 50.0])
@pytest.mark.parametrize("width", [7, 32, 256])
def test_a_scale_is_embedded_as_stock_diffusers_does(guidance: float, width: int) -> None:
    embed: Any = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    theirs = embed(None, torch.tensor([guidance - 1]), embedding_dim=width)
    assert torch.equal(embed_guidance(guidance, width), theirs)


def test_weights_that_a_model_was_left_without_are_not_asked_for(tiny_catalog: Catalog) -> None:
    models = ModelCache(tiny_catalog, "cpu")
    with_t5, without = models.load("sd3"), models.load("sd3-without-t5")
    assert len(with_t5.parts) == len(without.parts) + 1
