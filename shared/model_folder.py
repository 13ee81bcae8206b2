"""What a model's own files say of it, read without torch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.errors import ConfigurationError
from shared.model_facts import (
    ALL_OPTIONS,
    CONSISTENCY_SCHEDULERS,
    DEFAULT_TEACHER_STEPS,
    PROCESSES,
    ModelFacts,
    check_channels,
    check_process,
    latent_factor_of,
    read_diffusion,
    read_guidance,
    read_json,
    read_training,
)
from shared.schedule import TrainingSchedule
from shared.sound_folder import read_audioldm2, read_stable_audio
from shared.vocab import GuidanceForm, Medium, PredictionType, Process

#: Tokens of T5 that the pipelines of flow models fill every prompt up to.
SD3_T5_TOKENS, FLUX_T5_TOKENS = 256, 512
#: Latent cells along each side of what Flux was trained on; its pipeline says it, not its files.
FLUX_SIDE = 128
#: Label numbers of a class-conditional model end here: the one after them stands for no label.
NULL_LABEL = 1000
#: The family that runs any pipeline by its own call.
ANY_PIPELINE = "pipeline"
#: Pixels of a latent's cell where an autoencoder does not say.
_USUAL_FACTOR = 8


def read_folder(model_id: str, folder: Path, *, family: str | None = None) -> ModelFacts:
    """Read a diffusers folder; as the family `pipeline` one that no other runs, too.

    Raises:
        ConfigurationError: Its model is not served; says why, and what is.
        OSError: A file cannot be read.
        ValueError: One is not what it should be.
        KeyError: One lacks something.
    """
    index = read_json(folder / "model_index.json")
    pipeline = index["_class_name"]
    if family == ANY_PIPELINE:
        return _read_any(model_id, folder, index)
    if pipeline not in _READERS:
        raise ConfigurationError(
            f"model {model_id}: no family of ours runs a {pipeline}, only {', '.join(_READERS)}; "
            f"family = {ANY_PIPELINE!r} has it run by its own call, one job at a time"
        )
    return _READERS[pipeline](model_id, folder, index)


def has_part(folder: Path, part: str) -> bool:
    """Tell whether a model has a part that others of its family have."""
    return bool(read_json(folder / "model_index.json").get(part) != [None, None])


def _read_stable_diffusion(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    vae = read_json(folder / "vae" / "config.json")
    unet = read_json(folder / "unet" / "config.json")
    check_channels(model_id, taken=unet["in_channels"], vae=vae)
    text_encoder = read_json(folder / "text_encoder" / "config.json")
    factor = latent_factor_of(vae)
    return ModelFacts(
        pipeline=index["_class_name"],
        family="stable_diffusion",
        medium=Medium.IMAGE,
        **read_diffusion(model_id, index["_class_name"], scheduler),
        latent_factor=factor,
        side=unet["sample_size"] * factor,
        max_tokens=text_encoder["max_position_embeddings"],
        guidance=read_guidance(unet),
        tokenizers=("tokenizer",),
        takes_adapters=True,
        starts_from_pictures=True,
    )


def _read_sdxl(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    for part in ("text_encoder", "text_encoder_2"):
        if not has_part(folder, part):
            raise ConfigurationError(
                f"model {model_id}: it has no {part}; models with both text encoders are served"
            )
    facts = _read_stable_diffusion(model_id, folder, index)
    if read_json(folder / "vae" / "config.json").get("latents_mean") is not None:
        raise ConfigurationError(
            f"model {model_id}: latents that are normalized channel by channel (latents_mean) are "
            "not served; those with a scaling_factor alone are"
        )
    return replace(
        facts,
        family="sdxl",
        tokenizers=("tokenizer", "tokenizer_2"),
        device_options=ALL_OPTIONS - {"compile"},
    )


def _read_sd3(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    transformer = read_json(folder / "transformer" / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    check_channels(model_id, taken=transformer["in_channels"], vae=vae)
    factor, patch = latent_factor_of(vae), transformer["patch_size"]
    has_t5 = has_part(folder, "text_encoder_3")
    clip = read_json(folder / "text_encoder" / "config.json")
    return ModelFacts(
        family="sd3",
        **_read_flow(model_id, folder, index),
        latent_factor=factor,
        side=transformer["sample_size"] * factor,
        patch=patch,
        max_side=transformer["pos_embed_max_size"] * patch * factor,
        # What is too long for CLIP, T5 reads to its end.
        max_tokens=SD3_T5_TOKENS if has_t5 else clip["max_position_embeddings"],
        tokenizers=("tokenizer_3",) if has_t5 else ("tokenizer", "tokenizer_2"),
    )


def _read_flux(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    transformer = read_json(folder / "transformer" / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    factor, patch = latent_factor_of(vae), 2
    check_channels(model_id, taken=transformer["in_channels"] // patch**2, vae=vae)
    is_told: bool = transformer["guidance_embeds"]
    return ModelFacts(
        family="flux",
        **_read_flow(model_id, folder, index) | {"is_distilled": not is_told},
        guidance=GuidanceForm.TOLD if is_told else GuidanceForm.NONE,
        latent_factor=factor,
        side=FLUX_SIDE * factor,
        patch=patch,
        max_tokens=FLUX_T5_TOKENS,
        tokenizers=("tokenizer_2",),
    )


def _read_flow(model_id: str, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Read what flow models have in common, by the names of facts."""
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    check_process(model_id, index["_class_name"], scheduler, served=Process.FLOW)
    return {
        "pipeline": index["_class_name"],
        "medium": Medium.IMAGE,
        "process": Process.FLOW,
        "prediction_type": PredictionType.FLOW,
        "training": TrainingSchedule(scheduler["num_train_timesteps"]),
        "is_distilled": False,
        "teacher_steps": DEFAULT_TEACHER_STEPS,
        "shifts_by_size": bool(scheduler.get("use_dynamic_shifting")),
        "device_options": frozenset({"dtype"}),
    }


