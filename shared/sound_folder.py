"""What the files of models of sounds say of them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import ConfigurationError
from shared.model_facts import (
    DEFAULT_TEACHER_STEPS,
    PROCESSES,
    ModelFacts,
    check_channels,
    latent_factor_of,
    read_diffusion,
    read_json,
)
from shared.schedule import TrainingSchedule
from shared.sound import SoundSpec
from shared.vocab import Medium, PredictionType, Process

#: Device options that their families have been run with.
_OPTIONS = frozenset({"dtype"})


def read_stable_audio(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    """Read a StableAudioPipeline."""
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    vae = read_json(folder / "vae" / "config.json")
    transformer = read_json(folder / "transformer" / "config.json")
    projection = read_json(folder / "projection_model" / "config.json")
    if PROCESSES.get(scheduler["_class_name"]) is not Process.EDM:
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
        max_tokens=read_json(folder / "tokenizer" / "tokenizer_config.json")["model_max_length"],
        tokenizers=("tokenizer",),
        device_options=_OPTIONS,
        sound=SoundSpec(
            sample_rate=rate,
            duration_s=longest,
            min_duration_s=max(hop / rate, projection["min_value"]),
            max_duration_s=longest,
            hop=hop,
            length=length,
        ),
    )


def read_audioldm2(model_id: str, folder: Path, index: Mapping[str, Any]) -> ModelFacts:
    """Read an AudioLDM2Pipeline."""
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    vae = read_json(folder / "vae" / "config.json")
    unet = read_json(folder / "unet" / "config.json")
    vocoder = read_json(folder / "vocoder" / "config.json")
    check_channels(model_id, taken=unet["in_channels"], vae=vae)
    if index["text_encoder_2"][1] != "T5EncoderModel":
        raise ConfigurationError(
            f"model {model_id}: a {index['_class_name']} that reads a transcription aloud "
            f"({index['text_encoder_2'][1]}) is not served; those with a T5EncoderModel are"
        )
    factor, rate = latent_factor_of(vae), vocoder["sampling_rate"]
    hop = factor * math.prod(vocoder["upsample_rates"])
    duration_s = unet["sample_size"] * hop / rate
    return ModelFacts(
        pipeline=index["_class_name"],
        family="audioldm2",
        medium=Medium.AUDIO,
        **read_diffusion(model_id, index["_class_name"], scheduler),
        latent_factor=hop,
        side=0,
        max_tokens=min(
            read_json(folder / name / "tokenizer_config.json")["model_max_length"]
            for name in ("tokenizer", "tokenizer_2")
        ),
        tokenizers=("tokenizer", "tokenizer_2"),
        device_options=_OPTIONS,
        sound=SoundSpec(
            sample_rate=rate,
            duration_s=duration_s,
            min_duration_s=hop / rate,
            max_duration_s=duration_s,
            hop=hop,
            bands=vocoder["model_in_dim"] // factor,
        ),
    )
