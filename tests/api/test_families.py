"""What can be asked of models of other families, settled without a server."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer, T5Tokenizer

from api.inputs import Inputs
from api.presets import PresetBook, Sampling
from api.schemas import JobCreate
from api.submission import Resolver
from api.tokens import TokenCounter
from shared.catalog import Catalog
from shared.errors import InvalidRequest
from shared.request import GenerationRequest, InputImage
from tests.fixtures.families import TINY
from worker.engine.families.prompt_reader import PromptReader

NOW = datetime(2026, 11, 24, tzinfo=UTC)
PRESETS = ("balanced", "creative", "precise", "fast", "reference")


@pytest.fixture(scope="session")
def tiny_tokens(tiny_catalog: Catalog) -> TokenCounter:
    return TokenCounter(tiny_catalog)


@pytest.fixture(scope="session")
def tiny_resolver(tiny_catalog: Catalog, tiny_tokens: TokenCounter) -> Resolver:
    return Resolver(tiny_catalog, PresetBook.load(), tiny_tokens, lambda: 1, lambda: NOW)


def resolve(
    resolver: Resolver, model_id: str, inputs: Inputs | None = None, **fields: Any
) -> GenerationRequest:
    body = JobCreate.model_validate({"prompt": "a red star", "model": model_id} | fields)
    return resolver.resolve(body, inputs or Inputs(), lambda *_: None)[0]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("model_id", TINY)
def test_every_preset_can_be_asked_for(tiny_resolver: Resolver, model_id: str, preset: str) -> None:
    request = resolve(tiny_resolver, model_id, preset=preset)
    again = resolve(tiny_resolver, model_id, **request.model_dump(include={*Sampling.model_fields}))
    assert again == request


@pytest.mark.parametrize(
    ("model_id", "sampler", "guidance", "steps"),
    [
        ("told", "lcm", 7.5, 4),
        ("sdxl", "dpmpp_2m", 7.5, 25),
        ("sdxl-told", "lcm", 7.5, 4),
        ("sd3", "flow_euler", 3.5, 28),
        ("flux", "flow_euler", 3.5, 28),
        ("flux-fast", "flow_euler", 1.0, 4),
    ],
)
def test_the_usual_preset_suits_each_family(
    tiny_resolver: Resolver, model_id: str, sampler: str, guidance: float, steps: int
) -> None:
    request = resolve(tiny_resolver, model_id)
    assert (request.sampler, request.guidance, request.steps) == (sampler, guidance, steps)


@pytest.mark.parametrize(
    ("model_id", "fields", "pointer", "says"),
    [
        ("flux-fast", {"guidance": 3.5}, "#/guidance", "distilled to need none; 1 means none"),
        ("flux", {"negative_prompt": "blue"}, "#/negative_prompt", "once for each step"),
        ("flux-fast", {"negative_prompt": "blue"}, "#/negative_prompt", "leave it out"),
        ("told", {"negative_prompt": "blue"}, "#/negative_prompt", "leave it out"),
        ("flux", {"guidance_rescale": 0.5}, "#/guidance_rescale", "0 works"),
        ("sd3", {"sampler": "lcm"}, "#/sampler", "for diffusion models; sd3 is one of flow"),
        ("sd3", {"sampler": "ddim"}, "#/sampler", "flow_euler can"),
        ("sdxl", {"sampler": "flow_euler"}, "#/sampler", "flow models; .*; euler can"),
        ("flux", {"sampler": "flow_heun"}, "#/sampler", "same levels for all sizes; .*flow_euler"),
        ("flux", {"schedule": "cosine"}, "#/schedule", "flow_euler cannot be given"),
        ("sd3", {"width": 36}, "#/width", "multiples of 8 pixels up to 64"),
        ("flux", {"height": 20}, "#/height", "multiples of 8 pixels"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_would_work(
    tiny_resolver: Resolver, model_id: str, fields: dict[str, Any], pointer: str, says: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(tiny_resolver, model_id, **fields)
    (problem,) = refused.value.problems
    assert problem.pointer == pointer
    assert re.search(says, problem.detail)


@pytest.mark.parametrize("model_id", ["sd3", "flux", "flux-fast"])
def test_flow_models_start_from_noise(tiny_resolver: Resolver, model_id: str) -> None:
    inputs = Inputs(init_image=InputImage(id="upl_1", sha256="00"))
    with pytest.raises(InvalidRequest) as refused:
        resolve(tiny_resolver, model_id, inputs, init_image="upl_1")
    assert [problem.pointer for problem in refused.value.problems] == ["#/init_image"]
    assert resolve(tiny_resolver, "sdxl", inputs, init_image="upl_1").strength == 0.75


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@pytest.mark.parametrize(
    ("model_id", "cls", "name"),
    [("sdxl", CLIPTokenizer, "tokenizer_2"), ("flux", T5Tokenizer, "tokenizer_2")],
)
def test_tokens_are_counted_as_the_worker_reads_them(
    tiny_catalog: Catalog, tiny_tokens: TokenCounter, model_id: str, cls: Any, name: str, text: str
) -> None:
    reader = PromptReader(cls, tiny_catalog.models[model_id].path / name, max_tokens=1)
    assert tiny_tokens.count(model_id, text) == reader._tokenize(text, truncation=False).shape[1]


@pytest.mark.parametrize("model_id", TINY)
def test_a_prompt_is_counted_by_the_encoder_that_reads_all_of_it(
    tiny_catalog: Catalog, tiny_resolver: Resolver, model_id: str
) -> None:
    most = tiny_catalog.models[model_id].max_tokens
    # One token for each star, and one or two for the ends.
    num_stars = most - (1 if most > 77 else 2)
    assert resolve(tiny_resolver, model_id, prompt="star " * num_stars)
    with pytest.raises(InvalidRequest, match=f"at most {most}"):
        resolve(tiny_resolver, model_id, prompt="star " * (num_stars + 1))