def _read_dit(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    vae = read_json(folder / "vae" / "config.json")
    transformer = read_json(folder / "transformer" / "config.json")
    check_channels(model_id, taken=transformer["in_channels"], vae=vae)
    factor = latent_factor_of(vae)
    return ModelFacts(
        pipeline=index["_class_name"],
        family="dit",
        medium=Medium.IMAGE,
        **read_diffusion(model_id, index["_class_name"], scheduler),
        latent_factor=factor,
        side=transformer["sample_size"] * factor,
        labels=_read_labels(model_id, index),
        has_one_size=True,
    )


def _read_any(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    process = PROCESSES.get(scheduler["_class_name"], Process.DIFFUSION)
    # Those of other kinds of schedulers are none of our samplers'.
    is_known = process is not Process.DIFFUSION or "beta_schedule" in scheduler
    if not is_known or process is Process.EDM:
        raise ConfigurationError(
            f"model {model_id}: no sampler of ours goes with its {scheduler['_class_name']}; those "
            "of diffusion and of flow models do"
        )
    parts = tuple(
        part
        for part in index
        if (folder / part / "config.json").exists() and any((folder / part).glob("*.safetensors*"))
    )
    configs = {part: read_json(folder / part / "config.json") for part in parts}
    factor = _USUAL_FACTOR
    if "block_out_channels" in configs.get("vae", {}):
        factor = latent_factor_of(configs["vae"])
    denoiser = configs.get("transformer") or configs.get("unet") or {}
    side = denoiser.get("sample_size")
    is_flow = process is Process.FLOW
    reads_clip = index.get("tokenizer", ["", ""])[1] == "CLIPTokenizer"
    return ModelFacts(
        pipeline=index["_class_name"],
        family=ANY_PIPELINE,
        medium=Medium.IMAGE,
        process=process,
        prediction_type=PredictionType(
            PredictionType.FLOW if is_flow else scheduler["prediction_type"]
        ),
        training=(
            TrainingSchedule(scheduler["num_train_timesteps"])
            if is_flow
            else read_training(model_id, scheduler)
        ),
        is_distilled=scheduler["_class_name"] in CONSISTENCY_SCHEDULERS,
        teacher_steps=scheduler.get("original_inference_steps", DEFAULT_TEACHER_STEPS),
        latent_factor=factor,
        side=side * factor if isinstance(side, int) else 0,
        # Of others the pipeline alone knows how far it reads.
        max_tokens=configs["text_encoder"]["max_position_embeddings"] if reads_clip else 0,
        tokenizers=("tokenizer",) if reads_clip else (),
        parts=parts,
    )


def _read_labels(model_id: str, index: Mapping[str, Any]) -> dict[str, int]:
    """Read the labels' numbers, by each of their names: several may stand for one number."""
    labels = {}
    for number, names in index.get("id2label", {}).items():
        for name in names.split(","):
            labels[name.strip()] = int(number)
    if not labels:
        raise ConfigurationError(
            f"model {model_id}: its model_index.json names no labels (id2label); give each number "
            "that it was trained on a name there"
        )
    if max(labels.values()) >= NULL_LABEL or min(labels.values()) < 0:
        raise ConfigurationError(
            f"model {model_id}: labels have numbers from 0 to {NULL_LABEL - 1}; diffusers' "
            f"pipeline takes {NULL_LABEL} for none"
        )
    return labels


_Reader = Callable[[str, Path, Mapping[str, Any]], ModelFacts]
#: By the `_class_name` of a model_index.json.
_READERS: dict[str, _Reader] = {
    "StableDiffusionPipeline": _read_stable_diffusion,
    "LatentConsistencyModelPipeline": _read_stable_diffusion,
    "StableDiffusionXLPipeline": _read_sdxl,
    "StableDiffusion3Pipeline": _read_sd3,
    "FluxPipeline": _read_flux,
    "AudioLDM2Pipeline": read_audioldm2,
    "DiTPipeline": _read_dit,
    "StableAudioPipeline": read_stable_audio,
}
