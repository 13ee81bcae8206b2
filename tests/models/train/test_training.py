"""Trainings of a few steps: that they learn, stop and go on; not how well they draw."""

import csv
import random
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import CLIPTokenizer

from models.train import checkpoint
from models.train.denoiser import (
    DenoiserTraining,
    learn_to_arrange,
    learn_to_draw,
    make_denoiser,
    train_denoiser,
)
from models.train.export import export
from models.train.journal import Journal, plot
from models.train.tokenizer import MAX_TOKENS, make_tokenizer
from models.train.vae import VaeTraining, make_vae, to_tensor, train_vae, whiten
from models.train.world import draw_caption, draw_scene


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder, seed=0)
    return CLIPTokenizer.from_pretrained(folder)


def test_every_word_of_a_caption_is_one_token_and_all_captions_fit(
    tokenizer: CLIPTokenizer,
) -> None:
    rng = random.Random(1)
    for _ in range(2000):
        text = draw_caption(rng, draw_scene(rng, two_objects=0.7)).text
        assert tokenizer.tokenize(text) == [f"{word}</w>" for word in text.split()]
        assert len(tokenizer(text).input_ids) <= MAX_TOKENS - 4


def test_an_unknown_word_is_spelled(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("W\N{LATIN SMALL LETTER O WITH DIAERESIS}rd \N{GREEN HEART}").input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]


def test_whitening_changes_the_latents_and_not_the_pictures() -> None:
    torch.manual_seed(0)
    vae = make_vae().eval()
    rng = random.Random(2)
    images = to_tensor([draw_scene(rng, two_objects=0.5) for _ in range(64)])
    with torch.no_grad():
        before = vae.decode(vae.encode(images).latent_dist.mean).sample
        whiten(vae, seed=3)
        latents = vae.encode(images).latent_dist.mean
        after = vae.decode(latents).sample
    assert torch.allclose(before, after, atol=1e-3)
    flat = latents.permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(torch.cov(flat), torch.eye(4), atol=0.3)
    assert flat.mean(dim=1).abs().max() < 0.2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_learns_stops_and_goes_on(tmp_path: Path, tokenizer: CLIPTokenizer) -> None:
    short = VaeTraining(steps=6, batch_size=2, warmup=1)
    train_vae(tmp_path, short, processes=2)
    vae = train_vae(tmp_path, VaeTraining(steps=8, batch_size=2, warmup=1), processes=2)
    modules = {"vae": make_vae()}
    assert checkpoint.load(tmp_path / "vae.safetensors", modules) == 8

    stages = (learn_to_draw(2), learn_to_arrange(1))
    training = DenoiserTraining(stages, reading_steps=2, batch_size=2)
    denoiser = train_denoiser(tmp_path, vae, tokenizer, training, processes=1)
    fresh = make_denoiser(tokenizer, seed=0)
    assert not torch.equal(denoiser.ema_unet.conv_in.weight, fresh.ema_unet.conv_in.weight)

    export(tmp_path / "model", vae, tokenizer, denoiser)
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path / "model", dtype=torch.float32, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline("a red star", num_inference_steps=2).images
    assert image.size == (64, 64)
    assert sum(file.stat().st_size for file in (tmp_path / "model").rglob("*")) < 25e6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_of_two_processes_gives_the_same_weights_each_time(tmp_path: Path) -> None:
    training = VaeTraining(steps=2, batch_size=2, warmup=1)
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        train_vae(folder, training, processes=2)
    states = [make_vae(), make_vae()]
    for folder, vae in zip((one, two), states, strict=True):
        checkpoint.load(folder / "vae.safetensors", {"vae": vae})
    pairs = zip(states[0].parameters(), states[1].parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_each_stage_warms_up_and_goes_down_to_nothing() -> None:
    first, second = learn_to_draw(1000), learn_to_arrange(500)
    training = DenoiserTraining((first, second), reading_steps=1)
    assert training.steps == 1500
    assert training.locate(1000) == (first, 1000)
    assert training.locate(1001) == (second, 1)
    with pytest.raises(ValueError, match="fewer steps"):
        training.locate(1501)
    for stage in training.stages:
        rates = [stage.rate(step) for step in range(1, stage.steps + 1)]
        peak = rates.index(max(rates))
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)
        assert rates[0] < stage.learning_rate / 50
        assert rates[-1] == pytest.approx(stage.learning_rate / stage.steps)


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, 7, {"layer": layer}, optimizer)

    other = torch.nn.Linear(3, 2)
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=0.1)
    assert checkpoint.load(path, {"layer": other}, other_optimizer) == 7
    for network, its in ((layer, optimizer), (other, other_optimizer)):
        its.zero_grad()
        network(torch.ones(3)).square().sum().backward()
        its.step()
    assert torch.equal(layer.weight, other.weight)
    assert checkpoint.load(tmp_path / "missing.safetensors", {}) == 0


def test_a_journal_writes_means_and_can_be_drawn(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log.csv", every=2)
    for step in range(1, 7):
        journal.note(step, {"loss": 1 / step}, samples=8)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert float(rows[0]["loss"]) == pytest.approx(0.75)
    plot(tmp_path / "log.csv", tmp_path / "log.png")
    with Image.open(tmp_path / "log.png") as image:
        assert len(image.getcolors(maxcolors=2**16) or []) > 2
