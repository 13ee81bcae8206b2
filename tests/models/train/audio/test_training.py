"""Trainings of a few steps: that they learn, stop and go on; not how well they play."""

import random
from pathlib import Path

import pytest
import torch
from diffusers import StableAudioPipeline

from models.train import checkpoint
from models.train.audio.autoencoder import (
    CHANNELS,
    AutoencoderTraining,
    load_autoencoder,
    make_autoencoder,
    to_tensor,
    train_autoencoder,
    whiten,
)
from models.train.audio.conditioning import condition, drop
from models.train.audio.denoiser import DenoiserTraining, make_denoiser, train_denoiser
from models.train.audio.export import export
from models.train.audio.sounds import NUM_TICKS, draw_sound
from models.train.audio.spectra import compare_spectra
from models.train.audio.tokenizer import make_tokenizer

# The format's autoencoder is made with a torch function that has a successor.
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")


def test_whitening_changes_the_latents_and_not_the_sounds() -> None:
    torch.manual_seed(0)
    autoencoder = make_autoencoder().requires_grad_(False).eval()
    rng = random.Random(2)
    sounds = [draw_sound(rng, two_phrases=0.5) for _ in range(6)]
    samples = to_tensor(sounds)
    before = autoencoder.decode(autoencoder.encode(samples).latent_dist.mean).sample
    whiten(autoencoder, sounds)
    distribution = autoencoder.encode(samples).latent_dist
    after = autoencoder.decode(distribution.mean).sample
    assert before.shape == samples.shape
    assert torch.allclose(before, after, atol=1e-3)
    assert distribution.mean.shape == (6, CHANNELS, NUM_TICKS)
    flat = distribution.mean.permute(1, 0, 2).flatten(1)
    assert torch.allclose(flat @ flat.T / flat.shape[1], torch.eye(CHANNELS), atol=0.02)
    assert distribution.std == pytest.approx(distribution.std.flatten()[0].item())


def test_spectra_differ_by_pitch_and_loudness_and_not_by_phase() -> None:
    angles = torch.arange(4000) / 8000 * 2 * torch.pi * 800
    tone = angles.sin()[None]

    def distances(wave: torch.Tensor) -> list[float]:
        return [distance.item() for distance in compare_spectra(wave[None], tone)]

    assert distances(tone[0]) == pytest.approx([0, 0], abs=0.01)
    same, other = distances((angles + 1).sin()), distances((1.5 * angles).sin())
    quieter = distances(tone[0] / 2)
    assert same[0] < 0.2 < quieter[0] < 0.6 < 1 < other[0]
    assert same[1] < 0.03 < 0.06 < quieter[1]


def test_nothing_told_is_what_the_stock_pipeline_compares_with(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    denoiser = make_denoiser(tokenizer, seed=0)
    pipeline = StableAudioPipeline(
        vae=make_autoencoder(),
        text_encoder=denoiser.text_encoder,
        projection_model=denoiser.projection,
        tokenizer=tokenizer,
        transformer=denoiser.transformer,
        scheduler=None,
    )
    texts = ["a high tone", "two low clicks, then a chord"]
    with torch.no_grad():
        told = condition(
            denoiser.text_encoder, denoiser.projection, tokenizer, texts, torch.tensor([1.5, 1.5])
        )
        words = pipeline.encode_prompt(texts, "cpu", do_classifier_free_guidance=False)
        start, end = pipeline.encode_duration(0.0, 1.5, "cpu", False, 2)
    assert torch.equal(told.words, torch.cat([words, start, end], dim=1))
    assert torch.equal(told.seconds, torch.cat([start, end], dim=2))
    dropped = drop(told, torch.tensor([False, True]))
    assert torch.equal(dropped.words[0], told.words[0])
    assert not dropped.words[1].any()
    assert torch.equal(dropped.seconds, told.seconds)


def test_a_checkpoint_of_all_networks_brings_them_back(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    denoiser, other = make_denoiser(tokenizer, seed=1), make_denoiser(tokenizer, seed=2)
    checkpoint.save(tmp_path / "denoiser.safetensors", 5, denoiser.modules)
    assert checkpoint.load(tmp_path / "denoiser.safetensors", other.modules) == 5
    tokens = tokenizer("two low clicks", return_tensors="pt").input_ids
    with torch.no_grad():
        for mine, theirs in (
            (denoiser.text_encoder, other.text_encoder),
            (denoiser.ema_text_encoder, other.ema_text_encoder),
        ):
            assert torch.equal(mine(tokens)[0], theirs(tokens)[0])
    for mine, theirs in zip(denoiser.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_learns_stops_and_goes_on(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    train_autoencoder(tmp_path, AutoencoderTraining(steps=3, batch_size=2), processes=2)
    train_autoencoder(tmp_path, AutoencoderTraining(steps=4, batch_size=2), processes=2)
    modules = {"autoencoder": make_autoencoder()}
    assert checkpoint.load(tmp_path / "autoencoder.safetensors", modules) == 4

    training = DenoiserTraining(steps=2, reading_steps=2, batch_size=2)
    train_denoiser(tmp_path, tokenizer, training, processes=1)
    longer = DenoiserTraining(steps=3, reading_steps=2, batch_size=2)
    denoiser = train_denoiser(tmp_path, tokenizer, longer, processes=1)
    fresh = make_denoiser(tokenizer, seed=0)
    assert not torch.equal(
        denoiser.ema_transformer.proj_in.weight, fresh.transformer.proj_in.weight
    )

    export(tmp_path / "model", load_autoencoder(tmp_path), tokenizer, denoiser)
    pipeline = StableAudioPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    (wave,) = pipeline("a high tone", audio_end_in_s=1.5, num_inference_steps=2).audios
    assert wave.shape == (1, 12_000)
    assert sum(file.stat().st_size for file in (tmp_path / "model").rglob("*")) < 25e6


def test_the_learning_rate_warms_up_and_goes_down_to_nothing() -> None:
    training = DenoiserTraining(steps=1000, reading_steps=1)
    rates = [training.rate(step) for step in range(1, training.steps + 1)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] < training.learning_rate / 50
    assert rates[-1] == pytest.approx(training.learning_rate / training.steps)
