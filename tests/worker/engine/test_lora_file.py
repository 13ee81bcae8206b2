import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.fixtures.loras import PARTS, make_pairs, write_kohya, write_older, write_peft
from worker.engine.lora_file import UnusableFile, load, measure

LAYER = "mid_block.resnets.0.conv1"
PREFIX = f"unet.{LAYER}.lora_"


@pytest.mark.parametrize("write", [write_peft, write_older, write_kohya])
def test_all_forms_mean_the_same(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / "one.safetensors", 1, parts=PARTS)
    loaded = load(path, "cpu")
    pairs = make_pairs(1, parts=PARTS)
    assert {(part, layer) for part in loaded for layer in loaded[part]} == set(pairs)
    for (part, layer), (down, up) in pairs.items():
        branch = loaded[part][layer]
        torch.testing.assert_close(branch.down, down, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(branch.up, up, atol=1e-2, rtol=1e-3)
        assert branch.down.dtype is branch.up.dtype is torch.float32
        assert branch.alpha == (1.5 if write is write_kohya else 3.0)


@pytest.mark.parametrize("write", [write_peft, write_kohya])
def test_the_measure_is_what_the_numbers_take_in_memory(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    path = write(tmp_path / "one.safetensors", 1)
    loaded = load(path, "cpu")
    num_bytes = sum(
        tensor.nbytes
        for branches in loaded.values()
        for branch in branches.values()
        for tensor in (branch.down, branch.up)
    )
    # Kohya's scripts store the alphas as tensors, too.
    assert 0 <= measure(path) - num_bytes <= 4 * len(loaded["unet"])


def pair(rank: int = 2) -> dict[str, Tensor]:
    return {
        f"{PREFIX}A.weight": torch.zeros(rank, 128, 3, 3),
        f"{PREFIX}B.weight": torch.zeros(128, rank, 1, 1),
    }


KOHYA = {
    f"lora_unet_mid_block_resnets_{n}_conv1.lora_{half}.weight": torch.zeros(shape)
    for n in (0, 1)
    for half, shape in (("down", (2, 128, 3, 3)), ("up", (128, 2, 1, 1)))
}


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "is empty"),
        ({"model.weight": torch.zeros(2, 2)}, "is no LoRA of a model like Stable Diffusion"),
        ({"text_encoder_3.a.lora_A.weight": torch.zeros(2, 2)}, "is no LoRA of a model like"),
        ({"base_model.model.a.lora_A.weight": torch.zeros(2, 2)}, "is no LoRA of a model like"),
        (
            {f"{PREFIX}A.weight": torch.zeros(2, 128, 3, 3)},
            f"no pair of one rank for the layer {LAYER}",
        ),
        (pair() | {f"{PREFIX}B.weight": torch.zeros(128, 3, 1, 1)}, "no pair of one rank"),
        (pair() | {f"{PREFIX}C.weight": torch.zeros(1)}, "no pair of one rank"),
        (pair() | {f"{PREFIX}B.bias": torch.zeros(128)}, "holds biases"),
        (pair() | {f"{PREFIX}magnitude_vector": torch.zeros(128)}, "holds DoRA"),
        (pair() | {f"{PREFIX}A.weight": torch.full((2, 128, 3, 3), torch.nan)}, "not finite"),
        (pair() | {f"unet.{LAYER}.alpha": torch.tensor(1.0)}, "is no LoRA of a model like"),
        (KOHYA | {"lora_unet_mid_block.hada_w1_a": torch.zeros(2, 2)}, "holds LoHa"),
        (KOHYA | {"lora_unet_mid_block.lokr_w1": torch.zeros(2, 2)}, "holds LoKr"),
        (KOHYA | {"lora_unet_mid_block_resnets_0_conv1.odd": torch.zeros(2)}, "in no way that"),
        (dict(list(KOHYA.items())[1:]), "in no way that"),
        (dict(list(KOHYA.items())[:-1]), "in no way that"),
        (
            KOHYA | {"lora_unet_mid_block_resnets_0_conv1.alpha": torch.tensor(1.0)},
            "an alpha for some of its layers only",
        ),
    ],
)
def test_what_is_no_plain_whole_lora_says_why(
    tmp_path: Path, tensors: dict[str, Tensor], reason: str
) -> None:
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(UnusableFile, match=reason):
        load(tmp_path / "one.safetensors", "cpu")


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("", "describes itself in no way"),
        ("[]", "describes itself in no way"),
        ("{}", "describes itself in no way"),
        (json.dumps({"unet.lora_alpha": "much"}), "describes itself in no way"),
        (json.dumps({"unet.lora_alpha": 2, "unet.use_dora": True}), "holds DoRA"),
        (json.dumps({"unet.lora_alpha": 2, "unet.use_rslora": True}), "holds rank-stabilized"),
        (json.dumps({"unet.lora_alpha": 2, "unet.lora_bias": True}), "holds biases"),
        (
            json.dumps({"unet.lora_alpha": 2, "unet.alpha_pattern": {"conv9": 1}}),
            "an alpha for a layer that it has not",
        ),
    ],
)
def test_a_description_that_means_something_else_says_why(
    tmp_path: Path, description: str, reason: str
) -> None:
    file = tmp_path / "one.safetensors"
    save_file(pair(), file, metadata={"lora_adapter_metadata": description})
    with pytest.raises(UnusableFile, match=reason):
        load(file, "cpu")


def test_what_is_no_safetensors_file_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    file = write_peft(tmp_path / "one.safetensors", 1)
    whole = file.read_bytes()
    torch.save(load_file(file), tmp_path / "pickled.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "huge.safetensors").write_bytes(b"\xff" * 8 + whole[8:])
    for name in ("pickled", "cut", "empty", "huge", "missing"):
        for read in (measure, lambda path: load(path, "cpu")):
            with pytest.raises(UnusableFile, match="no safetensors file that can be read"):
                read(tmp_path / f"{name}.safetensors")
