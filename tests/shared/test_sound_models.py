"""What is read of models of sounds from files as the large ones have them."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.catalog import Catalog, ModelSpec
from shared.errors import ConfigurationError
from shared.vocab import Medium, PredictionType, Process

COSINE = "CosineDPMSolverMultistepScheduler"
EDM = {"num_train_timesteps": 1000, "prediction_type": "v_prediction"}
BETAS = {
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
}
STABLE_AUDIO: dict[str, Any] = {
    "model_index.json": {"_class_name": "StableAudioPipeline"},
    "scheduler/scheduler_config.json": {"_class_name": COSINE, **EDM},
    "vae/config.json": {"downsampling_ratios": [2, 4, 4, 8, 8], "sampling_rate": 44_100},
    "transformer/config.json": {"sample_size": 1024},
    "projection_model/config.json": {"min_value": 0, "max_value": 512},
    "tokenizer/tokenizer_config.json": {"model_max_length": 128},
}
AUDIOLDM2: dict[str, Any] = {
    "model_index.json": {
        "_class_name": "AudioLDM2Pipeline",
        "text_encoder_2": ["transformers", "T5EncoderModel"],
    },
    "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler", **BETAS},
    "vae/config.json": {"block_out_channels": [128, 256, 512], "latent_channels": 8},
    "unet/config.json": {"in_channels": 8, "sample_size": 256},
    "vocoder/config.json": {
        "upsample_rates": [5, 4, 2, 2, 2],
        "sampling_rate": 16_000,
        "model_in_dim": 64,
    },
    "tokenizer/tokenizer_config.json": {"model_max_length": 512},
    "tokenizer_2/tokenizer_config.json": {"model_max_length": 256},
}


def read(folder: Path, files: dict[str, Any], **entry: object) -> ModelSpec:
    for name, content in files.items():
        (folder / "net" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "net" / name).write_text(json.dumps(content))
    lines = [f"{name} = {json.dumps(value)}" for name, value in entry.items()]
    path = folder / "catalog.toml"
    head = 'default = "net"\n[models.net]\npath = "net"\nrevision = "1"\n'
    path.write_text(head + "\n".join(lines))
    return Catalog.load(path).models["net"]


def test_stable_audio_open_is_described_by_its_own_files(tmp_path: Path) -> None:
    spec = read(tmp_path, STABLE_AUDIO)
    assert (spec.family, spec.medium) == ("stable_audio", Medium.AUDIO)
    assert (spec.process, spec.prediction_type) == (Process.EDM, PredictionType.V_PREDICTION)
    assert (spec.width, spec.max_height, spec.max_tokens) == (0, 0, 128)
    assert spec.sound is not None
    assert spec.sound.sample_rate == 44_100
    assert spec.sound.duration_s == spec.sound.max_duration_s == 1024 * 2048 / 44_100
    assert spec.sound.cells(1.0) == 1024


def test_audioldm2_is_described_by_its_own_files(tmp_path: Path) -> None:
    spec = read(tmp_path, AUDIOLDM2)
    assert (spec.family, spec.medium, spec.process) == (
        "audioldm2",
        Medium.AUDIO,
        Process.DIFFUSION,
    )
    assert spec.max_tokens == 256
    assert spec.sound is not None
    assert (spec.sound.sample_rate, spec.sound.duration_s) == (16_000, 10.24)
    assert spec.sound.cells(10.24) == 256 * 16
    assert spec.sound.cells(5.12) == 128 * 16


def test_an_entry_says_less_of_any_and_more_where_latents_grow(tmp_path: Path) -> None:
    shorter = read(tmp_path, STABLE_AUDIO, max_duration_s=30).sound
    assert shorter is not None
    assert (shorter.duration_s, shorter.max_duration_s) == (30, 30)
    assert shorter.cells(1.0) == 1024
    longer = read(tmp_path, AUDIOLDM2, duration_s=5, max_duration_s=60).sound
    assert longer is not None
    assert (longer.duration_s, longer.max_duration_s) == (5, 60)


@pytest.mark.parametrize(
    ("files", "entry", "complaint"),
    [
        (STABLE_AUDIO, {"max_duration_s": 60}, "60 is more than its latents hold; 47.55"),
        (STABLE_AUDIO, {"duration_s": 48}, "duration_s 48 is not within its 0.0464399 to 47.55"),
        (STABLE_AUDIO, {"duration_s": 9, "max_duration_s": 8}, "9.0 is above max_duration_s 8.0"),
        (STABLE_AUDIO, {"max_width": 64}, "make 'audio', which has no max_width; leave it out"),
        (STABLE_AUDIO, {"device.compile": True}, "device.compile is not served with stable_audio"),
        (AUDIOLDM2, {"device.attention": "eager"}, "device.attention is not served with audioldm2"),
        (STABLE_AUDIO, {"medium": "image"}, "medium is 'image', but stable_audio models make"),
        (
            STABLE_AUDIO | {"scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler"}},
            {},
            "served with a scheduler of edm models; its own is a DDIMScheduler",
        ),
        (
            AUDIOLDM2 | {"scheduler/scheduler_config.json": {"_class_name": COSINE, **EDM}},
            {},
            "its scheduler is one of edm models",
        ),
        (
            AUDIOLDM2
            | {
                "model_index.json": {
                    "_class_name": "AudioLDM2Pipeline",
                    "text_encoder_2": ["transformers", "VitsModel"],
                }
            },
            {},
            "reads a transcription aloud",
        ),
    ],
    ids=str,
)
def test_what_is_not_served_or_contradicts_itself_is_refused(
    tmp_path: Path, files: dict[str, Any], entry: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        read(tmp_path, files, **entry)
