"""What a model's own files say of it, read without torch."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import ConfigurationError
from shared.schedule import TrainingSchedule
from shared.sound import SoundSpec
from shared.vocab import Medium, PredictionType, Process

#: Scheduler classes that a folder names if its model is none of the usual diffusion.
_PROCESSES = {
    "FlowMatchEulerDiscreteScheduler": Process.FLOW,
    "FlowMatchHeunDiscreteScheduler": Process.FLOW,
    "CosineDPMSolverMultistepScheduler": Process.EDM,
    "EDMDPMSolverMultistepScheduler": Process.EDM,
    "EDMEulerScheduler": Process.EDM,
}
#: Scheduler classes that a folder names if its model was distilled for them.
_CONSISTENCY_SCHEDULERS = frozenset({"LCMScheduler", "TCDScheduler"})
#: Steps of the teacher that a model was distilled from, as diffusers has it.
DEFAULT_TEACHER_STEPS = 50
#: Label numbers of a class-conditional model end here: the one after them stands for no label.
NULL_LABEL = 1000


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
    #: Whether jobs can have adapters.
    takes_adapters: bool = False
    #: Whether jobs can start from a picture.
    starts_from_pictures: bool = False
    #: Whether it makes pictures of that size and no other.
    has_one_size: bool = False
    #: Of models that make sounds, whose `side` is 0.
    sound: SoundSpec | None = None


def read_folder(model_id: str, folder: Path) -> ModelFacts:
    """Read a diffusers folder.

    Raises:
        ConfigurationError: Its model is not served; says why, and what is.
        OSError: A file cannot be read.
        ValueError: One is not what it should be.
        KeyError: One lacks something.
    """
    index = _read_json(folder / "model_index.json")
    pipeline = index["_class_name"]
    if pipeline not in _READERS:
        raise ConfigurationError(
            f"model {model_id}: {pipeline} is not served; {', '.join(_READERS)} is"
        )
    return _READERS[pipeline](model_id, folder, index)


def _read_stable_diffusion(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    vae = _read_json(folder / "vae" / "config.json")
    unet = _read_json(folder / "unet" / "config.json")
    _check_channels(model_id, taken=unet["in_channels"], vae=vae)
    _check_process(model_id, index["_class_name"], scheduler)
    if unet.get("time_cond_proj_dim") is not None:
        raise ConfigurationError(
            f"model {model_id}: a denoiser that is told its guidance (time_cond_proj_dim) "
            "is not served; distilled models without that are"
        )
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
        takes_adapters=True,
        starts_from_pictures=True,
    )


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


def _read_stable_audio(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    vae = _read_json(folder / "vae" / "config.json")
    transformer = _read_json(folder / "transformer" / "config.json")
    projection = _read_json(folder / "projection_model" / "config.json")
    if _PROCESSES.get(scheduler["_class_name"]) is not Process.EDM:
        raise ConfigurationError(
            f"model {model_id}: a {index['_class_name']} is served with a scheduler of "
            f"{Process.EDM} models; its own is a {scheduler['_class_name']}"
        )
    hop, rate = math.prod(vae["downsampling_ratios"]), vae["sampling_rate"]
    length = transformer["sample_size"]
    longest = min(length * hop / rate, projection["max_value"])
    return ModelFacts(
        pipeline=index["_class_name"],
        family="stable_audio",
        medium=Medium.AUDIO,
        process=Process.EDM,
        prediction_type=PredictionType(scheduler["prediction_type"]),
        training=TrainingSchedule(scheduler["num_train_timesteps"]),
        is_distilled=False,
        teacher_steps=DEFAULT_TEACHER_STEPS,
        latent_factor=hop,
        side=0,
        max_tokens=_read_json(folder / "tokenizer" / "tokenizer_config.json")["model_max_length"],
        sound=SoundSpec(
            sample_rate=rate,
            duration_s=longest,
            min_duration_s=max(hop / rate, projection["min_value"]),
            max_duration_s=longest,
            hop=hop,
            length=length,
        ),
    )


def _read_audioldm2(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    vae = _read_json(folder / "vae" / "config.json")
    unet = _read_json(folder / "unet" / "config.json")
    vocoder = _read_json(folder / "vocoder" / "config.json")
    _check_channels(model_id, taken=unet["in_channels"], vae=vae)
    _check_process(model_id, index["_class_name"], scheduler)
    if index["text_encoder_2"][1] != "T5EncoderModel":
        raise ConfigurationError(
            f"model {model_id}: a {index['_class_name']} that reads a transcription aloud "
            f"({index['text_encoder_2'][1]}) is not served; those with a T5EncoderModel are"
        )
    factor, rate = _latent_factor(vae), vocoder["sampling_rate"]
    hop = factor * math.prod(vocoder["upsample_rates"])
    duration_s = unet["sample_size"] * hop / rate
    return ModelFacts(
        pipeline=index["_class_name"],
        family="audioldm2",
        medium=Medium.AUDIO,
        process=Process.DIFFUSION,
        prediction_type=PredictionType(scheduler["prediction_type"]),
        training=_read_training(model_id, scheduler),
        is_distilled=scheduler["_class_name"] in _CONSISTENCY_SCHEDULERS,
        teacher_steps=scheduler.get("original_inference_steps", DEFAULT_TEACHER_STEPS),
        latent_factor=hop,
        side=0,
        max_tokens=min(
            _read_json(folder / name / "tokenizer_config.json")["model_max_length"]
            for name in ("tokenizer", "tokenizer_2")
        ),
        sound=SoundSpec(
            sample_rate=rate,
            duration_s=duration_s,
            min_duration_s=hop / rate,
            max_duration_s=duration_s,
            hop=hop,
            bands=vocoder["model_in_dim"] // factor,
        ),
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


def _check_process(model_id: str, pipeline: str, scheduler: Mapping[str, Any]) -> None:
    process = _PROCESSES.get(scheduler["_class_name"], Process.DIFFUSION)
    if scheduler.get("prediction_type") == PredictionType.FLOW:
        process = Process.FLOW
    if process is not Process.DIFFUSION:
        raise ConfigurationError(
            f"model {model_id}: its scheduler is one of {process} models; "
            f"a {pipeline} is served with those of {Process.DIFFUSION}"
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
    "AudioLDM2Pipeline": _read_audioldm2,
    "DiTPipeline": _read_dit,
    "StableAudioPipeline": _read_stable_audio,
}
