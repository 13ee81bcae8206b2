"""LoRA with two text encoders against stock diffusers with peft, bit for bit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evals.stock import StockDiffusers
from shared.adapters import AdapterSpec
from shared.catalog import Catalog
from shared.errors import AdapterUnavailable
from tests.worker.engine.conftest import run_alone
from tests.worker.engine.test_families import ask
from worker.engine import AdapterCache, ModelCache
from worker.engine.lora import ActiveAdapter, Branch
from worker.engine.lora_file import load

RANK = 2
#: Ends of the names of layers that trainers usually choose.
USUAL = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "v_proj", "out_proj", "fc1")
#: As Kohya's scripts call the parts.
KOHYA = {"unet": "unet", "text_encoder": "te1", "text_encoder_2": "te2"}


def layers_of(models: ModelCache) -> Iterator[tuple[str, str, nn.Linear]]:
    """Name the layers that adapters usually change, by part."""
    parts = dict(
        zip(("text_encoder", "text_encoder_2", "unet"), models.get("sdxl").parts, strict=False)
    )
    for part, model in parts.items():
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear) and name.endswith(USUAL):
                yield part, name, layer


def write(models: ModelCache, path: Path, seed: int, *, is_kohya: bool) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for part, name, layer in layers_of(models):
        down = torch.randn(RANK, layer.in_features, generator=generator)
        up = torch.randn(layer.out_features, RANK, generator=generator)
        if is_kohya:
            whole = name if part == "unet" else f"text_model.{name.removeprefix('text_model.')}"
            place = f"lora_{KOHYA[part]}_{whole.replace('.', '_')}"
            tensors[f"{place}.lora_down.weight"], tensors[f"{place}.lora_up.weight"] = down, up
            tensors[f"{place}.alpha"] = torch.tensor(1.0)
        else:
            tensors[f"{part}.{name}.lora_A.weight"] = down
            tensors[f"{part}.{name}.lora_B.weight"] = up
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def adapters(
    tiny_models: ModelCache, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, AdapterSpec]:
    folder = tmp_path_factory.mktemp("loras")
    return {
        name: AdapterSpec(
            id=name,
            path=write(tiny_models, folder / f"{name}.safetensors", seed, is_kohya=is_kohya),
            description="",
            revision="1",
            models=("sdxl",),
            weight=1.0,
            min_weight=0.0,
            max_weight=2.0,
        )
        for seed, (name, is_kohya) in enumerate({"today": False, "kohya": True}.items())
    }


@pytest.fixture(scope="module")
def stock(tiny_catalog: Catalog, adapters: dict[str, AdapterSpec]) -> StockDiffusers:
    """One of its own: what it has loaded stays in its model."""
    stock = StockDiffusers(tiny_catalog.models["sdxl"].path)
    stock.load_adapters({name: spec.path for name, spec in adapters.items()})
    return stock


@pytest.mark.parametrize(
    "weights", [{"today": 0.7}, {"kohya": 1.3}, {"kohya": 0.5, "today": 0.4}, {}], ids=str
)
def test_equals_stock_diffusers(
    tiny_models: ModelCache,
    adapters: dict[str, AdapterSpec],
    stock: StockDiffusers,
    weights: dict[str, float],
) -> None:
    uses = [{"id": name, "weight": weight} for name, weight in weights.items()]
    plain = ask(tiny_models, "sdxl", negative_prompt="blue")
    mine = ask(tiny_models, "sdxl", negative_prompt="blue", adapters=uses)
    ours = run_alone(tiny_models, mine, adapters=AdapterCache(adapters, "cpu")).outputs[0].pixels
    assert np.array_equal(ours, stock.draw(mine).pixels)
    assert np.array_equal(ours, run_alone(tiny_models, plain).outputs[0].pixels) is not any(uses)


def test_layers_that_kohyas_scripts_number_through_are_found(tmp_path: Path) -> None:
    file = tmp_path / "numbered.safetensors"
    names = {
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q": "down_blocks.1.attentions.0",
        "middle_block_1_transformer_blocks_0_attn1_to_q": "mid_block.attentions.0",
        "output_blocks_5_1_transformer_blocks_0_attn1_to_q": "up_blocks.1.attentions.2",
    }
    halves = {"lora_down.weight": torch.zeros(2, 8), "lora_up.weight": torch.zeros(8, 2)}
    tensors = {
        f"lora_unet_{name}.{half}": value.clone()
        for name in names
        for half, value in halves.items()
    }
    save_file(tensors, file)
    found = load(file, "cpu")["unet"]
    assert set(found) == {f"{where}.transformer_blocks.0.attn1.to_q" for where in names.values()}


def test_an_adapter_for_two_text_encoders_is_none_of_a_model_with_one(
    models: ModelCache,
) -> None:
    branch = Branch(torch.zeros(1, 8), torch.zeros(8, 1), 1.0)
    adapter = ActiveAdapter("xl", 1.0, {"text_encoder_2": {"encoder.layers.0.fc1": branch}})
    with pytest.raises(AdapterUnavailable, match=r"adapter xl .*its text_encoder_2 has no such"):
        models.get("demo").bind("text_encoder", [adapter])
