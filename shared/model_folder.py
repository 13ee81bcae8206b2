"""What a model's own files say of it, read without torch."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.device_options import DeviceOptions
from shared.errors import ConfigurationError
from shared.schedule import TrainingSchedule
from shared.vocab import GuidanceForm, Medium, PredictionType, Process

#: Scheduler classes that a folder names if its model is none of the usual diffusion.
_PROCESSES = {
    "FlowMatchEulerDiscreteScheduler": Process.FLOW,
    "FlowMatchHeunDiscreteScheduler": Process.FLOW,
    "EDMDPMSolverMultistepScheduler": Process.EDM,
    "EDMEulerScheduler": Process.EDM,
}
#: Scheduler classes that a folder names if its model was distilled for them.
_CONSISTENCY_SCHEDULERS = frozenset({"LCMScheduler", "TCDScheduler"})
#: Steps of the teacher that a model was distilled from, as diffusers has it.
DEFAULT_TEACHER_STEPS = 50
#: Tokens of T5 that the pipelines of flow models fill every prompt up to.
SD3_T5_TOKENS, FLUX_T5_TOKENS = 256, 512
#: Latent cells along each side of what Flux was trained on; its pipeline says it, not its files.
FLUX_SIDE = 128
#: Device options of families that are written for all of them.
ALL_OPTIONS = frozenset(DeviceOptions.model_fields)
#: Label numbers of a class-conditional model end here: the one after them stands for no label.
NULL_LABEL = 1000
#: The family that runs any pipeline by its own call.
ANY_PIPELINE = "pipeline"
#: Pixels of a latent's cell where an autoencoder does not say.
_USUAL_FACTOR = 8


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What follows from a diffusers folder alone."""

    #: `_class_name` of its model_index.json.
    pipeline: str
    family: str
    medium: Medium
    process: Process
    prediction_type: PredictionType
    training: TrainingSchedule
    #: Whether its scheduler is one of models distilled for consistency sampling.
    is_distilled: bool
    teacher_steps: int
    #: Pixels per latent cell, along each side.
    latent_factor: int
    #: Pixels along each side of what it was trained on.
    side: int
    max_tokens: int = 0
    labels: Mapping[str, int] | None = None
    #: Folders of its networks, where its family does not say which those are.
    parts: tuple[str, ...] = ()
    guidance: GuidanceForm = GuidanceForm.CLASSIFIER_FREE
    #: Folders of the tokenizers that count a prompt's tokens.
    tokenizers: tuple[str, ...] = ()
    #: Latent cells along each side of what the denoiser takes as one.
    patch: int = 1
    #: Most pixels along a side that it has positions for, if they end.
    max_side: int | None = None
    #: Whether its levels depend on a picture's size.
    shifts_by_size: bool = False
    #: Whether jobs can have adapters.
    takes_adapters: bool = False
    #: Whether jobs can start from a picture.
    starts_from_pictures: bool = False
    #: Whether it makes pictures of that size and no other.
    has_one_size: bool = False
    #: Device options that its family is served with.
    device_options: frozenset[str] = ALL_OPTIONS

    @property
    def size_step(self) -> int:
        """Pixels of which sizes are multiples."""
        return self.latent_factor * self.patch


def read_folder(model_id: str, folder: Path, *, family: str | None = None) -> ModelFacts:
    """Read a diffusers folder; as the family `pipeline` one that no other runs, too.

    Raises:
        ConfigurationError: Its model is not served; says why, and what is.
        OSError: A file cannot be read.
        ValueError: One is not what it should be.
        KeyError: One lacks something.
    """
    index = _read_json(folder / "model_index.json")
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
    return bool(_read_json(folder / "model_index.json").get(part) != [None, None])


