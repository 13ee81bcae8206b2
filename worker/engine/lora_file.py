"""Files of LoRA, as diffusers and Kohya's scripts write them: safetensors only."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.utils import state_dict_utils
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.engine.lora import DENOISER, TEXT_ENCODERS, Branch

#: Bytes of a number once it is loaded.
ITEM_BYTES = 4
#: What in a tensor's name shows another kind of adapter.
_OTHER_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    ".bias": "biases",
}
#: What in an adapter's own description does.
_OTHER_OPTIONS = {"use_dora": "DoRA", "use_rslora": "rank-stabilized LoRA", "lora_bias": "biases"}

#: Kohya's scripts number the layers of SDXL through all blocks: what it takes to count them off.
_XL = SimpleNamespace(layers_per_block=2)

ValueT = TypeVar("ValueT")
#: A part of a model and a layer of it.
Place = tuple[str, str]


class UnusableFile(Exception):
    """Why a file cannot be used, as the rest of a sentence that begins with its adapter."""


def measure(path: Path) -> int:
    """Count the bytes that an adapter takes once it is loaded; reads the file's header only.

    Raises:
        UnusableFile: It is no safetensors file.
    """
    with _open(path) as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(ITEM_BYTES * torch.Size(shape).numel() for shape in shapes)


def load(path: Path, device: str) -> dict[str, dict[str, Branch]]:
    """Load the branches of an adapter, by part of the model and name of the layer.

    Raises:
        UnusableFile: It is no safetensors file, or no LoRA that is plain and whole.
    """
    with _open(path) as file:
        named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    _check(named)
    halves, alphas = _name_by_layer(named)
    if not alphas:
        alphas = _read_alphas(metadata, halves)
    if alphas.keys() not in (set(), halves.keys()):
        raise UnusableFile("has an alpha for some of its layers only")
    branches: dict[str, dict[str, Branch]] = defaultdict(dict)
    for (part, layer), half in halves.items():
        down, up = half.get("A.weight"), half.get("B.weight")
        if down is None or up is None or len(half) != 2 or up.shape[1:2] != down.shape[:1]:
            raise UnusableFile(f"has no pair of one rank for the layer {layer}")
        branches[part][layer] = Branch(
            down.to(device, torch.float32),
            up.to(device, torch.float32),
            alphas.get((part, layer), float(len(down))),
        )
    return branches


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UnusableFile("has no safetensors file that can be read") from error


def _check(named: Mapping[str, Tensor]) -> None:
    for mark, kind in _OTHER_KINDS.items():
        if any(mark in name for name in named):
            raise UnusableFile(f"holds {kind}; plain LoRA works")
    if not all(bool(tensor.isfinite().all()) for tensor in named.values()):
        raise UnusableFile("holds numbers that are not finite")


def _name_by_layer(
    named: Mapping[str, Tensor],
) -> tuple[dict[Place, dict[str, Tensor]], dict[Place, float]]:
    """Sort tensors by the layer that they belong to, and alphas, whatever names they came with."""
    try:
        tensors, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(
            dict(named), unet_config=_XL
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UnusableFile("names its tensors in no way that diffusers knows") from error
    halves: dict[Place, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in _rename(tensors).items():
        place, mark, role = name.partition(".lora_")
        if not mark or name.partition(".")[0] not in (DENOISER, *TEXT_ENCODERS):
            raise UnusableFile("is no LoRA of a model like Stable Diffusion 1, 2 or XL")
        halves[_read_place(place)][role] = tensor
    if not halves:
        raise UnusableFile("is empty")
    found = _rename(alphas or {})
    return halves, {
        _read_place(name.removesuffix(".alpha").partition(".lora_")[0]): float(alpha)
        for name, alpha in found.items()
    }


def _rename(values: Mapping[str, ValueT]) -> dict[str, ValueT]:
    """Name the values of layers as peft does."""
    denoiser = {name: value for name, value in values.items() if name.startswith(f"{DENOISER}.")}
    others = {name: value for name, value in values.items() if name not in denoiser}
    names: Any = state_dict_utils  # ships no type information
    return {
        **names.convert_unet_state_dict_to_peft(denoiser),
        # What it knows of the older form holds for the newer one, too.
        **names.convert_state_dict_to_peft(others, names.StateDictType.DIFFUSERS_OLD),
    }


def _read_place(name: str) -> Place:
    part, _, layer = name.partition(".")
    # Older text encoders had their layers one level deeper.
    return part, layer.removeprefix("text_model.") if part in TEXT_ENCODERS else layer


def _read_alphas(metadata: Mapping[str, str], places: Collection[Place]) -> dict[Place, float]:
    """Read alphas from what diffusers writes about an adapter; nothing where it wrote nothing."""
    if LORA_ADAPTER_METADATA_KEY not in metadata:
        return {}
    alphas: dict[Place, float] = {}
    by_part = {part: [layer for p, layer in places if p == part] for part, _ in places}
    try:
        config = json.loads(metadata[LORA_ADAPTER_METADATA_KEY])
        for part, layers in by_part.items():
            for option, kind in _OTHER_OPTIONS.items():
                if config.get(f"{part}.{option}"):
                    raise UnusableFile(f"holds {kind}; plain LoRA works")
            alpha = float(config[f"{part}.lora_alpha"])
            alphas |= {(part, layer): alpha for layer in layers}
            # The first that means a layer counts.
            for name, own in reversed((config.get(f"{part}.alpha_pattern") or {}).items()):
                alphas |= dict.fromkeys(_find(part, layers, name), float(own))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableFile("describes itself in no way that diffusers knows") from error
    return alphas


def _find(part: str, layers: Iterable[str], name: str) -> list[Place]:
    """Find the layers that a name, or the end of one, means."""
    _, end = _read_place(f"{part}.{name.removeprefix('^')}")
    found = [(part, layer) for layer in layers if f".{layer}".endswith(f".{end}")]
    if not found:
        raise UnusableFile("has an alpha for a layer that it has not")
    return found
