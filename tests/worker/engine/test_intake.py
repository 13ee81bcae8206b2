from collections.abc import Callable

import pytest
import torch

from tests.worker.engine.conftest import request
from worker.company import Company
from worker.engine import ModelCache
from worker.engine.intake import Intake

Prompts = list[str]


@pytest.fixture
def encoded(models: ModelCache, monkeypatch: pytest.MonkeyPatch) -> Prompts:
    """Every prompt that the model encodes, in order."""
    family, prompts = models.get("demo"), Prompts()
    encode: Callable[[str], torch.Tensor] = family.encode

    def encode_and_note(prompt: str) -> torch.Tensor:
        prompts.append(prompt)
        return encode(prompt)

    monkeypatch.setattr(family, "encode", encode_and_note)
    return prompts


def test_a_prompt_is_encoded_once_and_the_negative_one_is_shared(
    models: ModelCache, encoded: Prompts
) -> None:
    intake = Intake(models, company=Company(), prompt_cache_size=8)
    for run_id, prompt in enumerate(["a star", "a ring", "a star"]):
        intake.prepare(run_id, request(prompt=prompt, negative_prompt="blue"), None)
    intake.prepare(3, request(prompt="blue", guidance=1.0), None)
    assert encoded == ["blue", "a star", "a ring"]


def test_the_prompt_that_was_not_used_for_longest_is_dropped(
    models: ModelCache, encoded: Prompts
) -> None:
    intake = Intake(models, company=Company(), prompt_cache_size=2)
    for run_id, prompt in enumerate(["a", "b", "a", "c", "a", "b"]):
        intake.prepare(run_id, request(prompt=prompt, guidance=1.0), None)
    assert encoded == ["a", "b", "c", "b"]


def test_a_cached_prompt_has_the_bits_of_one_encoded_alone(models: ModelCache) -> None:
    intake = Intake(models, company=Company(), prompt_cache_size=8)
    wanted = request(prompt="a small green frog", negative_prompt="blue")
    for run_id, other in enumerate(["a ring", "a small green frog"]):
        intake.prepare(run_id, request(prompt=other, negative_prompt="blue"), None)
    (trajectory,) = intake.prepare(2, wanted, None)
    family = models.get("demo")
    alone = family.encode("blue"), family.encode("a small green frog")
    for found, expected in zip(trajectory.conditionings, alone, strict=True):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
