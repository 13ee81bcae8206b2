"""Jobs with adapters against stock diffusers with peft, bit for bit; and nothing of them stays."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from evals.stock import StockDiffusers
from shared.catalog import Catalog
from shared.errors import AdapterUnavailable
from shared.request import GenerationRequest
from tests.fixtures.loras import (
    PARTS,
    write_catalog,
    write_described,
    write_kohya,
    write_older,
    write_peft,
)
from tests.worker.engine.conftest import request, run_alone
from worker.engine import AdapterCache, ModelCache
from worker.engine.lora import ActiveAdapter, Branch, bind


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One adapter of each form."""
    folder = tmp_path_factory.mktemp("loras")
    alphas = {"mid_block.resnets.0.conv1": 2.0, "conv1": 3.0}
    return {
        "described": write_described(folder / "d.safetensors", 1, alphas),
        "half": write_peft(folder / "h.safetensors", 5, rank=1, dtype=torch.float16),
        "kohya": write_kohya(folder / "k.safetensors", 2, parts=PARTS),
        "older": write_older(folder / "o.safetensors", 3, parts=PARTS),
        "words": write_peft(folder / "w.safetensors", 4, parts=("text_encoder",)),
    }


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path]) -> Catalog:
    return write_catalog(tmp_path_factory.mktemp("catalog"), files)


@pytest.fixture(scope="module")
def stock(files: dict[str, Path]) -> StockDiffusers:
    """One of its own: what it has loaded stays in its model."""
    stock = StockDiffusers()
    stock.load_adapters(files)
    return stock


@pytest.fixture(scope="module")
def plain(models: ModelCache) -> NDArray[np.uint8]:
    """What the model draws without adapters."""
    return run_alone(models, picture()).outputs[0].pixels


def picture(**weights: float) -> GenerationRequest:
    adapters = [{"id": adapter_id, "weight": weight} for adapter_id, weight in weights.items()]
    return request(adapters=adapters, sampler="dpmpp_2m", negative_prompt="a blue ring")


@pytest.mark.parametrize(
    "weights",
    [
        {"described": 0.7},
        {"half": 1.3},
        {"kohya": 1.0},
        {"words": 1.0},
        {"described": 0.0},
        {"half": -0.5, "words": 0.5},
        {"described": 0.3, "half": 0.4, "kohya": 0.5, "older": 0.6},
        {},
    ],
    ids=str,
)
def test_equals_stock_diffusers(
    models: ModelCache,
    catalog: Catalog,
    stock: StockDiffusers,
    plain: NDArray[np.uint8],
    weights: dict[str, float],
) -> None:
    mine = picture(**weights)
    ours = run_alone(models, mine, adapters=AdapterCache(catalog.adapters, "cpu"))
    pixels = ours.outputs[0].pixels
    assert np.array_equal(pixels, stock.draw(mine).pixels)
    assert np.array_equal(pixels, plain) is not any(weights.values())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 6)
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.groups = nn.Conv2d(2, 4, 3, groups=2)
        self.norm = nn.LayerNorm(4)


def adapter(**branches: tuple[tuple[int, ...], tuple[int, ...]]) -> ActiveAdapter:
    generator = torch.Generator().manual_seed(1)
    found = {
        name: Branch(*(torch.randn(shape, generator=generator) for shape in shapes), alpha=4.0)
        for name, shapes in branches.items()
    }
    return ActiveAdapter("some", 0.5, {"unet": found})


def test_a_branch_adds_the_product_of_its_halves() -> None:
    net = Net()
    one = adapter(dense=((2, 4), (6, 2)), conv=((1, 2, 3, 3), (4, 1, 1, 1)))
    dense, conv = one.branches["unet"]["dense"], one.branches["unet"]["conv"]
    flat, image = torch.randn(5, 4), torch.randn(1, 2, 8, 8)
    before = net.dense(flat), net.conv(image)
    attachment = bind(net, "unet", [one, one])
    with attachment.attached():
        added = net.dense(flat) - before[0], net.conv(image) - before[1]
    # Twice a weight of 0.5 with an alpha of 4, of rank 2 and 1.
    wanted = 2 * 0.5 * 4 / 2 * flat @ (dense.up @ dense.down).T
    torch.testing.assert_close(added[0], wanted)
    kernel = torch.einsum("or,rihw->oihw", conv.up[:, :, 0, 0], conv.down)
    wanted = 2 * 0.5 * 4 * torch.nn.functional.conv2d(image, kernel, stride=2, padding=1)
    torch.testing.assert_close(added[1], wanted)
    assert torch.equal(net.dense(flat), before[0])
    assert torch.equal(net.conv(image), before[1])


def test_nothing_stays_attached_whatever_happens() -> None:
    net = Net()
    attachment = bind(net, "unet", [adapter(dense=((2, 4), (6, 2)))])
    with pytest.raises(RuntimeError), attachment.attached():
        net.dense(torch.randn(5, 5))
    assert not net.dense._forward_hooks


@pytest.mark.parametrize(
    ("name", "down", "up"),
    [
        ("dense", (2, 5), (6, 2)),
        ("dense", (2, 4), (5, 2)),
        ("dense", (2, 4, 1, 1), (6, 2, 1, 1)),
        ("conv", (2, 2, 1, 1), (4, 2, 1, 1)),
        ("conv", (2, 2, 3, 3), (4, 2)),
        ("groups", (2, 1, 3, 3), (4, 2, 1, 1)),
        ("norm", (2, 4), (4, 2)),
        ("nowhere", (2, 4), (6, 2)),
        ("", (2, 4), (6, 2)),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, down: tuple[int, ...], up: tuple[int, ...]
) -> None:
    with pytest.raises(AdapterUnavailable, match="adapter some was made for another model"):
        bind(Net(), "unet", [adapter(**{name: (down, up)})])
