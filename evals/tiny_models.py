"""Tiny models with random weights, one for each family of pictures, as ordinary diffusers folders.

They draw nothing, and compute everything that their large kin do. A folder is the same bytes
whenever it is written by the same libraries.
"""

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import pre_tokenizers

#: Marks of CLIP's tokenizer.
_START, _END = "<|startoftext|>", "<|endoftext|>"
#: Pairs that CLIP's tokenizer joins, so that words have fewer tokens than letters.
_MERGES = (("r", "e"), ("re", "d</w>"), ("s", "t"), ("a", "r</w>"), ("st", "ar</w>"))
#: Words that T5's tokenizer has whole.
_WORDS = ("a", "red", "star", "blue", "small", "large", "background")
#: Channels of a text encoder.
_WIDTH = 16
#: Tokens that CLIP takes.
CLIP_TOKENS = 77
#: Pixels of a latent's cell.
FACTOR = 4


#: A UNet with one level that attends to the prompt, and one that does not.
_UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": (2, 4),
}
#: Training schedule of Stable Diffusion.
_LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def write_stable_diffusion(folder: Path) -> Path:
    """Write a model like Stable Diffusion 1, distilled to be told its guidance."""
    torch.manual_seed(0)
    _write_clip(folder, "", transformers.CLIPTextModel)
    _write_vae(folder)
    unet = _make("UNet2DConditionModel", **_UNET, cross_attention_dim=_WIDTH, time_cond_proj_dim=32)
    unet.save_pretrained(folder / "unet")
    _make("LCMScheduler", **_LEVELS, steps_offset=1).save_pretrained(folder / "scheduler")
    parts = {
        "text_encoder": ("transformers", "CLIPTextModel"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "unet": ("diffusers", "UNet2DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", "LCMScheduler"),
        "safety_checker": (None, None),
        "feature_extractor": (None, None),
        "image_encoder": (None, None),
    }
    return _write_index(
        folder, "StableDiffusionPipeline", parts, {"requires_safety_checker": False}
    )


def write_sdxl(folder: Path, *, is_told: bool = False) -> Path:
    """Write a model like Stable Diffusion XL; distilled to be told its guidance if asked."""
    torch.manual_seed(1)
    classes = transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection
    for suffix, cls in zip(("", "_2"), classes, strict=True):
        _write_clip(folder, suffix, cls)
    _write_vae(folder)
    _make(
        "UNet2DConditionModel",
        **_UNET,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        cross_attention_dim=2 * _WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
        time_cond_proj_dim=32 if is_told else None,
    ).save_pretrained(folder / "unet")
    scheduler = "LCMScheduler" if is_told else "EulerDiscreteScheduler"
    spacing = {} if is_told else {"timestep_spacing": "leading", "steps_offset": 1}
    _make(scheduler, **_LEVELS, **spacing).save_pretrained(folder / "scheduler")
    parts = {
        "text_encoder": ("transformers", "CLIPTextModel"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "tokenizer_2": ("transformers", "CLIPTokenizer"),
        "unet": ("diffusers", "UNet2DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", scheduler),
    }
    options = {"force_zeros_for_empty_prompt": True, "add_watermarker": None}
    return _write_index(folder, "StableDiffusionXLPipeline", parts, options)


def write_sd3(folder: Path, *, has_t5: bool = True) -> Path:
    """Write a model like Stable Diffusion 3, which many run without its largest text encoder."""
    torch.manual_seed(2)
    for suffix in ("", "_2"):
        _write_clip(folder, suffix, transformers.CLIPTextModelWithProjection)
    if has_t5:
        _write_t5(folder, "_3")
    _write_vae(folder, shift_factor=0.06)
    _make(
        "SD3Transformer2DModel",
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=2 * _WIDTH,
        pooled_projection_dim=2 * _WIDTH,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    ).save_pretrained(folder / "transformer")
    _make("FlowMatchEulerDiscreteScheduler", shift=3.0).save_pretrained(folder / "scheduler")
    parts = {
        "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_3": ("transformers", "T5EncoderModel") if has_t5 else (None, None),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "tokenizer_2": ("transformers", "CLIPTokenizer"),
        "tokenizer_3": ("transformers", "T5Tokenizer") if has_t5 else (None, None),
        "transformer": ("diffusers", "SD3Transformer2DModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
    }
    return _write_index(folder, "StableDiffusion3Pipeline", parts)


def write_flux(folder: Path, *, is_told: bool = True) -> Path:
    """Write a model like Flux: told its guidance and shifted by size, or like its fast kin."""
    torch.manual_seed(3)
    _write_clip(folder, "", transformers.CLIPTextModel)
    _write_t5(folder, "_2")
    _write_vae(folder, shift_factor=0.1)
    _make(
        "FluxTransformer2DModel",
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * _WIDTH,
        pooled_projection_dim=_WIDTH,
        guidance_embeds=is_told,
        axes_dims_rope=(4, 4, 8),
    ).save_pretrained(folder / "transformer")
    shift: dict[str, Any] = (
        {"shift": 3.0, "use_dynamic_shifting": True} if is_told else {"shift": 1.0}
    )
    _make("FlowMatchEulerDiscreteScheduler", **shift).save_pretrained(folder / "scheduler")
    parts = {
        "text_encoder": ("transformers", "CLIPTextModel"),
        "text_encoder_2": ("transformers", "T5EncoderModel"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "tokenizer_2": ("transformers", "T5Tokenizer"),
        "transformer": ("diffusers", "FluxTransformer2DModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
    }
    return _write_index(folder, "FluxPipeline", parts)


def _make(name: str, **config: Any) -> Any:
    """Make one of diffusers' classes, which ship no type information."""
    return getattr(diffusers, name)(**config)


def _write_vae(folder: Path, **config: Any) -> None:
    _make(
        "AutoencoderKL",
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=8 * FACTOR,
        **config,
    ).save_pretrained(folder / "vae")


def _write_clip(folder: Path, suffix: str, cls: Any) -> None:
    """Write a text encoder like CLIP's, and its tokenizer as older models ship it."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    words = [*sorted(letters), *(f"{letter}</w>" for letter in sorted(letters))]
    words += ["".join(pair) for pair in _MERGES] + [_START, _END]
    tokenizer = folder / f"tokenizer{suffix}"
    tokenizer.mkdir(parents=True)
    vocab = {word: n for n, word in enumerate(words)}
    (tokenizer / "vocab.json").write_text(json.dumps(vocab))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in _MERGES)]
    (tokenizer / "merges.txt").write_text("\n".join(merges) + "\n")
    marks = {"bos_token": _START, "eos_token": _END, "pad_token": _END, "unk_token": _END}
    described = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CLIP_TOKENS, **marks}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(described))
    config: Any = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        projection_dim=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_TOKENS,
        bos_token_id=vocab[_START],
        eos_token_id=vocab[_END],
        pad_token_id=vocab[_END],
    )
    cls(config).save_pretrained(folder / f"text_encoder{suffix}")


def _write_t5(folder: Path, suffix: str) -> None:
    """Write a text encoder like T5's, and its tokenizer."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -6.0) for letter in string.ascii_lowercase]
    pieces += [(f"▁{word}", -3.0) for word in _WORDS]
    tokenizer: Any = transformers.T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    config: Any = transformers.T5Config(
        vocab_size=len(pieces),
        d_model=2 * _WIDTH,
        d_kv=8,
        d_ff=2 * _WIDTH,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    encoder: Any = transformers.T5EncoderModel(config)
    encoder.save_pretrained(folder / f"text_encoder{suffix}")


def _write_index(
    folder: Path,
    pipeline: str,
    parts: Mapping[str, tuple[str | None, str | None]],
    options: Mapping[str, Any] | None = None,
) -> Path:
    index = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    (folder / "model_index.json").write_text(json.dumps(index | dict(options or {}) | dict(parts)))
    return folder