def _read_stable_diffusion(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    vae = _read_json(folder / "vae" / "config.json")
    unet = _read_json(folder / "unet" / "config.json")
    _check_channels(model_id, taken=unet["in_channels"], vae=vae)
    _check_process(model_id, index["_class_name"], scheduler)
    text_encoder = _read_json(folder / "text_encoder" / "config.json")
    factor = _latent_factor(vae)
    return ModelFacts(
        pipeline=index["_class_name"],
        family="stable_diffusion",
        medium=Medium.IMAGE,
        process=Process.DIFFUSION,
        prediction_type=PredictionType(scheduler["prediction_type"]),
        training=_read_training(model_id, scheduler),
        is_distilled=scheduler["_class_name"] in _CONSISTENCY_SCHEDULERS,
        teacher_steps=scheduler.get("original_inference_steps", DEFAULT_TEACHER_STEPS),
        latent_factor=factor,
        side=unet["sample_size"] * factor,
        max_tokens=text_encoder["max_position_embeddings"],
        guidance=_read_guidance(unet),
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
    if _read_json(folder / "vae" / "config.json").get("latents_mean") is not None:
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
    transformer = _read_json(folder / "transformer" / "config.json")
    vae = _read_json(folder / "vae" / "config.json")
    _check_channels(model_id, taken=transformer["in_channels"], vae=vae)
    factor, patch = _latent_factor(vae), transformer["patch_size"]
    has_t5 = has_part(folder, "text_encoder_3")
    clip = _read_json(folder / "text_encoder" / "config.json")
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
    transformer = _read_json(folder / "transformer" / "config.json")
    vae = _read_json(folder / "vae" / "config.json")
    factor, patch = _latent_factor(vae), 2
    _check_channels(model_id, taken=transformer["in_channels"] // patch**2, vae=vae)
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
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    _check_process(model_id, index["_class_name"], scheduler, served=Process.FLOW)
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
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    vae = _read_json(folder / "vae" / "config.json")
    transformer = _read_json(folder / "transformer" / "config.json")
    _check_channels(model_id, taken=transformer["in_channels"], vae=vae)
    _check_process(model_id, index["_class_name"], scheduler)
    factor = _latent_factor(vae)
    return ModelFacts(
        pipeline=index["_class_name"],
        family="dit",
        medium=Medium.IMAGE,
        process=Process.DIFFUSION,
        prediction_type=PredictionType(scheduler["prediction_type"]),
        training=_read_training(model_id, scheduler),
        is_distilled=scheduler["_class_name"] in _CONSISTENCY_SCHEDULERS,
        teacher_steps=scheduler.get("original_inference_steps", DEFAULT_TEACHER_STEPS),
        latent_factor=factor,
        side=transformer["sample_size"] * factor,
        labels=_read_labels(model_id, index),
        has_one_size=True,
    )


def _read_any(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    process = _PROCESSES.get(scheduler["_class_name"], Process.DIFFUSION)
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
    configs = {part: _read_json(folder / part / "config.json") for part in parts}
    factor = _USUAL_FACTOR
    if "block_out_channels" in configs.get("vae", {}):
        factor = _latent_factor(configs["vae"])
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
            else _read_training(model_id, scheduler)
        ),
        is_distilled=scheduler["_class_name"] in _CONSISTENCY_SCHEDULERS,
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


def _latent_factor(vae: Mapping[str, Any]) -> int:
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def _check_channels(model_id: str, *, taken: int, vae: Mapping[str, Any]) -> None:
    if taken != vae["latent_channels"]:
        raise ConfigurationError(
            f"model {model_id}: its denoiser takes {taken} channels and latents have "
            f"{vae['latent_channels']}; denoisers made for inpainting are not served, "
            "the others take masks"
        )


def _read_guidance(unet: Mapping[str, Any]) -> GuidanceForm:
    is_told = unet.get("time_cond_proj_dim") is not None
    return GuidanceForm.TOLD if is_told else GuidanceForm.CLASSIFIER_FREE


def _check_process(
    model_id: str,
    pipeline: str,
    scheduler: Mapping[str, Any],
    *,
    served: Process = Process.DIFFUSION,
) -> None:
    process = _PROCESSES.get(scheduler["_class_name"], Process.DIFFUSION)
    if scheduler.get("prediction_type") == PredictionType.FLOW:
        process = Process.FLOW
    if process is not served:
        raise ConfigurationError(
            f"model {model_id}: its scheduler is one of {process} models; "
            f"a {pipeline} is served with those of {served}"
        )


def _read_training(model_id: str, scheduler: Mapping[str, Any]) -> TrainingSchedule:
    is_zero_snr = bool(scheduler.get("rescale_betas_zero_snr"))
    if is_zero_snr and scheduler["prediction_type"] == PredictionType.EPSILON:
        raise ConfigurationError(
            f"model {model_id}: where there is no signal (rescale_betas_zero_snr) a prediction of "
            "the noise says nothing; models that predict the sample or v are served"
        )
    training = TrainingSchedule(
        num_train_timesteps=scheduler["num_train_timesteps"],
        beta_start=scheduler["beta_start"],
        beta_end=scheduler["beta_end"],
        beta_schedule=scheduler["beta_schedule"],
        zero_terminal_snr=is_zero_snr,
    )
    # An unknown training schedule shows here.
    if training.log_sigmas[-2] >= training.log_sigmas[-1]:
        raise ConfigurationError(
            f"model {model_id}: with {training.num_train_timesteps} training timesteps the last "
            "but one has less signal than diffusers leaves at zero (rescale_betas_zero_snr)"
        )
    return training


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


_Reader = Callable[[str, Path, Mapping[str, Any]], ModelFacts]
#: By the `_class_name` of a model_index.json.
_READERS: dict[str, _Reader] = {
    "StableDiffusionPipeline": _read_stable_diffusion,
    "LatentConsistencyModelPipeline": _read_stable_diffusion,
    "StableDiffusionXLPipeline": _read_sdxl,
    "StableDiffusion3Pipeline": _read_sd3,
    "FluxPipeline": _read_flux,
    "DiTPipeline": _read_dit,
}
